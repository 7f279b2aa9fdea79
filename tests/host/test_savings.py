"""What is left out of the text stream is what the user asked for, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_hypertile import HyperTile
from pack.infinite_id.application import Application
from pack.infinite_id.attention.mixed import Mixing
from pack.infinite_id.host.forward import Forward
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.identities import mixing
from pack.infinite_id.savings import Savings
from pack.tests.host.world import SETTINGS, World, by_day, difference, empty, sigmas
from torch import Tensor

ROUNDING = 1e-4
STEPS = 6


@contextmanager
def watch_inputs(world: World) -> Iterator[list[Tensor]]:
    """What the UNet is given in each forward, `(rows, 4, h, w)`."""
    seen: list[Tensor] = []
    hook = world.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    try:
        yield seen
    finally:
        hook.remove()


def count_rows(world: World, model: ModelPatcher, cfg: float = 5.0) -> list[int]:
    with watch_inputs(world) as seen:
        world.sample(model, steps=STEPS, cfg=cfg)
    return [len(rows) for rows in seen]


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_savings_is_no_change(tiny: World, setting: str) -> None:
    model = tiny.patch(setting=setting)
    assert torch.equal(tiny.sample(save_time(model, Savings())), tiny.sample(model))


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_the_order_of_the_nodes_does_not_matter(tiny: World, before: bool) -> None:
    savings, application = Savings(every=2), Application(tiny.identity)
    if before:
        model = apply(save_time(tiny.model, savings), application)
    else:
        model = save_time(apply(tiny.model, application), savings)
    assert count_rows(tiny, model) == [4, 2] * 3


def test_kept_features_are_cut_as_hypertile_cuts_now(tiny: World) -> None:
    """It draws another number of tiles at each layer and step."""
    tiled: Any
    (tiled,) = HyperTile.execute(tiny.patch(), 32, 3, 2, False)
    latent = empty(2, 32, 32)

    def draw(every: int) -> Tensor:
        torch.manual_seed(0)  # it draws from the global generator
        return tiny.sample(save_time(tiled, Savings(every=every)), steps=STEPS, latent=latent)

    assert difference(draw(2), draw(1)) < 0.1 * float(draw(1).abs().max())


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_rows_of_every_so_manyth_step(tiny: World, every: int, cfg: float) -> None:
    chunks = 2 if cfg > 1 else 1
    expected = [chunks * (2 if step % every == 0 else 1) for step in range(STEPS)]
    assert count_rows(tiny, save_time(tiny.patch(), Savings(every=every)), cfg) == expected


@pytest.mark.parametrize("setting", ["mixed", "mutual", "AdaIN-mean"])
@pytest.mark.parametrize("batch", [1, 2])
def test_in_between_the_last_features_are_read(
    precise: World, setting: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps: the same as both streams in full, but for which features the second step reads."""
    model = precise.patch(setting=setting)
    found = precise.sample(save_time(model, Savings(every=2)), steps=2, latent=empty(batch))

    first: dict[object, tuple[Tensor, Tensor]] = {}

    def read_first(_: Forward, block: object, k: Tensor, v: Tensor, __: Tensor) -> object:
        return first.setdefault(block, (k.clone(), v.clone()))

    monkeypatch.setattr(Forward, "read_text", read_first)
    expected = precise.sample(model, steps=2, latent=empty(batch))
    assert difference(found, expected) < 1e-9
    monkeypatch.undo()
    assert difference(precise.sample(model, steps=2, latent=empty(batch)), expected) > 1e-6


def test_the_text_goes_on_in_its_last_direction(tiny: World) -> None:
    """Euler's steps by hand: after two levels the text is where one long step would take it."""
    levels = sigmas(tiny.model, STEPS).double()
    with watch_inputs(tiny) as seen:
        tiny.sample(tiny.patch(), steps=STEPS, cfg=1.0)
    scale = (levels**2 + 1).sqrt()
    start, second = (seen[i][1:].double() * scale[i] for i in (0, 1))
    slope = (second - start) / (levels[1] - levels[0])
    expected = start + (levels[2] - levels[0]) * slope
    with watch_inputs(tiny) as seen:
        tiny.sample(save_time(tiny.patch(), Savings(every=2)), steps=STEPS, cfg=1.0)
    assert difference(seen[2][1:].double() * scale[2], expected) < ROUNDING


