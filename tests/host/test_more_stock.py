"""More stock nodes: hooks, inpainting, regions, guiders, hand-overs, previews, compilation.

Each way to make a picture is unchanged at weight 0, shows a person at weight 1, and differs from
the picture of the plainer way that it is named with. Inpaint models, few steps and context windows
are in `test_relatives` and `test_savings`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.sample
import comfy_extras.nodes_hooks as hooks
import folder_paths
import latent_preview
import nodes
import pytest
import torch
from comfy.cli_args import LatentPreviewMethod, args
from comfy.model_patcher import ModelPatcher
from comfy.taesd import taesd
from comfy_extras import nodes_custom_sampler as custom
from comfy_extras.nodes_perpneg import PerpNeg
from comfy_extras.nodes_torch_compile import TorchCompileModel
from pack.infinite_id.application import Application
from pack.infinite_id.host.patch import apply, save_time
from pack.infinite_id.identities import mixing
from pack.infinite_id.savings import Savings
from pack.tests.host.test_deep import STEPS, find_changes, watch_levels
from pack.tests.host.test_layers import spy_on
from pack.tests.host.test_relatives import recognised  # noqa: F401  # knows the refiner
from pack.tests.host.world import (
    SEED,
    Conditioning,
    Latent,
    World,
    difference,
    empty,
    guider,
    painted,
    sample_custom,
    sigmas,
)
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader

ROUNDING = 1e-4
WIDE = 1e-3
SETTINGS = ["off", "AdaIN-mean"]
SHORT: dict[str, Any] = {"steps": 3}
RANK = 4
FINER = {LatentPreviewMethod.Latent2RGB: 1, LatentPreviewMethod.TAESD: 8}  # than the latent


@pytest.fixture(scope="module")
def world(least: World) -> World:
    return least


def check(
    world: World,
    setting: str,
    way: Callable[[ModelPatcher], Tensor],
    plainer: Callable[[ModelPatcher], Tensor],
) -> None:
    plain = way(world.model)
    other = plainer(world.model)
    assert other.shape != plain.shape or difference(plain, other) > WIDE, "the nodes do nothing"
    assert difference(way(world.patch(0.0, setting)), plain) < ROUNDING
    assert difference(way(world.patch(1.0, setting)), plain) > WIDE


# --- Hooks: weights for one prompt, and for a part of the sampling -------------------------------


@dataclass(frozen=True)
class Lora:
    """A LoRA on UNet and text encoders, by the stock node's name for the file."""

    name: str
    clip: Any

    def hook(self, clip_strength: float = 0.0) -> Any:
        return hooks.CreateHookLora().create_hook(self.name, 1.0, clip_strength)[0]

    def schedule(self, hook: Any) -> Any:
        """In the middle of the sampling alone."""
        keyframe = hooks.CreateHookKeyframe().create_hook_keyframe
        (frames,) = keyframe(0.0, 0.0)
        for strength, start in ((1.0, 0.2), (0.0, 0.8)):
            (frames,) = keyframe(strength, start, prev_hook_kf=frames)
        return hooks.SetHookKeyframes().set_hook_keyframes(hook, frames)[0]


@pytest.fixture(scope="module")
def lora(world: World, tmp_path_factory: pytest.TempPathFactory) -> Lora:
    folder = tmp_path_factory.mktemp("loras")
    _, clip, _ = nodes.CheckpointLoaderSimple().load_checkpoint("miniature-least.safetensors")
    generator = torch.Generator().manual_seed(3)
    ends = ("to_q.weight", "to_v.weight", "q_proj.weight")
    layers = {f"diffusion_model.{k}": x for k, x in world.unet.state_dict().items()}
    encoders = clip.patcher.model.state_dict()
    layers |= {f"text_encoders.{k}": x for k, x in encoders.items() if "encoder.layers" in k}
    tensors = {}
    for name, weight in layers.items():
        if name.endswith(ends):
            layer = name.removesuffix(".weight")
            for part, size in (("up", (len(weight), RANK)), ("down", (RANK, weight.shape[1]))):
                tensors[f"{layer}.lora_{part}.weight"] = torch.randn(size, generator=generator) / 6
    save_file(tensors, folder / "hook.safetensors")
    folder_paths.add_model_folder_path("loras", str(folder))
    return Lora("hook.safetensors", clip)


