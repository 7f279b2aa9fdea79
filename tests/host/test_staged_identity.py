"""Staged words on the real host: which stage, keys apart from values, equal ones as embeddings."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.hooks
import comfy.samplers
import nodes
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_model_advanced
from comfy_extras.nodes_custom_sampler import SamplerCustom
from comfy_extras.nodes_hooks import SetClipHooks
from pack.infinite_id.host.patch import save_time
from pack.infinite_id.host.prepare import _list_keepers
from pack.infinite_id.savings import Savings
from pack.infinite_id.staged_identity.host_apply import KEY, apply_staged, read_share
from pack.infinite_id.staged_identity.host_prompt import PlaceError, encode
from pack.infinite_id.staged_identity.stages import find_stage
from pack.nodes.apply_staged import ApplyStagedIdentity
from pack.tests.host.staged_world import (
    PROMPT,
    STAGES,
    StagedWorld,
    encode_stage,
    make_equal,
    make_words,
    reference,
    stage_of,
    write_embedding,
)
from pack.tests.host.test_compiled import WAYS
from pack.tests.host.test_control import control, make_control_net
from pack.tests.host.world import SETTINGS, by_day, difference, empty
from torch import Tensor

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader
    from pack.tests.host.world import World

ROUNDING = 1e-4
SMALL = (8, 8)
SCHEDULERS = {"dpm_adaptive": "sgm_uniform"}
"""It takes some hundred steps on the way to the smallest noise; this schedule ends earlier."""


@pytest.fixture(scope="module")
def staged(worlds: Loader, tmp_path_factory: pytest.TempPathFactory) -> StagedWorld:
    world = worlds("least")
    folder = tmp_path_factory.mktemp("embeddings")
    _, clip, _ = nodes.CheckpointLoaderSimple().load_checkpoint("miniature-least.safetensors")
    for own in (clip.tokenizer.clip_l, clip.tokenizer.clip_g):
        own.embedding_directory = [str(folder)]
    return StagedWorld(world, clip, folder, make_words(clip))


@pytest.fixture(scope="module")
def pairs(staged: StagedWorld) -> Any:
    """The contexts of each stage, by stock nodes."""

    @cache
    def get(stage: int) -> tuple[Tensor, Tensor]:
        key, value = encode_stage(staged, staged.words, stage, staged.embeddings)
        return key, value

    return get


# --- Which stage, and keys apart from values -----------------------------------------------------


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_every_scheduler(staged: StagedWorld, pairs: Any, scheduler: str) -> None:
    how: dict[str, Any] = {"scheduler": scheduler, "latent": empty(1, *SMALL), "steps": 7}
    ours = staged.sample(**how)
    with reference(staged.world.model, pairs) as (model, seen):
        middle = pooled(staged)
        theirs = staged.world.sample(model, **how, positive=middle)
    assert torch.equal(ours, theirs)
    assert len({*seen.stages}) >= 3 or scheduler == "linear_quadratic"  # it stays in the noise
    assert difference(ours, staged.sample(staged.world.model, **how)) > 1e-2


def pooled(staged: StagedWorld, stages: int = STAGES) -> Any:
    """The mean of all stages by stock nodes, with the pooled vector of the middle's keys."""
    words = staged.words
    mean = {
        key: torch.cat([x, words.values[key]]).double().mean(0).float()
        for key, x in words.keys.items()
    }
    name = write_embedding(mean, staged.embeddings, "mean")
    ((context, more),) = staged.plain_text(PROMPT.replace("V*", name))
    middle = {key: x[stages // 2] for key, x in words.keys.items()}
    name = write_embedding(middle, staged.embeddings, "middle")
    ((_, other),) = staged.plain_text(PROMPT.replace("V*", name))
    return [[context, {**more, "pooled_output": other["pooled_output"]}]]


def test_stages_change_at_their_borders(staged: StagedWorld, pairs: Any) -> None:
    """At each first and last timestep of a stage, as the steps of one sampling."""
    sampling = staged.world.model.model.model_sampling
    borders = sorted({*range(0, 1000, 200), *range(199, 1000, 200)}, reverse=True)
    sigmas = torch.cat([sampling.sigmas[borders], torch.zeros(1)])

    def sample(model: Any, positive: Any) -> Tensor:
        sampler = comfy.samplers.sampler_object("euler")
        with torch.inference_mode():
            done = SamplerCustom.execute(
                model, True, 3, 5.0, positive, staged.world.negative, sampler, sigmas,
                empty(1, *SMALL),
            )  # fmt: skip
        samples: Tensor = done.result[0]["samples"]
        return samples

    with reference(staged.world.model, pairs) as (model, seen):
        theirs = sample(model, pooled(staged))
    assert seen.times == borders
    assert seen.stages == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    assert torch.equal(sample(staged.applied, staged.positive), theirs)


@pytest.mark.parametrize("stages", [1, 3, 5, 7, 10])
def test_every_timestep_of_every_sampling(staged: StagedWorld, stages: int) -> None:
    """All noise levels of the model, those between them, and models that count in other ways."""
    model = staged.world.model
    for how in ("eps", "v_prediction", "lcm"):
        (patched,) = nodes_model_advanced.ModelSamplingDiscrete().patch(model, how, False)
        sampling = patched.get_model_object("model_sampling")
        between = (sampling.sigmas[1:] * sampling.sigmas[:-1]).sqrt() * 1.001
        for sigma in torch.cat([sampling.sigmas, between]):
            time = int(sampling.timestep(sigma[None]))
            assert find_stage(read_share(sampling, sigma[None]), stages) == stages * time // 1000
    (patched,) = nodes_model_advanced.ModelSamplingContinuousEDM().patch(
        model, "edm_playground_v2.5", 120.0, 0.002
    )
    sampling = patched.get_model_object("model_sampling")
    for sigma in sampling.sigmas:
        _, stage = stage_of(sampling.sigmas.double().numpy(), float(sigma), stages)
        assert find_stage(read_share(sampling, sigma[None]), stages) == stage
    assert find_stage(read_share(sampling, torch.tensor([1e9])), stages) == stages - 1
    assert find_stage(read_share(sampling, torch.tensor([0.0])), stages) == 0


@pytest.mark.parametrize("cfg", [1.0, 5.0], ids=["cfg1", "cfg5"])
@pytest.mark.parametrize("batch", [1, 2], ids=["batch1", "batch2"])
@pytest.mark.parametrize(
    "sampler", by_day(comfy.samplers.SAMPLER_NAMES, {"euler", "dpmpp_2m_sde", "heun", "lcm"})
)
def test_every_sampler(
    staged: StagedWorld, pairs: Any, sampler: str, batch: int, cfg: float
) -> None:
    """Bit for bit: as the reference; and equal rows as an ordinary embedding."""
    how: dict[str, Any] = {"sampler": sampler, "cfg": cfg, "latent": empty(batch, *SMALL)}
    how["scheduler"] = SCHEDULERS.get(sampler, "normal")
    with reference(staged.world.model, pairs) as (model, _):
        theirs = staged.world.sample(model, **how, positive=pooled(staged))
    assert torch.equal(staged.sample(**how), theirs)
    equal, rows = make_equal(staged.clip)
    name = write_embedding(rows, staged.embeddings, "equal")
    ordinary = staged.plain_text(PROMPT.replace("V*", name))
    ours = encode(staged.clip, PROMPT, {"V*": equal})
    plain = staged.world.sample(staged.world.model, **how, positive=ordinary)
    assert torch.equal(staged.sample(**how, positive=ours), plain)


def test_without_the_node_it_is_the_mean(staged: StagedWorld) -> None:
    plain = staged.world.sample(staged.world.model, positive=pooled(staged))
    assert torch.equal(staged.sample(staged.world.model), plain)
    off = ApplyStagedIdentity.execute(staged.world.model, 0.0).result[0]
    assert off is staged.world.model
    assert difference(staged.sample(apply_staged(staged.world.model, 0.0)), plain) == 0
    half = staged.sample(apply_staged(staged.world.model, 0.5))
    assert difference(half, plain) > 1e-3
    assert difference(half, staged.sample()) > 1e-3


def test_prompts_without_staged_words_are_as_ever(staged: StagedWorld) -> None:
    world = staged.world
    assert torch.equal(world.sample(staged.applied), world.sample(world.model))


# --- Several people ------------------------------------------------------------------------------


def test_two_people_with_other_numbers_of_stages(staged: StagedWorld) -> None:
    """Each person's stages are of its own number; by stock nodes for each timestep."""
    first, second = make_words(staged.clip, 2, seed=5), make_words(staged.clip, 3, rows=2, seed=6)
    text = "V* and (V2*:1.3) on the beach"
    ours = encode(staged.clip, text, {"V*": first, "V2*": second})
    contexts = ours[0][1][KEY]
    assert len(contexts.starts) == 4
    sampling = staged.world.model.model.model_sampling
    for time in (0, 333, 334, 499, 500, 666, 667, 999):
        pair = contexts.at(read_share(sampling, sampling.sigmas[time][None]))
        for got, a, b in zip(
            pair, (first.keys, first.values), (second.keys, second.values), strict=True
        ):
            rows = [
                {key: x[len(x) * time // 1000] for key, x in own.items()} for own in (a, b)
            ]  # fmt: skip
            names = [
                write_embedding(own, staged.embeddings, f"p{time}{n}") for n, own in enumerate(rows)
            ]
            stock = staged.plain_text(f"{names[0]} and ({names[1]}:1.3) on the beach")
            assert torch.equal(got, stock[0][0])


# --- Together with other nodes -------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("order", ["before", "after"])
def test_with_infinite_id(staged: StagedWorld, setting: str, order: str) -> None:
    """At weight 0 the picture is that without it; with it, equal rows are an embedding."""
    world = staged.world

    def both(weight: float) -> Any:
        if order == "after":
            return apply_staged(world.patch(weight, setting), 1.0)
        return replace(world, model=staged.applied).patch(weight, setting)

    how: dict[str, Any] = {"latent": empty(2, *SMALL)}
    alone = staged.sample(**how)
    assert difference(staged.sample(both(0.0), **how), alone) < ROUNDING
    assert difference(staged.sample(both(1.0), **how), alone) > 1e-2
    equal, rows = make_equal(staged.clip)
    name = write_embedding(rows, staged.embeddings, "equal")
    ordinary = world.sample(
        world.patch(1.0, setting), positive=staged.plain_text(PROMPT.replace("V*", name)), **how
    )
    ours = encode(staged.clip, PROMPT, {"V*": equal})
    assert difference(staged.sample(both(1.0), positive=ours, **how), ordinary) < ROUNDING


@pytest.mark.parametrize(
    "savings", [Savings(every=2), Savings(deep=2), Savings(shared=True), Savings(until=0.5)]
)
def test_with_save_time(staged: StagedWorld, savings: Savings) -> None:
    """Time is saved, and equal rows are an embedding."""
    model = save_time(apply_staged(staged.world.patch(1.0), 1.0), savings)
    assert _list_keepers(model.model_options["transformer_options"]) == []
    equal, rows = make_equal(staged.clip)
    name = write_embedding(rows, staged.embeddings, "equal")
    how: dict[str, Any] = {"steps": 8, "latent": empty(2, *SMALL)}
    ordinary = staged.world.sample(
        save_time(staged.world.patch(1.0), savings),
        positive=staged.plain_text(PROMPT.replace("V*", name)),
        **how,
    )
    ours = staged.sample(model, positive=encode(staged.clip, PROMPT, {"V*": equal}), **how)
    assert difference(ours, ordinary) < ROUNDING
    assert difference(staged.sample(model, **how), ordinary) > 1e-2


def test_with_a_controlnet(worlds: Loader, staged: StagedWorld, tmp_path: Path) -> None:
    """The ControlNet reads the mean of all stages; the UNet those of the noise level."""
    world = worlds("SDXL's blocks")
    net = make_control_net(tmp_path)
    own = replace(staged, world=world)

    def get(stage: int) -> tuple[Tensor, Tensor]:
        key, value = encode_stage(own, own.words, stage, own.embeddings)
        return key, value

    def sample(model: Any, positive: Any) -> Tensor:
        controlled = control(replace(world, positive=positive), net)
        return controlled.sample(model, steps=3)

    ours = sample(own.applied, own.positive)
    with reference(world.model, get) as (model, _):
        assert torch.equal(ours, sample(model, pooled(own)))
    assert difference(ours, own.sample(steps=3)) > 1e-3


def test_other_patches_see_the_words_of_the_stage(staged: StagedWorld) -> None:
    """Those that were there before and those that come later, and what they give counts."""
    seen: list[tuple[Tensor, Tensor]] = []

    def patch(n: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Any:
        del options
        seen.append((k, v))
        return n, torch.zeros_like(k), torch.zeros_like(v)

    before, after = staged.world.model.clone(), staged.applied
    before.set_model_attn2_patch(patch)
    after.set_model_attn2_patch(patch)
    pictures = [staged.sample(model, steps=1) for model in (apply_staged(before, 1.0), after)]
    assert torch.equal(*pictures)
    assert all(not torch.equal(k, v) for k, v in seen)
    emptied = staged.world.model.clone()
    emptied.set_model_attn2_patch(patch)
    assert torch.equal(pictures[0], staged.world.sample(emptied, steps=1, positive=pooled(staged)))


def test_areas_and_combined_prompts(staged: StagedWorld) -> None:
    """A region with the person beside one without: as the reference, which knows their places."""
    plain = staged.world.middle
    latent = empty(1, 16, 16)

    def arrange(positive: Any) -> Any:
        (left,) = nodes.ConditioningSetArea().append(positive, 64, 128, 0, 0, 1.0)
        (right,) = nodes.ConditioningSetArea().append(plain, 64, 128, 64, 0, 1.0)
        return nodes.ConditioningCombine().combine(left, right)[0]

    equal, rows = make_equal(staged.clip)
    name = write_embedding(rows, staged.embeddings, "equal")
    ordinary = arrange(staged.plain_text(PROMPT.replace("V*", name)))
    ours = arrange(encode(staged.clip, PROMPT, {"V*": equal}))
    expected = staged.world.sample(staged.world.model, positive=ordinary, latent=latent)
    assert torch.equal(staged.sample(positive=ours, latent=latent), expected)
    drawn = staged.sample(positive=arrange(staged.positive), latent=latent)
    assert difference(drawn, expected) > 1e-2


def test_text_behind_it_and_zeros(staged: StagedWorld, pairs: Any) -> None:
    more = staged.world.middle
    (longer,) = nodes.ConditioningConcat().concat(staged.positive, more)

    def longer_pairs(stage: int) -> tuple[Tensor, Tensor]:
        key, value = (torch.cat([x, more[0][0]], dim=1) for x in pairs(stage))
        return key, value

    (plain,) = nodes.ConditioningConcat().concat(pooled(staged), more)
    how: dict[str, Any] = {"cfg": 1.0, "steps": 3}
    with reference(staged.world.model, longer_pairs) as (model, _):
        theirs = staged.world.sample(model, positive=plain, **how)
    assert torch.equal(staged.sample(positive=longer, **how), theirs)
    (zeros,) = nodes.ConditioningZeroOut().zero_out(staged.positive)
    (other,) = nodes.ConditioningZeroOut().zero_out(pooled(staged))
    expected = staged.world.sample(staged.world.model, positive=other)
    assert torch.equal(staged.sample(positive=zeros), expected)


def stock(name: str) -> tuple[Any, Callable[[Tensor, Tensor], Tensor]]:
    """A stock node on two conditionings, and the same of two contexts."""
    average, multiply = nodes.ConditioningAverage(), nodes.ConditioningMultiply().multiply
    return {
        "concat": (
            lambda a, b: nodes.ConditioningConcat().concat(a, b)[0],
            lambda a, b: torch.cat([a, b], dim=1),
        ),
        "average": (
            lambda a, b: average.addWeighted(a, b, 0.3)[0],
            lambda a, b: 0.3 * a + (1.0 - 0.3) * b,
        ),
        "multiply": (
            lambda a, b: multiply(average.addWeighted(a, b, 0.3)[0], 1.5)[0],
            lambda a, b: (0.3 * a + (1.0 - 0.3) * b) * 1.5,
        ),
    }[name]  # fmt: skip


@pytest.mark.parametrize("order", ["first", "second", "both"])
@pytest.mark.parametrize("name", ["concat", "average", "multiply"])
def test_stages_go_through_nodes_that_compute(
    staged: StagedWorld, pairs: Any, name: str, order: str
) -> None:
    """As each stage's own contexts would, whichever input they are on."""
    node, compute = stock(name)
    more = staged.world.middle
    other = encode(staged.clip, "a V* at night", {"V*": make_words(staged.clip, 3, seed=7)})
    sides = {
        "first": (staged.positive, more),
        "second": (more, staged.positive),
        "both": (staged.positive, other),
    }[order]

    def own(conditioning: Any, stage: int) -> Any:
        if conditioning is other:
            return other[0][1][KEY].pairs[stage // 5]
        return (more[0][0], more[0][0]) if conditioning is more else pairs(stage // 3)

    def mixed_pairs(stage: int) -> tuple[Tensor, Tensor]:  # of 15, which 5 and 3 divide
        key, value = (compute(a, b) for a, b in zip(*(own(x, stage) for x in sides), strict=True))
        return key, value

    mixed = node(*sides)
    plain = [[x.as_subclass(Tensor), {k: v for k, v in d.items() if k != KEY}] for x, d in mixed]
    how: dict[str, Any] = {"cfg": 1.0, "steps": 6}
    with reference(staged.world.model, mixed_pairs, stages=15) as (model, seen):
        theirs = staged.world.sample(model, positive=plain, **how)
    assert len({*seen.stages}) > 4
    assert torch.equal(staged.sample(positive=mixed, **how), theirs)
    # Without Apply Staged Identity the mean is read, as ever.
    ours, ordinary = (staged.world.sample(staged.world.model, positive=x) for x in (mixed, plain))
    assert torch.equal(ours, ordinary)


def rounded(conditioning: Any) -> Any:
    return [[x.half().float() + 0.1, more] for x, more in conditioning]


def changed_in_place(conditioning: Any) -> Any:
    for x, _ in conditioning:
        x.mul_(0.5)
    return conditioning


@pytest.mark.parametrize("change", [rounded, changed_in_place])
def test_other_changes_are_refused(staged: StagedWorld, change: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"Apply Staged Identity.*stages fit no more.*mean"):
        staged.sample(positive=change(staged.positive))


def test_copies_keep_the_stages(staged: StagedWorld) -> None:
    expected = staged.sample()
    assert torch.equal(staged.sample(positive=deepcopy(staged.positive)), expected)
    plain = [[x.as_subclass(Tensor), more] for x, more in staged.positive]
    assert torch.equal(staged.sample(positive=plain), expected)
    alone = [[x, {k: v for k, v in more.items() if k != KEY}] for x, more in staged.positive]
    assert torch.equal(staged.sample(positive=deepcopy(alone)), expected)
    assert type(staged.positive[0][0].to("cpu")) is Tensor, "the models get plain tensors"


@pytest.mark.parametrize("lost", ["both", "rows"])
def test_lost_words_are_refused(staged: StagedWorld, lost: str) -> None:
    """A node that calls the model with some conds only, or on rows of its own."""

    def run(apply_model: Any, given: dict[str, Any]) -> Tensor:
        kept = {name: x for name, x in given["c"].items() if not name.startswith(KEY)}
        if lost == "rows":
            kept |= {n: x[:1] for n, x in given["c"].items() if n.startswith(KEY)}
        out: Tensor = apply_model(given["input"], given["timestep"], **kept)
        return out

    model = staged.applied
    model.set_model_unet_function_wrapper(run)
    with pytest.raises(ValueError, match=r"Apply Staged Identity: another node.*Take that node"):
        staged.sample(model)


def test_the_model_is_not_changed_and_the_last_node_counts(staged: StagedWorld) -> None:
    world = staged.world
    twice = apply_staged(apply_staged(world.model, 0.3), 1.0)
    assert torch.equal(staged.sample(twice), staged.sample())
    kinds = (WrappersMP.CALC_COND_BATCH, WrappersMP.DIFFUSION_MODEL)
    assert not any(world.model.get_all_wrappers(kind) for kind in kinds)


@pytest.mark.parametrize("kind", ["DiT", "no context"])
def test_models_without_such_layers_are_refused(staged: StagedWorld, kind: str) -> None:
    model = staged.world.model.clone()
    blocks = ["x"] if kind == "DiT" else []
    network = torch.nn.Module()
    for stage in () if kind == "DiT" else ("input_blocks", "middle_block", "output_blocks"):
        setattr(network, stage, blocks)
    model.model = torch.nn.Module()
    model.model.diffusion_model = network
    with pytest.raises(ValueError, match=r"Apply Staged Identity.*Connect SD 1.5"):
        apply_staged(model, 1.0)


# --- Prompts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a photo of V", r"no 'V\*' to stand"),
        ("a photo of LOV*", r"no 'V\*' to stand"),
        ("V* and V3*", r"says 'V3\*', and no identity is chosen"),
    ],
)
def test_people_and_places_that_do_not_go_together(
    staged: StagedWorld, prompt: str, message: str
) -> None:
    with pytest.raises(PlaceError, match=message):
        encode(staged.clip, prompt, {"V*": staged.words})


def test_words_for_other_text_encoders_are_refused(staged: StagedWorld) -> None:
    words = staged.words
    narrow = replace(words, keys={key: x[..., :-1] for key, x in words.keys.items()})
    alone = replace(words, keys={"clip_l": words.keys["clip_l"]})
    for wrong in (narrow, alone):
        with pytest.raises(PlaceError, match=r"identity for 'V\*'.*needs clip_"):
            encode(staged.clip, PROMPT, {"V*": wrong})


def test_the_world_is_one(staged: StagedWorld, least: World) -> None:
    assert staged.world is least


def test_with_scheduled_hooks(staged: StagedWorld) -> None:
    """The text encoders have other weights later on: each of the host's prompts has its stages."""
    hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
    frames = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.5, 0.5)):
        frames.add(comfy.hooks.HookKeyframe(strength, start_percent=start))
    hooks.set_keyframes_on_hooks(frames)
    (clip,) = SetClipHooks().apply_hooks(staged.clip, True, True, hooks)
    equal, rows = make_equal(clip)
    name = write_embedding(rows, staged.embeddings, "equal")
    with torch.inference_mode():
        (ordinary,) = nodes.CLIPTextEncode().encode(clip, PROMPT.replace("V*", name))
        ours, drawn = (encode(clip, PROMPT, {"V*": one}) for one in (equal, staged.words))
    assert len(ours) == len(ordinary) == 2
    expected = staged.world.sample(staged.world.model, positive=ordinary)
    assert torch.equal(staged.sample(positive=ours), expected)
    assert difference(staged.sample(positive=drawn), expected) > 1e-2


@pytest.mark.parametrize("way", by_day(list(WAYS), {"node"}))
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_with_compiled_models(staged: StagedWorld, way: str, first: bool) -> None:
    """At each noise level the words of its stage, also where the compiled model ran before."""
    expected = staged.sample()
    torch.compiler.reset()
    compiled = WAYS[way](staged.world.model if first else staged.applied)
    model = apply_staged(compiled, 1.0) if first else compiled
    for _ in range(2):
        assert difference(staged.sample(model), expected) < ROUNDING
    torch.compiler.reset()
