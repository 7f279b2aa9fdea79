"""An exception at any seam leaves nothing of ours behind, and the next picture is the same."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.sample
import pytest
import torch
from comfy import model_management
from comfy.controlnet import ControlBase
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.adapters.adapter import Adapter
from pack.infinite_id.application import Curve
from pack.infinite_id.attention.blocks import Block
from pack.infinite_id.host.agreement import Agreement
from pack.infinite_id.host.deep import DeepFeatures, Kept
from pack.infinite_id.host.forward import Forward
from pack.infinite_id.host.patch import save_time
from pack.infinite_id.host.people import Acting, Person
from pack.infinite_id.host.run import Evaluation, Run
from pack.infinite_id.host.text_stream import Memory, TextStream
from pack.infinite_id.noise import SharedNoise
from pack.infinite_id.savings import Savings
from pack.tests.host.world import SEED, Conditioning, World, by_day, empty
from torch import Tensor

OURS = (
    Run,
    Evaluation,
    Person,
    Acting,
    Forward,
    TextStream,
    Memory,
    Agreement,
    DeepFeatures,
    Kept,
    SharedNoise,
)
MIDDLE = ("middle", 0, 0)

# What a broken node raises, what the host's allocator does, and what a user's click on 'Interrupt'
# becomes: the host raises it wherever it reports progress.
ERRORS = (
    RuntimeError,
    model_management.OOM_EXCEPTION,
    model_management.InterruptProcessingException,
)


@dataclass
class Bomb:
    """Passes its argument on, and raises at one of its calls."""

    error: type[BaseException]
    at: int
    calls: int = 0

    def __call__(self, value: Any = None) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise self.error("on purpose")
        return value


@dataclass
class Prompt:
    """A prompt that is about to be sampled: for each seam something is hung up in it."""

    world: World
    model: ModelPatcher
    positive: Conditioning
    patch: pytest.MonkeyPatch
    callback: Callable[..., None] | None = None

    def sample(self) -> Tensor:
        """As KSampler does, which has no input for the callback."""
        latent = empty(2, 8, 8)["samples"]
        with torch.inference_mode():
            return comfy.sample.sample(
                self.model,
                comfy.sample.prepare_noise(latent, SEED),
                5,
                5.0,
                "euler_ancestral",
                "normal",
                self.positive,
                self.world.negative,
                latent,
                callback=self.callback,
                seed=SEED,
            )


Hang = Callable[[Prompt, Bomb], None]


def prepare(world: World, patch: pytest.MonkeyPatch) -> Prompt:
    """With all that keeps something for a run: a mask, a curve, styled mixing, recalled features.

    The identity is new, and so is nobody's, so that both have to be projected.
    """
    mask = torch.zeros(1, 32, 32)
    mask[..., :16] = 1
    identity = replace(world.identity, unconditional=world.identity.unconditional.clone())
    how = {"identity": identity, "mask": mask, "curve": Curve.FADE_OUT}
    model = world.patch(1.0, "AdaIN-mean", **how)
    return Prompt(
        world,
        save_time(model, Savings(every=2, deep=2, change=0.1, agree=0.9)),
        world.positive,
        patch,
    )


# --- The seams -----------------------------------------------------------------------------------


def attention_patch(kind: str) -> Hang:
    def hang(prompt: Prompt, bomb: Bomb) -> None:
        prompt.model.set_model_patch(lambda q, k, v, _: bomb((q, k, v)), f"{kind}_patch")

    return hang


def output_patch(kind: str) -> Hang:
    def hang(prompt: Prompt, bomb: Bomb) -> None:
        prompt.model.set_model_patch(lambda out, _: bomb(out), f"{kind}_output_patch")

    return hang


def replacement(kind: str) -> Hang:
    def hang(prompt: Prompt, bomb: Bomb) -> None:
        prompt.model.set_model_patch_replace(lambda q, _k, _v, _: bomb(q), kind, *MIDDLE)

    return hang


def unet_wrapper(prompt: Prompt, bomb: Bomb) -> None:
    def wrap(apply_model: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        return bomb(apply_model(given["input"], given["timestep"], **given["c"]))

    prompt.model.set_model_unet_function_wrapper(wrap)


def guidance(prompt: Prompt, bomb: Bomb) -> None:
    prompt.model.set_model_sampler_cfg_function(lambda given: bomb(given["cond"]))


def after_guidance(prompt: Prompt, bomb: Bomb) -> None:
    prompt.model.set_model_sampler_post_cfg_function(lambda given: bomb(given["denoised"]))


def callback(prompt: Prompt, bomb: Bomb) -> None:
    prompt.callback = lambda *_: bomb()


def control(prompt: Prompt, bomb: Bomb) -> None:
    class Control(ControlBase):
        def get_control(self, *_: Any) -> None:
            return bomb()

    prompt.positive = [[c, {**values, "control": Control()}] for c, values in prompt.positive]


def forward(prompt: Prompt, bomb: Bomb) -> None:
    unet = prompt.world.unet
    run = unet.forward
    prompt.patch.setattr(unet, "forward", lambda *args, **kwargs: bomb(run(*args, **kwargs)))


def projection(prompt: Prompt, bomb: Bomb) -> None:
    project = Adapter.project
    prompt.patch.setattr(Adapter, "project", lambda *args: bomb(project(*args)))


def refresh(prompt: Prompt, bomb: Bomb) -> None:
    """Half of the text stream's features are noted, half of them are not."""
    keep = Memory.keep

    def keep_some(memory: Memory, block: Block, *features: Any) -> None:
        bomb()
        keep(memory, block, *features)

    prompt.patch.setattr(Memory, "keep", keep_some)