def test_nothing_is_mixed_after_the_end(tiny: World) -> None:
    sampling = tiny.model.get_model_object("model_sampling")
    levels = sigmas(tiny.model, STEPS)[:-1]
    mixed = [float(sigma) >= sampling.percent_to_sigma(0.5) for sigma in levels]
    assert any(mixed)
    assert not all(mixed)
    model = save_time(tiny.patch(), Savings(until=0.5))
    assert count_rows(tiny, model) == [4 if m else 2 for m in mixed]
    never = tiny.sample(save_time(tiny.patch(), Savings(until=0.0)))
    assert difference(never, tiny.sample(tiny.patch(setting="off"))) < ROUNDING


def test_without_guidance_the_text_is_drawn_unguided(tiny: World) -> None:
    """Its latents are those of the plain model at guidance 1, and it has no negative rows."""
    with watch_inputs(tiny) as seen:
        tiny.sample(tiny.model, cfg=1.0, steps=STEPS)
    expected = [rows.clone() for rows in seen]
    with watch_inputs(tiny) as seen:
        tiny.sample(save_time(tiny.patch(), Savings(guided=False)), steps=STEPS)
    assert [len(rows) for rows in seen] == [2, 1] * STEPS
    for found, plain in zip(seen[::2], expected, strict=True):
        assert difference(found[1:], plain) < ROUNDING


def test_with_a_person_who_comes_late(tiny: World) -> None:
    """Before it acts nothing is mixed, so that there is nothing to be recalled yet."""
    model = save_time(tiny.patch(start=0.3), Savings(every=4))
    rows = count_rows(tiny, model)
    assert rows[0] == 4
    assert set(rows) == {4, 2}


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_2s_ancestral", "dpmpp_sde", "uni_pc"])
def test_samplers_of_more_than_one_evaluation(tiny: World, sampler: str) -> None:
    model = save_time(tiny.patch(), Savings(every=2))
    picture = tiny.sample(model, sampler=sampler, steps=STEPS)
    full = tiny.sample(tiny.patch(), sampler=sampler, steps=STEPS)
    assert torch.isfinite(picture).all()
    assert 0 < difference(picture, full) < 0.5


def test_a_sweep_at_half_the_text(tiny: World) -> None:
    people = [tiny.identity, tiny.other]
    sweep = apply(tiny.model, Application(mixing.interpolate(people, [0.0, 0.5, 1.0])))
    row = tiny.sample(save_time(sweep, Savings(every=2)), steps=STEPS)
    single = tiny.sample(save_time(tiny.patch(), Savings(every=2)), steps=STEPS)
    assert difference(row[:1], single) < ROUNDING


def test_all_at_once_and_the_graph_twice(tiny: World) -> None:
    model = save_time(tiny.patch(), Savings(every=3, until=0.7, guided=False))
    first = tiny.sample(model, steps=STEPS, sampler="dpmpp_sde")
    assert torch.equal(first, tiny.sample(model, steps=STEPS, sampler="dpmpp_sde"))


# --- Shared latents ------------------------------------------------------------------------------


def cut_into_windows(model: ModelPatcher) -> ModelPatcher:
    """Windows of four pictures of a batch, the stock node's way."""
    windows = pytest.importorskip("comfy_extras.nodes_context_windows", reason="a newer host's")
    node = windows.ContextWindowsManualNode
    return node.execute(model, 4, 2, "standard_static", 1, False, "pyramid", 0, False).result[0]