def hang_on(prompt: Conditioning, hook: Any) -> Conditioning:
    return hooks.ConditioningSetProperties().set_properties(prompt, 1.0, "default", hooks=hook)[0]


def hook_positive(world: World, lora: Lora) -> World:
    return replace(world, positive=hang_on(world.positive, lora.hook()))


def hook_a_while(world: World, lora: Lora) -> World:
    return replace(world, positive=hang_on(world.positive, lora.schedule(lora.hook())))


def hook_clip(world: World, lora: Lora) -> World:
    """On the text encoders as well, and through them on the prompt that they encode."""
    (clip,) = hooks.SetClipHooks().apply_hooks(lora.clip, False, True, lora.hook(1.0))
    (positive,) = nodes.CLIPTextEncode().encode(clip, "a photo of a woman on the beach")
    return replace(world, positive=positive)


def hook_by_region(world: World, lora: Lora) -> World:
    """A prompt with the LoRA on the left, and the other prompt where no mask is."""
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    (left,) = hooks.ConditioningSetProperties().set_properties(
        world.positive, 1.0, "default", mask, lora.hook()
    )
    default = hooks.ConditioningSetDefaultAndCombine().set_default_and_combine
    return replace(world, positive=default(left, world.middle)[0])


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("hang", [hook_positive, hook_a_while, hook_clip, hook_by_region])
def test_hooks(
    world: World, lora: Lora, hang: Callable[[World, Lora], World], setting: str
) -> None:
    hooked = hang(world, lora)
    others = [world] if hang is hook_positive else [world, hook_positive(world, lora)]
    for other in others:
        check(
            world,
            setting,
            lambda model: hooked.sample(model, **SHORT),
            lambda model, other=other: other.sample(model, **SHORT),
        )


def test_what_is_kept_is_not_read_beyond_a_hooks_keyframe(world: World, lora: Lora) -> None:
    """Deep features and the text stream's are of the weights of their step."""
    hooked = hook_a_while(world, lora)
    turns = [step in (0, *find_changes(world, 0.2, 0.8)) for step in range(STEPS)]
    with watch_levels(world) as seen:
        hooked.sample(save_time(world.patch(), Savings(deep=8)), steps=STEPS)
    assert [is_full for _, is_full in seen] == [is_full for is_full in turns for _ in range(2)]
    with watch_levels(world) as seen:
        hooked.sample(save_time(world.patch(), Savings(every=8)), steps=STEPS)
    assert [rows for rows, _ in seen] == [1 + is_full for is_full in turns for _ in range(2)]


def test_what_is_kept_is_not_read_beyond_a_default_prompts_keyframe(
    world: World, lora: Lora
) -> None:
    """The hooks of a prompt that is only where no other is."""
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    (left,) = nodes.ConditioningSetMask().append(world.middle, mask, "default", 1.0)
    (positive,) = hooks.ConditioningSetDefaultAndCombine().set_default_and_combine(
        left, world.positive, hooks=lora.schedule(lora.hook())
    )
    turns = [step in (0, *find_changes(world, 0.2, 0.8)) for step in range(STEPS)]
    model = save_time(world.patch(), Savings(deep=8))
    with watch_levels(world) as seen:
        world.sample(model, positive=positive, steps=STEPS)
    assert [is_full for _, is_full in seen] == [is_full for is_full in turns for _ in range(2)]


@pytest.mark.parametrize("savings", [Savings(deep=3), Savings(until=0.5, deep=2)])
def test_hooks_with_deep_features(world: World, lora: Lora, savings: Savings) -> None:
    """Weight 0 is the plain model with the hooks that saves as much."""
    hooked = hook_a_while(world, lora)
    plain = hooked.sample(save_time(world.model, Savings(deep=savings.deep)), steps=STEPS)
    for setting in SETTINGS:
        ours = hooked.sample(save_time(world.patch(0.0, setting), savings), steps=STEPS)
        assert difference(ours, plain) < ROUNDING


