"""Where the positive and the negative prompt are alike, the text stream runs once for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_base
import nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_freelunch import FreeU_V2
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_perpneg import PerpNeg
from comfy_extras.nodes_sag import SelfAttentionGuidance
from pack.infinite_id.application import Application
from pack.infinite_id.host import conds
from pack.infinite_id.host.conds import Comparison
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.identities import mixing
from pack.infinite_id.savings import Savings
from pack.tests.host.test_control import control, control_positive, make_control_net
from pack.tests.host.test_control import world as controllable  # noqa: F401  # a fixture
from pack.tests.host.test_relatives import make_editing, make_inpainting, recognised  # noqa: F401  # knows the editing model
from pack.tests.host.test_savings import cut_into_windows, watch_inputs
from pack.tests.host.world import Conditioning, World, by_day, difference, empty
from torch import Tensor

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader

ROUNDING, EXACT = 1e-4, 1e-9
STEPS = 4


def copy(prompt: Conditioning) -> Conditioning:
    """The same prompt, encoded another time."""
    return [
        [
            text.clone(),
            {name: x.clone() if isinstance(x, Tensor) else x for name, x in more.items()},
        ]
        for text, more in prompt
    ]


def make_alike(world: World) -> World:
    return replace(world, negative=copy(world.positive))


@dataclass
class Drawn:
    """A picture, and the rows of each forward that drew it."""

    picture: Tensor
    rows: list[int] = field(default_factory=list)


def draw(world: World, model: ModelPatcher, **changes: Any) -> Drawn:
    with watch_inputs(world) as seen:
        picture = world.sample(model, **{"steps": STEPS, **changes})
    return Drawn(picture, [len(rows) for rows in seen])


def draw_both(world: World, model: ModelPatcher, **changes: Any) -> tuple[Drawn, Drawn]:
    """With equal text rows once, and with those of each prompt."""
    once = draw(world, model, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Comparison, "is_alike", lambda *_: False)
        return once, draw(world, model, **changes)


# --- The same picture with fewer rows ------------------------------------------------------------


def person(world: World, **changes: Any) -> ModelPatcher:
    return world.patch(**changes)


def save(world: World, savings: Savings) -> ModelPatcher:
    return save_time(world.patch(), savings)


def sweep(world: World) -> ModelPatcher:
    people = mixing.interpolate([world.identity, world.other], [0.0, 0.5, 1.0])
    return apply(world.model, Application(people))


def two_people(world: World) -> ModelPatcher:
    left = torch.zeros(1, 16, 16)
    left[..., :8] = 1
    first = apply(world.model, Application(world.identity, mask=left))
    return apply(first, Application(world.other, mask=1 - left))


def weighted_stack(world: World) -> ModelPatcher:
    other = replace(world.other, unconditional=world.identity.unconditional)
    return person(world, identity=mixing.stack([world.identity, other], [0.3, 0.7]))


Way = Callable[[World], ModelPatcher]
FEWER = [3] * STEPS
WAYS: dict[str, tuple[Way, list[int]]] = {
    "mixed": (partial(person, setting="mixed"), FEWER),
    "mutual": (partial(person, setting="mutual"), FEWER),
    "AdaIN-mean": (partial(person, setting="AdaIN-mean"), FEWER),
    "in cross-attention": (
        partial(person, setting="AdaIN-mean", style_in_cross_attention=True),
        FEWER,
    ),
    "off": (partial(person, setting="off"), [2] * STEPS),
    "who comes late": (partial(person, start=0.5), FEWER),
    "a sweep": (sweep, [7] * STEPS),
    "two people": (two_people, FEWER),
    "a weighted stack": (weighted_stack, FEWER),
    "every 2nd": (partial(save, savings=Savings(every=2)), [3, 2] * 2),
    "first half": (partial(save, savings=Savings(until=0.5)), [3, 3, 2, 2]),
    "not on negative rows": (partial(save, savings=Savings(guided=False)), [2, 1] * STEPS),
    "shared latents": (partial(save, savings=Savings(shared=True)), FEWER),
}


@pytest.mark.parametrize("batch", by_day([1, 2], [2]))
@pytest.mark.parametrize("way", WAYS)
def test_the_same_picture_with_fewer_rows(precise: World, way: str, batch: int) -> None:
    world = make_alike(precise)
    patch, rows = WAYS[way]
    once, each = draw_both(world, patch(world), latent=empty(batch))
    assert once.rows == [batch * count for count in rows]
    assert sum(once.rows) < sum(each.rows) or way in ("off", "not on negative rows")
    assert difference(once.picture, each.picture) < EXACT
    plain = world.sample(world.model, steps=STEPS, latent=empty(len(each.picture)))
    assert difference(once.picture, plain) > ROUNDING


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral", "dpmpp_2m_sde", "uni_pc", "lcm"])
def test_with_other_samplers(precise: World, sampler: str) -> None:
    world = make_alike(precise)
    once, each = draw_both(world, world.patch(), sampler=sampler)
    assert set(once.rows) == {3}
    assert difference(once.picture, each.picture) < EXACT


@pytest.mark.parametrize("way", ["mixed", "AdaIN-mean", "every 2nd", "shared latents"])
def test_weight_0_is_the_unpatched_model(tiny: World, way: str) -> None:
    world = make_alike(tiny)
    nobody = replace(world, identity=replace(world.identity))
    setting = way if way in ("mixed", "AdaIN-mean") else "mixed"
    savings = {"every 2nd": Savings(every=2), "shared latents": Savings(shared=True)}.get(way)
    model = nobody.patch(0.0, setting)
    drawn = draw(world, save_time(model, savings) if savings else model)
    assert max(drawn.rows) == 3
    if way != "every 2nd":  # its text rows are predicted in between, and mixed
        assert difference(drawn.picture, world.sample(world.model, steps=STEPS)) < ROUNDING


def test_in_context_windows(tiny: World) -> None:
    world = make_alike(tiny)
    model = cut_into_windows(world.patch())
    once, each = draw_both(world, model, latent=empty(6))
    assert sum(once.rows) * 4 == sum(each.rows) * 3
    assert difference(once.picture, each.picture) < ROUNDING


@pytest.mark.parametrize("savings", [Savings(), Savings(every=2)], ids=["all steps", "every 2nd"])
def test_where_the_host_runs_one_prompt_after_the_other(
    precise: World, monkeypatch: pytest.MonkeyPatch, savings: Savings
) -> None:
    """Little memory is free: each forward has the text rows of its own prompt."""
    world = make_alike(precise)
    model = save_time(world.patch(), savings)
    once = draw(world, model)
    monkeypatch.setattr(comfy.model_base.SDXL, "memory_required", lambda *_, **__: 1e30)
    apart = draw(world, model)
    assert apart.rows == ([2, 2, 1, 1] * 2 if savings.every == 2 else [2] * 8)
    assert difference(apart.picture, once.picture) < EXACT


@pytest.mark.parametrize("make", [make_inpainting, make_editing])
def test_models_that_see_a_picture(worlds: Loader, make: Callable[..., Any]) -> None:
    """Its channels are rows' own as well."""
    scene = make(worlds)
    world = replace(scene.world, negative=copy(scene.world.positive))
    once, each = draw_both(world, world.patch(), latent=scene.latent)
    assert once.rows == [3] * STEPS
    assert difference(once.picture, each.picture) < ROUNDING