SEAMS: dict[str, tuple[Hang, int]] = {
    "attn1 patch": (attention_patch("attn1"), 3),
    "attn2 patch": (attention_patch("attn2"), 3),
    "attn1 output patch": (output_patch("attn1"), 6),
    "attn2 output patch": (output_patch("attn2"), 6),
    "attn1 replacement": (replacement("attn1"), 2),
    "attn2 replacement": (replacement("attn2"), 2),
    "wrapper of the UNet": (unet_wrapper, 2),
    "ControlNet": (control, 2),
    "guidance": (guidance, 2),
    "after guidance": (after_guidance, 1),
    "callback": (callback, 2),
    "first forward": (forward, 1),
    "second forward": (forward, 2),
    "last forward": (forward, 3),
    "projection": (projection, 1),
    "unconditional projection": (projection, 2),
    "refresh of the text stream": (refresh, 7),
}


# --- What is left --------------------------------------------------------------------------------


def describe(x: Any) -> Any:
    """Containers by their contents, everything else by what it is."""
    if isinstance(x, dict):
        return {key: describe(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [describe(value) for value in x]
    return id(x)


def describe_model(model: ModelPatcher) -> list[Any]:
    """All that could be left on a patcher, on the model below it and on the model's modules."""
    patcher = (model.model_options, model.wrappers, model.callbacks, model.attachments)
    patches = (model.patches, model.object_patches, model.object_patches_backup, model.backup)
    hooks = [
        (vars(module).keys(), len(module._forward_hooks), len(module._forward_pre_hooks))
        for module in model.model.modules()
    ]
    return [describe(part) for part in (*patcher, *patches)] + [
        (sorted(keys), *counts) for keys, *counts in hooks
    ]


def count_ours() -> Counter[type]:
    gc.collect()
    return Counter(type(x) for x in gc.get_objects() if type(x) in OURS)


def count_stored(prompt: Prompt) -> list[int]:
    """What is kept from one prompt to the next on purpose: K', V' of the identity, and models."""
    (application,) = prompt.model.model_options["transformer_options"]["infinite_id_applications"]
    identity = application.identity
    stored = [identity.projections, identity.unconditional_projections]
    return [*(len(x._stored) for x in stored), count_loaded()]


def count_loaded() -> int:
    """The host's list has entries of models that are gone, until it loads the next one."""
    gc.collect()
    return sum(one.model is not None for one in model_management.current_loaded_models)


@pytest.mark.parametrize("error", by_day(ERRORS, ERRORS[2:]))
@pytest.mark.parametrize("seam", SEAMS)
def test_nothing_is_left(
    least: World, monkeypatch: pytest.MonkeyPatch, seam: str, error: type[BaseException]
) -> None:
    hang, at = SEAMS[seam]
    expected, ours = prepare(least, monkeypatch).sample(), count_ours()
    stored = [1, 1, count_loaded()]
    prompt = prepare(least, monkeypatch)  # with nothing projected yet
    broken, bomb = replace(prompt, model=prompt.model.clone()), Bomb(error, at)
    before = [describe_model(m) for m in (prompt.model, least.model)]
    with monkeypatch.context() as patch:
        broken.patch = patch
        hang(broken, bomb)
        with pytest.raises(error, match="on purpose"):
            broken.sample()
    assert bomb.calls == at
    assert [describe_model(m) for m in (prompt.model, least.model)] == before
    assert torch.equal(prompt.sample(), expected)
    assert count_stored(prompt) == stored
    del broken, bomb
    assert count_ours() == ours


def test_what_is_ours_is_counted(least: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of what is left sees it while it is there."""
    prompt, seen = prepare(least, monkeypatch), []
    prompt.callback = lambda *_: seen.append(count_ours())
    none = count_ours()
    prompt.sample()
    assert all((counted - none)[Run] == 1 for counted in seen)
    assert seen[0][Memory] == none[Memory] + 1
    assert count_ours() == none