# --- Latents -------------------------------------------------------------------------------------


def repaint(world: World, model: ModelPatcher) -> Tensor:
    return world.sample(model, latent=painted(), denoise=0.6, **SHORT)


def repaint_a_part(world: World, model: ModelPatcher) -> Tensor:
    """Two latents with a mask of their own each."""
    mask = torch.zeros(2, 128, 128)
    mask[0, :, :64] = mask[1, :64] = 1
    (latent,) = nodes.SetLatentNoiseMask().set_mask(painted(2), mask)
    return world.sample(model, latent=latent, **SHORT)


def repaint_both(world: World, model: ModelPatcher) -> Tensor:
    return world.sample(model, latent=painted(2), **SHORT)


def go_on_without_noise(world: World, model: ModelPatcher) -> Tensor:
    """AddNoise, then a sampling that adds none."""
    guide, levels = guider(model, world.positive, world.negative), sigmas(model)[1:]
    noise = custom.RandomNoise.execute(SEED).result[0]
    (latent,) = custom.AddNoise.execute(model, noise, levels, painted()).result
    sampler = custom.KSamplerSelect.execute("euler").result[0]
    nothing = custom.DisableNoise.execute().result[0]
    with torch.inference_mode():
        done = custom.SamplerCustomAdvanced.execute(nothing, guide, sampler, levels, latent)
    return done.result[0]["samples"]


def draw(world: World, model: ModelPatcher) -> Tensor:
    return world.sample(model, **SHORT)


WAYS = [
    (repaint, draw),
    (repaint_a_part, repaint_both),
    (go_on_without_noise, draw),
]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("way", "plainer"), WAYS)
def test_latents(
    world: World, way: Callable[..., Tensor], plainer: Callable[..., Tensor], setting: str
) -> None:
    check(world, setting, lambda m: way(world, m), lambda m: plainer(world, m))


@pytest.mark.parametrize("setting", SETTINGS)
def test_one_of_a_batch_by_its_number(world: World, setting: str) -> None:
    """The third picture of a batch, drawn alone: its own noise, and the same person."""
    model = world.patch(1.0, setting)
    batch = world.sample(model, latent=empty(4), **SHORT)
    (third,) = nodes.LatentFromBatch().frombatch(empty(4), 2, 1)
    alone = world.sample(model, latent=third, **SHORT)
    assert difference(alone, batch[2:3]) < ROUNDING
    assert difference(alone, batch[:1]) > WIDE


# --- Several values in one input -----------------------------------------------------------------


def stack_prompts(world: World, count: int) -> World:
    """Several texts in one conditioning, as nodes for schedules of prompts give them."""
    texts = [world.middle, world.positive, world.negative][:count]
    cond, pooled = (
        torch.cat(parts)
        for parts in zip(*((c, v["pooled_output"]) for ((c, v),) in texts), strict=True)
    )
    return replace(world, positive=[[cond, {"pooled_output": pooled}]])


def stack_masks(world: World, count: int) -> World:
    """A text with a mask of its own for each picture, over the prompt."""
    masks = torch.rand(count, 16, 16, generator=torch.Generator().manual_seed(9))
    (there,) = nodes.ConditioningSetMask().append(world.middle, masks, "default", 1.0)
    return replace(world, positive=nodes.ConditioningCombine().combine(world.positive, there)[0])