@pytest.mark.parametrize("node", [control, control_positive])
def test_with_a_controlnet(
    controllable: World,  # noqa: F811
    tmp_path: Path,
    node: Callable[..., World],
) -> None:
    """One net on both prompts: the host runs it on all rows, and its features are for fewer."""
    world = node(make_alike(controllable), make_control_net(tmp_path))
    once, each = draw_both(world, world.patch())
    assert once.rows == FEWER
    assert difference(once.picture, each.picture) < ROUNDING
    assert (
        difference(once.picture, make_alike(controllable).sample(world.patch(), steps=STEPS))
        > ROUNDING
    )


# --- Where each prompt keeps its own rows --------------------------------------------------------


def change_text(prompt: Conditioning) -> Conditioning:
    prompt[0][0][0, -1, -1] += 1e-3
    return prompt


def change_pooled(prompt: Conditioning) -> Conditioning:
    prompt[0][1]["pooled_output"][0, 0] += 1e-3
    return prompt


def lengthen(prompt: Conditioning) -> Conditioning:
    prompt[0][0] = torch.cat([prompt[0][0]] * 2, dim=1)
    return prompt


def change_size(prompt: Conditioning) -> Conditioning:
    prompt[0][1]["width"] = 512
    return prompt


def put_elsewhere(prompt: Conditioning) -> Conditioning:
    return nodes.ConditioningSetArea().append(prompt, 64, 128, 64, 0, 1.0)[0]


def put_in_a_mask(prompt: Conditioning) -> Conditioning:
    return nodes.ConditioningSetMask().append(prompt, torch.ones(1, 16, 16), "default", 0.5)[0]