@pytest.mark.parametrize("setting", by_day(list(SETTINGS), ["off", "AdaIN-mean"]))
def test_context_windows(tiny: World, setting: str) -> None:
    """Weight 0 is the unpatched model in windows, and one window is shared latents without any."""
    plain = tiny.sample(cut_into_windows(tiny.model), latent=empty(6))
    nobody = tiny.sample(cut_into_windows(tiny.patch(0.0, setting)), latent=empty(6))
    assert difference(nobody, plain) < ROUNDING
    person = tiny.sample(cut_into_windows(tiny.patch(setting=setting)), latent=empty(6))
    assert person.shape == plain.shape
    assert difference(person, plain) > 10 * ROUNDING


@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_shared_latents_are_the_identity_streams(tiny: World, cfg: float) -> None:
    """Every forward has text rows, and they are what the identity rows are."""
    model = save_time(tiny.patch(), Savings(shared=True))
    with watch_inputs(tiny) as seen:
        tiny.sample(model, cfg=cfg, steps=STEPS, latent=empty(2))
    chunks = 2 if cfg > 1 else 1
    assert len(seen) == STEPS
    for rows in seen:
        identity, text = rows.view(chunks, 2, 2, *rows.shape[1:]).unbind(1)
        assert torch.equal(identity, text)


@pytest.mark.parametrize("setting", SETTINGS)
def test_shared_latents_at_weight_0(tiny: World, setting: str) -> None:
    model = save_time(tiny.patch(0.0, setting), Savings(shared=True))
    assert difference(tiny.sample(model), tiny.sample(tiny.model)) < ROUNDING


def test_a_node_that_cuts_the_batch_works_with_shared_latents(tiny: World) -> None:
    """Each half of the batch by itself is what both together are."""
    model = save_time(tiny.patch(), Savings(shared=True))
    expected = tiny.sample(model, latent=empty(2), cfg=1.0)
    halved = model.clone()

    def halve(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        parts = []
        for row in range(len(args["input"])):
            c = {k: v[row : row + 1] if isinstance(v, Tensor) else v for k, v in args["c"].items()}
            one = slice(row, row + 1)
            parts.append(apply_model(args["input"][one], args["timestep"][one], **c))
        return torch.cat(parts)

    halved.set_model_unet_function_wrapper(halve)
    assert difference(tiny.sample(halved, latent=empty(2), cfg=1.0), expected) < ROUNDING


def test_a_sweep_cannot_share_its_latents(tiny: World) -> None:
    sweep = mixing.interpolate([tiny.identity, tiny.other], [0.0, 1.0])
    model = save_time(apply(tiny.model, Application(sweep)), Savings(shared=True))
    with pytest.raises(ValueError, match="a sweep cannot be drawn in context windows"):
        tiny.sample(model)


def test_a_sweep_cannot_be_cut_into_windows_of_its_batch(tiny: World) -> None:
    """Not even without mixing: a window would hold some people of one latent, some of the next."""
    sweep = mixing.interpolate([tiny.identity, tiny.other], [0.0, 1.0])
    model = cut_into_windows(apply(tiny.model, Application(sweep, mixing=Mixing.OFF)))
    with pytest.raises(ValueError, match="a sweep cannot be drawn in context windows"):
        tiny.sample(model, latent=empty(6))


def test_masks_and_shares_in_pieces_of_different_sizes(tiny: World) -> None:
    """A batch of three cut into two and one: a mask and a weighted stack fit each piece."""
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    other = replace(tiny.other, unconditional=tiny.identity.unconditional)
    mix = mixing.stack([tiny.identity, other], [0.3, 0.7])
    model = save_time(apply(tiny.model, Application(mix, mask=mask)), Savings(shared=True))
    expected = tiny.sample(model, latent=empty(3), cfg=1.0)
    cut = model.clone()

    def cut_in_two(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        parts = []
        for piece in (slice(0, 2), slice(2, 3)):
            c = {k: v[piece] if isinstance(v, Tensor) else v for k, v in args["c"].items()}
            parts.append(apply_model(args["input"][piece], args["timestep"][piece], **c))
        return torch.cat(parts)

    cut.set_model_unet_function_wrapper(cut_in_two)
    assert difference(tiny.sample(cut, latent=empty(3), cfg=1.0), expected) < ROUNDING
