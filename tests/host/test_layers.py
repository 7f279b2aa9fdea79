"""What happens at the layers, and to the models and patches around ours."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import nodes
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import DualCFGGuider
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_perpneg import PerpNegGuider
from comfy_extras.nodes_sag import SelfAttentionGuidance
from einops import reduce, repeat
from pack.infinite_id.attention.blocks import SDXL, Block
from pack.infinite_id.host import hooks as hooks_module
from pack.infinite_id.host.forward import Forward
from pack.infinite_id.host.patch import apply
from pack.infinite_id.host.people import Acting
from pack.tests.host.world import SETTINGS, World, difference, empty, guider, sample_custom, sigmas
from torch import Tensor

ROUNDING = 1e-4
STEPS = 4


@dataclass
class Call:
    """One call of a hook: its block, what it got and what it gave."""

    kind: str
    block: tuple[str, int, int]
    forward: Forward
    q: Tensor
    k: Tensor
    v: Tensor
    options: dict[str, Any]
    out: Tensor

    @property
    def plain(self) -> Tensor:
        """The stock attention of the same queries, keys and values."""
        return optimized_attention(
            self.q, self.k, self.v, self.options["n_heads"], transformer_options=self.options
        )


@dataclass
class Spy:
    """Every hook call, and every forward of the UNet: its rows, text rows and hooks."""

    calls: list[Call] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    contexts: list[Tensor] = field(default_factory=list)
    hooked: list[Forward] = field(default_factory=list)


@contextmanager
def spy_on(world: World, keep: bool = True) -> Iterator[Spy]:
    """Record while the context lasts; `keep` the calls' tensors, or only what they concern."""
    spy = Spy()

    def watch(kind: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def make_watched(forward: Forward, *args: Any) -> Any:
            replacement = make(forward, *args)

            def watched(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
                out = replacement(q, k, v, options)
                block = (*options["block"], options["block_index"])
                tensors = (q, k, v, options, out) if keep else (q[:0], q[:0], q[:0], {}, q[:0])
                spy.calls.append(Call(kind, block, forward, *tensors))
                return out

            return watched

        return make_watched

    def watch_hook(options: Any, forward: Forward) -> Any:
        spy.hooked.append(forward)
        return original_hook(options, forward)

    def watch_net(_net: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        spy.rows.append(args[0].shape[0])
        spy.contexts.append(kwargs["context"])

    original_hook = hooks_module._hook
    handle = world.unet.register_forward_pre_hook(watch_net, with_kwargs=True)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        for kind in ("attn1", "attn2"):
            name = f"make_{kind}"
            patch.setattr(hooks_module, name, watch(kind, getattr(hooks_module, name)))
        patch.setattr(hooks_module, "_hook", watch_hook)
        yield spy
    handle.remove()


# --- All layers, both streams, one forward ---------------------------------------------------


@pytest.mark.parametrize("cfg", [1.0, 5.0], ids=["cfg1", "cfg5"])
def test_70_of_70_layers_in_one_forward_a_step(deep: World, cfg: float) -> None:
    """Per forward every one of SDXL's 70 blocks calls both hooks once; both streams share it."""
    chunks = 1 if cfg == 1.0 else 2
    with spy_on(deep, keep=False) as spy:
        deep.sample(deep.patch(), steps=2, cfg=cfg)
    assert spy.rows == [2 * chunks] * 2
    assert [forward.layout.chunks for forward in spy.hooked] == [chunks] * 2
    for kind in ("attn1", "attn2"):
        called = Counter(call.block for call in spy.calls if call.kind == kind)
        assert len(called) == 70
        assert called == dict.fromkeys(map(tuple, SDXL), 2)


def test_a_single_stream_costs_no_second_one(tiny: World) -> None:
    """Without mixing and style there are no more rows than without us, and no attn1 hooks."""
    with spy_on(tiny, keep=False) as spy:
        tiny.sample(tiny.patch(setting="off"), latent=empty(2))
    assert spy.rows == [4] * STEPS
    assert {call.kind for call in spy.calls} == {"attn2"}


@pytest.mark.parametrize("setting", ["mixed", "mutual", "AdaIN-mean"])
def test_text_rows_are_left_alone(tiny: World, setting: str) -> None:
    """At every layer the text rows' attention is the stock one; the identity rows' is not."""
    with spy_on(tiny) as spy:
        tiny.sample(tiny.patch(setting=setting), steps=1, latent=empty(2))
        assert [call.kind for call in spy.calls] == ["attn1", "attn2"] * 11
        for number, call in enumerate(spy.calls):
            ours, plain = (call.forward.layout.split(x) for x in (call.out, call.plain))
            assert difference(ours[1], plain[1]) < 1e-6
            # Until the first image attention both streams are the same, and mixing them is too.
            assert difference(ours[0], plain[0]) > 1e-4 or number == 0


def test_the_text_stream_is_the_unpatched_picture(tiny: World) -> None:
    """Beside a person of full weight, the text stream draws what the model draws without us."""

    def record(model: ModelPatcher) -> list[Tensor]:
        seen: list[Tensor] = []
        watched = model.clone()
        watched.set_model_sampler_post_cfg_function(
            lambda args: seen.append(args["denoised"].clone()) or args["denoised"]
        )
        tiny.sample(watched, sampler="euler_ancestral", latent=empty(2))
        return seen

    plain, ours = record(tiny.model), record(tiny.patch(1.0))
    for alone, both in zip(plain, ours, strict=True):
        assert difference(both[2:], alone) < ROUNDING
        assert difference(both[:2], alone) > 1e-2


# --- Models: nothing is shared, nothing changes upstream ----------------------------------------


def snapshot(model: ModelPatcher) -> list[Any]:
    """All that a patch could have left on a model."""
    parts = (model.model_options, model.wrappers, model.callbacks, model.patches)
    return [copy.deepcopy(part) for part in (*parts, model.object_patches)]


def test_the_upstream_model_is_untouched(tiny: World) -> None:
    """Same options, wrappers and pictures, before and after a patched clone was made and used."""
    before, picture = snapshot(tiny.model), tiny.sample(tiny.model)
    tiny.sample(tiny.patch(1.0))
    assert snapshot(tiny.model) == before
    assert torch.equal(tiny.sample(tiny.model), picture)


def test_two_branches_of_one_model_are_independent(tiny: World) -> None:
    """A person on one branch is not on the other, whichever is made or sampled first."""
    alone = tiny.sample(tiny.patch(identity=tiny.other))
    one, two = tiny.patch(), tiny.patch(identity=tiny.other)
    first, second = tiny.sample(one), tiny.sample(two)
    assert torch.equal(second, alone)
    assert torch.equal(tiny.sample(one), first)
    assert difference(first, second) > 1e-2


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_sde"])
def test_the_same_graph_twice_gives_the_same_picture(tiny: World, sampler: str) -> None:
    patched = tiny.patch(setting="AdaIN-mean")
    first = tiny.sample(patched, sampler=sampler)
    assert torch.equal(tiny.sample(patched, sampler=sampler), first)
    assert torch.equal(tiny.sample(tiny.patch(setting="AdaIN-mean"), sampler=sampler), first)


# --- Several people --------------------------------------------------------------------------


def patch_two(world: World, weights: tuple[float, float]) -> ModelPatcher:
    """Two Apply nodes in a chain."""
    first = world.patch(weights[0])
    applied = first.model_options["transformer_options"]["infinite_id_applications"][0]
    return apply(first, replace(applied, identity=world.other, weight=weights[1]))


def test_two_people_add_up(tiny: World) -> None:
    """At every layer: text attention plus one image attention plus the other."""
    make = hooks_module.make_attn2
    with spy_on(tiny) as spy:
        tiny.sample(patch_two(tiny, (1.0, 0.7)), steps=1)
        calls = [call for call in spy.calls if call.kind == "attn2"]
        for call in calls:
            plain = call.plain
            parts = [
                make(replace(call.forward, acting=alone), Block(*call.block), None)(
                    call.q, call.k, call.v, call.options
                )
                - plain
                for alone in (Acting((one,), (1.0,)) for one in call.forward.acting.people)
            ]
            assert all(part.abs().max() > 1e-3 for part in parts)
            assert difference(call.out, plain + parts[0] + parts[1]) < 1e-5
    assert len(calls) > 0


def test_one_person_twice_at_half_weight_is_once_at_full(precise: World) -> None:
    half = precise.patch(0.5)
    applied = half.model_options["transformer_options"]["infinite_id_applications"][0]
    once, twice = precise.sample(precise.patch(1.0)), precise.sample(apply(half, applied))
    assert difference(twice, once) < 1e-6


# --- Other packs' replacements -----------------------------------------------------------------


class Foreign:
    """Somebody else's attention: the stock one, a little weaker; it notes its rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        self.rows.append(q.shape[0])
        return 0.8 * optimized_attention(q, k, v, options["n_heads"])


def patch_both(
    world: World, foreign: Foreign, where: tuple[Any, ...], kind: str, first: bool, weight: float
) -> ModelPatcher:
    """A model with our patch and a foreign one, set before or after ours."""

    def set_foreign(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        model.set_model_patch_replace(foreign, kind, *where)
        return model

    if not first:
        return set_foreign(world.patch(weight))
    return replace_model(world, set_foreign(world.model)).patch(weight)


def replace_model(world: World, model: ModelPatcher) -> World:
    return replace(world, model=model)


@pytest.mark.parametrize("kind", ["attn1", "attn2"])
@pytest.mark.parametrize("where", [("middle", 0, 1), ("middle", 0)], ids=["index", "block"])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_foreign_replacement_is_still_called(
    tiny: World, kind: str, where: tuple[Any, ...], first: bool
) -> None:
    """With all rows, in as many layers as without us, whatever the order; nothing is lost."""
    foreign = Foreign()
    alone = tiny.model.clone()
    alone.set_model_patch_replace(foreign, kind, *where)
    plain, calls = tiny.sample(alone), len(foreign.rows)
    assert calls == STEPS * (1 if len(where) == 3 else 2)  # two transformers in the middle block

    foreign.rows.clear()
    ours = tiny.sample(patch_both(tiny, foreign, where, kind, first, weight=0.0))
    assert foreign.rows == [4] * calls  # positive and negative, identity and text
    assert difference(ours, plain) < ROUNDING
    with_person = tiny.sample(patch_both(tiny, foreign, where, kind, first, weight=1.0))
    assert difference(with_person, plain) > 1e-2


def test_image_attention_is_added_around_a_foreign_attn2(tiny: World) -> None:
    foreign = Foreign()
    patched = patch_both(tiny, foreign, ("middle", 0, 1), "attn2", True, weight=1.0)
    with spy_on(tiny) as spy:
        tiny.sample(patched, steps=1)
        (call,) = (c for c in spy.calls if c.kind == "attn2" and c.block == ("middle", 0, 1))
        ours, bare = (call.forward.layout.split(x) for x in (call.out, 0.8 * call.plain))
    assert difference(ours[1], bare[1]) < 1e-6
    assert difference(ours[0], bare[0]) > 1e-3


# --- Other guiders and conditionings -------------------------------------------------------------


def perturb(model: ModelPatcher) -> ModelPatcher:
    return PerturbedAttentionGuidance.execute(model, 2.0).result[0]


def leave(model: ModelPatcher) -> ModelPatcher:
    return model


def guide_self(model: ModelPatcher) -> ModelPatcher:
    return SelfAttentionGuidance.execute(model, 0.5, 2.0).result[0]


@pytest.mark.parametrize("patch", [perturb, guide_self])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_guidance_by_attention(
    tiny: World, patch: Callable[[ModelPatcher], ModelPatcher], first: bool, setting: str
) -> None:
    """The stock PAG and SAG nodes: unchanged at weight 0, on either side of Apply."""
    how: dict[str, Any] = {"latent": empty(2, 8, 8), "steps": 3}
    plain = tiny.sample(patch(tiny.model), **how)
    assert difference(plain, tiny.sample(tiny.model, **how)) > 1e-3

    def combine(weight: float) -> ModelPatcher:
        if first:
            return replace_model(tiny, patch(tiny.model)).patch(weight, setting)
        return patch(tiny.patch(weight, setting))

    assert difference(tiny.sample(combine(0.0), **how), plain) < ROUNDING
    assert difference(tiny.sample(combine(1.0), **how), plain) > 1e-2


def guide_perp_neg(world: World, model: ModelPatcher) -> Any:
    return PerpNegGuider.execute(
        model, world.positive, world.negative, world.middle, 5.0, 1.0
    ).result[0]


def guide_dual(world: World, model: ModelPatcher) -> Any:
    prompts = (world.positive, world.middle, world.negative)
    return DualCFGGuider.execute(model, *prompts, 3.0, 5.0, "regular").result[0]


def guide_dual_nested(world: World, model: ModelPatcher) -> Any:
    prompts = (world.positive, world.middle, world.negative)
    return DualCFGGuider.execute(model, *prompts, 3.0, 5.0, "nested").result[0]


def guide_plain(world: World, model: ModelPatcher) -> Any:
    return guider(model, world.positive, world.negative)


GUIDERS = [guide_plain, guide_perp_neg, guide_dual, guide_dual_nested]


@pytest.mark.parametrize("make", GUIDERS)
@pytest.mark.parametrize("setting", ["off", "mixed"])
def test_guiders(tiny: World, make: Callable[..., Any], setting: str) -> None:
    """Guiders of two and three conds: unchanged at weight 0, and a person is seen at weight 1."""
    plain, _ = sample_custom(make(tiny, tiny.model))
    ours, _ = sample_custom(make(tiny, tiny.patch(0.0, setting)))
    person, _ = sample_custom(make(tiny, tiny.patch(1.0, setting)))
    assert difference(ours, plain) < ROUNDING
    assert difference(person, plain) > 1e-2


# Self-attention guidance keeps what it needs for two conds only: not with the guiders of three.
PATCHED_GUIDERS = [
    *((make, patch) for make in GUIDERS for patch in (leave, perturb)),
    (guide_plain, guide_self),
]


@pytest.mark.parametrize(("make", "patch"), PATCHED_GUIDERS)
def test_the_positive_rows_and_no_others_carry_the_person(
    tiny: World, make: Callable[..., Any], patch: Callable[..., Any]
) -> None:
    """The identity goes where the positive prompt is, whatever order and number of conds.

    The guidance by attention evaluates one cond once more: the negative, or DualCFG's middle one.
    """
    with spy_on(tiny, keep=False) as spy:
        sample_custom(make(tiny, patch(tiny.patch())))
    assert len(spy.hooked) == len(spy.contexts) >= STEPS
    positive = tiny.positive[0][0]
    for forward, context in zip(spy.hooked, spy.contexts, strict=True):
        for is_positive, rows in zip(
            [cond.positive for cond in forward.conds],
            context.chunk(forward.layout.chunks),
            strict=True,
        ):
            assert rows.shape[0] == 2
            assert is_positive == torch.equal(rows, positive.expand_as(rows))
    assert any(cond.positive for forward in spy.hooked for cond in forward.conds)


def make_area_prompt(world: World) -> list[list[Any]]:
    """The prompt everywhere, and another for the left half: 64 of 128 pixels."""
    area = nodes.ConditioningSetArea().append(world.middle, 64, 128, 0, 0, 1.0)[0]
    return nodes.ConditioningCombine().combine(world.positive, area)[0]


@pytest.mark.parametrize("setting", SETTINGS)
def test_areas_and_combined_prompts(tiny: World, setting: str) -> None:
    prompt = make_area_prompt(tiny)
    plain = tiny.sample(tiny.model, positive=prompt)
    assert difference(plain, tiny.sample(tiny.model)) > 1e-3
    assert difference(tiny.sample(tiny.patch(0.0, setting), positive=prompt), plain) < ROUNDING
    assert difference(tiny.sample(tiny.patch(1.0, setting), positive=prompt), plain) > 1e-2


def test_a_mask_follows_the_crop_of_an_area(tiny: World) -> None:
    """In every forward, whole or cropped, the person adds where its mask is and nowhere else."""
    noise = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(5))
    mask = repeat((noise > 0.5).float(), "1 h w -> (h y) (w x)", y=4, x=4)
    top, left, height, width = 4, 8, 8, 4
    part = nodes.ConditioningSetArea().append(
        tiny.middle, 8 * width, 8 * height, 8 * left, 8 * top, 1.0
    )[0]
    prompt = nodes.ConditioningCombine().combine(tiny.positive, part)[0]
    with spy_on(tiny) as spy:
        tiny.sample(tiny.patch(mask=mask[None]), positive=prompt, steps=1)
    crops = set()
    for call in (call for call in spy.calls if call.kind == "attn2"):
        rows, columns = call.options["activations_shape"][-2:]
        for number, area in enumerate(cond.area for cond in call.forward.conds):
            crop = mask if area is None else mask[top : top + height, left : left + width]
            y, x = crop.shape[0] // rows, crop.shape[1] // columns
            covered = reduce(crop, "(h y) (w x) -> h w", "max", y=y, x=x) > 0
            assert covered.any()
            assert not covered.all()
            ours, plain = (
                x.chunk(call.forward.layout.chunks)[number][:1] for x in (call.out, call.plain)
            )
            added = (ours - plain).reshape(rows, columns, -1).abs().amax(-1)
            assert torch.equal(added > 0, covered)
            crops.add(tuple(crop.shape))
    assert crops == {(16, 16), (height, width)}


# --- When it acts, and what stands in the way ----------------------------------------------------


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.3, 1.0), (0.0, 0.6), (0.3, 0.6)])
def test_start_and_end(tiny: World, start: float, end: float) -> None:
    """Outside the range the UNet runs without a hook; inside, every forward has them."""
    sampling = tiny.model.get_model_object("model_sampling")
    highest, lowest = sampling.percent_to_sigma(start), sampling.percent_to_sigma(end)
    inside = [lowest <= float(sigma) <= highest for sigma in sigmas(tiny.model, 8)[:-1]]
    with spy_on(tiny, keep=False) as spy:
        tiny.sample(tiny.patch(start=start, end=end), steps=8)
    assert len(spy.rows) == 8
    assert len(spy.hooked) == sum(inside) > 0
    assert len(spy.calls) == 2 * 11 * sum(inside)
    assert (start, end) == (0.0, 1.0) or not all(inside)


def test_an_empty_range_is_the_unpatched_model(tiny: World) -> None:
    ours = tiny.sample(tiny.patch(start=0.0, end=0.0))
    assert difference(ours, tiny.sample(tiny.model)) < ROUNDING


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_mask_of_zeros_is_weight_0(tiny: World, setting: str) -> None:
    """Where the image attention is nowhere, the streams coincide."""
    ours = tiny.sample(tiny.patch(setting=setting, mask=torch.zeros(1, 64, 64)))
    assert difference(ours, tiny.sample(tiny.model)) < ROUNDING


def test_one_mask_for_each_picture_of_a_batch(tiny: World) -> None:
    """A batch of masks: the picture whose mask is empty is the unpatched one."""
    mask = torch.stack([torch.zeros(16, 16), torch.ones(16, 16)])
    plain = tiny.sample(tiny.model, latent=empty(2))
    ours = tiny.sample(tiny.patch(mask=mask), latent=empty(2))
    assert difference(ours[:1], plain[:1]) < ROUNDING
    assert difference(ours[1:], tiny.sample(tiny.patch(), latent=empty(2))[1:]) < ROUNDING


def test_a_node_that_cuts_the_batch_is_told(tiny: World) -> None:
    """Rows torn apart, as by a tiled sampler, raise a message instead of drawing nonsense."""
    patched = tiny.patch()

    def cut(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        half = args["input"].shape[0] // 4
        c = {k: v[:half] if isinstance(v, Tensor) else v for k, v in args["c"].items()}
        return apply_model(args["input"][:half], args["timestep"][:half], **c)

    patched.set_model_unet_function_wrapper(cut)
    with pytest.raises(RuntimeError, match="cuts the batch"):
        tiny.sample(patched)


@pytest.mark.parametrize("setting", ["off", "mixed"])
def test_an_attention_override_keeps_its_tensors(tiny: World, setting: str) -> None:
    """A cache of the text's attention hands out the same tensor at every step."""

    def cache(copies: bool) -> Tensor:
        model, kept = tiny.patch(1.0, setting), {}
        text = tiny.positive[0][0].shape[1]

        def override(func: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kw: Any) -> Tensor:
            if k.shape[1] != text:
                return func(q, k, v, *args, **kw)
            options = kw["transformer_options"]
            block = (*options["block"], options["block_index"], len(q))
            if block not in kept:
                kept[block] = func(q, k, v, *args, **kw)
            return kept[block].clone() if copies else kept[block]

        model.model_options["transformer_options"]["optimized_attention_override"] = override
        return tiny.sample(model)

    assert torch.equal(cache(copies=False), cache(copies=True))