@pytest.mark.parametrize(("count", "latents"), [(2, 1), (3, 2), (2, 3), (2, 4)])
@pytest.mark.parametrize("stack", [stack_prompts, stack_masks])
def test_as_many_values_as_one_likes(
    world: World, stack: Callable[[World, int], World], count: int, latents: int
) -> None:
    """They go to the latents as without us, in both streams."""
    if stack is stack_masks and count < latents and latents % count:
        pytest.skip("the host fits no two masks to three latents")
    stacked, how = stack(world, count), {"latent": empty(latents), **SHORT}
    plain = stacked.sample(world.model, **how)
    assert difference(plain, world.sample(world.model, **how)) > WIDE
    assert difference(stacked.sample(world.patch(0.0), **how), plain) < ROUNDING


def test_a_sweep_has_each_latents_mask(world: World) -> None:
    """Two latents with a mask each: every person of the sweep is in both."""
    other = replace(world.other, unconditional=world.identity.unconditional)
    people = mixing.interpolate([world.identity, other], [0.0, 1.0])
    masks = torch.zeros(2, 16, 16)
    masks[0, :, :8] = masks[1, :, 8:] = 1
    how = {"latent": empty(2), **SHORT}
    sweep = world.sample(apply(world.model, Application(people, mask=masks)), **how)
    for row, identity in enumerate((world.identity, other)):
        alone = world.sample(world.patch(identity=identity, mask=masks), **how)
        assert difference(sweep[row::2], alone) < ROUNDING


@pytest.mark.parametrize(("count", "latents"), [(2, 1), (2, 3), (2, 4), (3, 2)])
def test_masks_that_are_not_one_for_each_latent(world: World, count: int, latents: int) -> None:
    """Nothing says whose they are: Latent From Batch may have taken some latents out."""
    model = world.patch(mask=torch.ones(count, 16, 16))
    with pytest.raises(ValueError, match=f"{count} masks for {latents} latents"):
        world.sample(model, latent=empty(latents), **SHORT)


# --- Guiders -------------------------------------------------------------------------------------


def guide_basic(world: World, model: ModelPatcher) -> Any:
    return custom.BasicGuider.execute(model, world.positive).result[0]


def guide_two_models(world: World, model: ModelPatcher) -> Any:
    if not hasattr(custom, "DualModelGuider"):
        pytest.skip("this host has no DualModelGuider")
    return custom.DualModelGuider.execute(
        model, world.positive, 5.0, world.model, world.negative
    ).result[0]


def guide_away_from_nothing(world: World, model: ModelPatcher) -> Any:
    patched = PerpNeg.execute(model, world.middle, 1.0).result[0]
    return guider(patched, world.positive, world.negative)


def override_guidance(world: World, model: ModelPatcher) -> Any:
    if not hasattr(custom, "CFGOverride"):
        pytest.skip("this host has no CFGOverride")
    late = custom.CFGOverride.execute(model, 1.0, 0.3, 1.0).result[0]
    return guider(late, world.positive, world.negative)


GUIDERS = [guide_basic, guide_two_models, guide_away_from_nothing, override_guidance]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("make", GUIDERS)
def test_guiders(world: World, make: Callable[[World, ModelPatcher], Any], setting: str) -> None:
    def plainer(model: ModelPatcher) -> Tensor:
        cfg = 4.0 if make is guide_two_models else 5.0
        return sample_custom(guider(model, world.positive, world.negative, cfg))[0]

    check(world, setting, lambda model: sample_custom(make(world, model))[0], plainer)


@pytest.mark.parametrize("make", GUIDERS)
def test_no_rows_but_the_positive_carry_the_person(
    world: World, make: Callable[[World, ModelPatcher], Any]
) -> None:
    """Also where a guider or a node evaluates conds that are not the sampler's own."""
    with spy_on(world, keep=False) as spy:
        sample_custom(make(world, world.patch()))
    assert len(spy.hooked) == len(spy.contexts) > 0
    positive = world.positive[0][0]
    for forward, context in zip(spy.hooked, spy.contexts, strict=True):
        for is_positive, rows in zip(
            [cond.positive for cond in forward.conds],
            context.chunk(forward.layout.chunks),
            strict=True,
        ):
            assert is_positive == torch.equal(rows, positive.expand_as(rows))