def combine(prompt: Conditioning) -> Conditioning:
    return nodes.ConditioningCombine().combine(prompt, change_text(copy(prompt)))[0]


@pytest.mark.parametrize(
    "change",
    [change_text, change_pooled, lengthen, change_size, put_elsewhere, put_in_a_mask, combine],
)
def test_prompts_that_differ(tiny: World, change: Callable[[Conditioning], Conditioning]) -> None:
    world = make_alike(tiny)
    model = world.patch()
    assert set(draw(world, model).rows) == {3}
    other = replace(world, negative=change(copy(world.negative)))
    once, each = draw_both(other, model)
    assert once.rows == each.rows
    assert torch.equal(once.picture, each.picture)


def test_a_controlnet_on_one_prompt(controllable: World, tmp_path: Path) -> None:  # noqa: F811
    world = make_alike(controllable)
    controlled = control(world, make_control_net(tmp_path))
    world = replace(world, positive=controlled.positive)
    once, each = draw_both(world, world.patch())
    assert once.rows == each.rows
    assert torch.equal(once.picture, each.picture)


def test_a_third_prompt_beside_them(tiny: World) -> None:
    """PerpNeg's, which the host evaluates alone."""
    world = make_alike(tiny)
    model = PerpNeg.execute(world.patch(), world.middle, 1.0).result[0]
    once, each = draw_both(world, model)
    assert once.rows == [3, 2] * STEPS
    assert each.rows == [4, 2] * STEPS
    assert difference(once.picture, each.picture) < ROUNDING


def free_u(model: ModelPatcher) -> ModelPatcher:
    return FreeU_V2.execute(model, 1.3, 1.4, 0.9, 0.2).result[0]


def hypertile(model: ModelPatcher) -> ModelPatcher:
    return HyperTile.execute(model, 256, 1, 1, False)[0]


def sag(model: ModelPatcher) -> ModelPatcher:
    return SelfAttentionGuidance.execute(model, 0.5, 2.0).result[0]


def patch_attention(model: ModelPatcher) -> ModelPatcher:
    patched = model.clone()
    patched.set_model_attn2_patch(lambda q, k, v, _: (q, k, v))
    return patched


def wrap(kind: str, model: ModelPatcher) -> ModelPatcher:
    wrapped = model.clone()
    wrapped.add_wrapper_with_key(
        kind, "another", lambda executor, *args, **kw: executor(*args, **kw)
    )
    return wrapped


def call_through(model: ModelPatcher) -> ModelPatcher:
    """What might give each prompt other latents."""
    wrapped = model.clone()
    wrapped.set_model_unet_function_wrapper(
        lambda apply_model, args: apply_model(args["input"], args["timestep"], **args["c"])
    )
    return wrapped


OTHERS: dict[str, Callable[[ModelPatcher], ModelPatcher]] = {
    "FreeU": free_u,
    "HyperTile": hypertile,
    "self-attention guidance": sag,
    "a patch of attention": patch_attention,
    "a function around the model": call_through,
    "a wrapper of the model": partial(wrap, WrappersMP.APPLY_MODEL),
    "a wrapper of the UNet": partial(wrap, WrappersMP.DIFFUSION_MODEL),
}


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("name", OTHERS)
def test_beside_other_nodes_patches(tiny: World, name: str, first: bool) -> None:
    """They see as many rows of each prompt as ever."""
    world = make_alike(tiny)
    if first:
        model = replace(world, model=OTHERS[name](world.model)).patch()
    else:
        model = OTHERS[name](world.patch())
    torch.manual_seed(0)  # HyperTile draws from the global generator
    once = draw(world, model)
    assert once.rows[0] == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Comparison, "is_alike", lambda *_: False)
        torch.manual_seed(0)
        each = draw(world, model)
    assert once.rows == each.rows
    assert torch.equal(once.picture, each.picture)


# --- What the comparison costs -------------------------------------------------------------------


def test_two_tensors_are_compared_once_in_a_run(
    tiny: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: Counter[tuple[int, int]] = Counter()
    equal = torch.equal

    def count(a: Tensor, b: Tensor) -> bool:
        compared[id(a), id(b)] += 1
        return equal(a, b)

    monkeypatch.setattr(conds.torch, "equal", count)
    world = make_alike(tiny)
    world.sample(world.patch(), steps=6)
    assert compared
    assert set(compared.values()) == {1}


def test_one_stream_compares_nothing(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Comparison, "is_alike", lambda *_: pytest.fail("compared"))
    world = make_alike(tiny)
    world.sample(world.patch(setting="off"), steps=1)