# --- From one model to the next ------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_refiner_takes_over(worlds: Loader, world: World, setting: str) -> None:
    """The base with the person for the first steps, and the refiner without for the last."""
    refiner = worlds("the SDXL refiner")
    node = nodes.KSamplerAdvanced()

    def sample(model: ModelPatcher, second: World) -> Tensor:
        first = (SEED, 4, 5.0, "euler", "normal", world.positive, world.negative)
        last = (SEED, 4, 5.0, "euler", "normal", second.positive, second.negative)
        with torch.inference_mode():
            (half,) = node.sample(model, "enable", *first, empty(), 0, 3, "enable")
            (done,) = node.sample(second.model, "disable", *last, half, 3, 4, "disable")
        return done["samples"]

    check(world, setting, lambda m: sample(m, refiner), lambda m: sample(m, world))


# --- Previews ------------------------------------------------------------------------------------


def watch_previews(world: World, model: ModelPatcher, latent: Latent) -> tuple[list[Tensor], Any]:
    """What the host's callback makes its previews of, and the last preview."""
    seen: list[Tensor] = []
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(_step: int, x0: Tensor, x: Tensor, _total: int) -> None:
        assert x.shape == x0.shape
        seen.append(x0)

    noise = comfy.sample.prepare_noise(latent["samples"], SEED)
    prompts = (world.positive, world.negative, latent["samples"])
    with torch.inference_mode():
        comfy.sample.sample(
            model, noise, 3, 5.0, "euler", "normal", *prompts, callback=callback, seed=SEED
        )
        _, picture, _ = previewer.decode_latent_to_preview_image("JPEG", seen[-1])
    return seen, picture


@pytest.fixture
def decoder(tmp_path: Path) -> None:
    """TAESD's decoder for SDXL where the host looks for it, with random weights."""
    folder_paths.add_model_folder_path("vae_approx", str(tmp_path), is_default=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(taesd.Decoder().state_dict(), tmp_path / "taesdxl_decoder.safetensors")


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("method", [LatentPreviewMethod.Latent2RGB, LatentPreviewMethod.TAESD])
@pytest.mark.parametrize("setting", SETTINGS)
def test_previews(
    world: World, monkeypatch: pytest.MonkeyPatch, setting: str, method: LatentPreviewMethod
) -> None:
    """They show the pictures that were asked for; at weight 0, just those of the plain model."""
    monkeypatch.setattr(args, "preview_method", method)
    latent = empty(2)
    plain, plain_picture = watch_previews(world, world.model, latent)
    nobody, picture = watch_previews(world, world.patch(0.0, setting), latent)
    person, _ = watch_previews(world, world.patch(1.0, setting), latent)
    assert picture.size == plain_picture.size
    assert picture.width == empty()["samples"].shape[-1] * FINER[method]
    for alone, ours, other in zip(plain, nobody, person, strict=True):
        assert difference(ours, alone) < ROUNDING
        assert difference(other, alone) > WIDE


# --- Compilation ---------------------------------------------------------------------------------


def compile_model(model: ModelPatcher) -> ModelPatcher:
    """By the stock node; traced as for its own backends, and then run without one."""
    torch.compiler.reset()
    return TorchCompileModel.execute(model, "eager").result[0]


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("changes", [{}, {"start": 0.3, "end": 0.8}], ids=["all", "part"])
def test_compiled(world: World, changes: dict[str, float], first: bool) -> None:
    """A compiled model draws the person, and in the steps asked for, as it does otherwise.

    Also where it has drawn without the person before, and so was compiled without our hooks.
    """
    model = world.patch(1.0, **changes)
    expected, plain = world.sample(model, **SHORT), world.sample(world.model, **SHORT)
    compiled = compile_model(world.model if first else model)
    if first:
        assert difference(world.sample(compiled, **SHORT), plain) < ROUNDING
        compiled = replace(world, model=compiled).patch(1.0, **changes)
    for _ in range(2):
        assert difference(world.sample(compiled, **SHORT), expected) < ROUNDING
    assert difference(expected, plain) > WIDE
