"""What both nodes that learn words do not take: each is said at once, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.hooks
import comfy.model_base
import comfy.sd
import comfy.supported_models
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.taesd.taesd import TAESD
from comfy_extras.nodes_hooks import SetClipHooks
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from pack.infinite_id.errors import UserError
from pack.infinite_id.words.host_text import ClipError
from pack.tests.host.learners import EMBEDDING, STAGED, Method, make_learn, use_models, use_page
from pack.tests.host.stable_worlds import (
    CPU,
    SMALL_UNET,
    WIDTHS,
    Small,
    drawn_photo,
    make_small,
    make_video_clip,
)
from pack.tests.host.test_refusals import WITHOUT_UNET

METHODS = {"embedding": EMBEDDING, "staged": STAGED}
Learn = Callable[..., Any]


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Small:
    use_page(monkeypatch, tmp_path)
    return use_models(tmp_path)


@pytest.fixture
def learn(method: Method, small: Small, vae: Any) -> Learn:
    return make_learn(method, small, vae)


def assert_nothing(tmp_path: Path) -> None:
    """No words, no state of a run, no part of a file."""
    found = [path for path in tmp_path.rglob("*") if path.is_file() and "temp" not in path.parts]
    assert found == []


@pytest.mark.parametrize("name", WITHOUT_UNET)
def test_models_of_another_kind(learn: Learn, name: str, tmp_path: Path) -> None:
    """SD3 and Flux, with their own text encoders or with SDXL's."""
    configure, make, shape = WITHOUT_UNET[name]
    model = ModelPatcher(make(configure(shape), device=CPU), CPU, CPU)
    for own in ({}, {"clip": make_video_clip(tmp_path)}):
        with pytest.raises(
            ClipError, match=f"SD 1.5, SD 2.1 and SDXL.*this model is a {name} that samples by"
        ):
            learn(model=model, **own)
    assert_nothing(tmp_path)


def test_text_encoders_of_another_kind(learn: Learn, tmp_path: Path) -> None:
    """CLIP-L beside another one, as SD3, Flux and video models have it."""
    with pytest.raises(
        ClipError, match=r"CLIP text encoders of SD 1.5, SD 2.1 and SDXL alone.*Kandinsky5"
    ):
        learn(clip=make_video_clip(tmp_path))
    other = make_small("SD 2.1", tmp_path / "other")
    with pytest.raises(ClipError, match=r"reads text 96 wide, and this CLIP gives clip_h 32"):
        learn(clip=other.clip)
    assert_nothing(tmp_path)


@pytest.mark.parametrize("channels", [8, 9])
def test_models_for_inpainting_and_editing(learn: Learn, tmp_path: Path, channels: int) -> None:
    config = {
        **SMALL_UNET,
        "in_channels": channels,
        "context_dim": WIDTHS["clip_l"] + WIDTHS["clip_g"],
        "num_classes": "sequential",
        "adm_in_channels": WIDTHS["clip_g"] + 6 * 256,
    }
    network = comfy.model_base.SDXL(comfy.supported_models.SDXL(config), device=CPU)
    with pytest.raises(
        ClipError, match=f"{channels} channels .for inpainting or editing.*that it was made of"
    ):
        learn(model=ModelPatcher(network, CPU, CPU))
    assert_nothing(tmp_path)


def test_hooks_and_samplings_that_cannot_be_followed(learn: Learn, small: Small) -> None:
    for kind in ("lcm", "x0", "img_to_img", "img_to_img_flow"):
        (model,) = ModelSamplingDiscrete().patch(small.model, kind, False)
        with pytest.raises(ClipError, match=r"predict noise or velocity.* samples by"):
            learn(model=model)
    hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
    hooked = SetClipHooks().apply_hooks(small.clip, False, True, hooks)[0]
    with pytest.raises(ClipError, match="before Set CLIP Hooks"):
        learn(clip=hooked)


def test_models_that_are_none_or_another_kinds(learn: Learn, tmp_path: Path) -> None:
    """Such as of a checkpoint without them, and the autoencoder of SD3 or Flux."""
    with pytest.raises(ValueError, match=r"no CLIP at this node's 'clip'.*Load CLIP"):
        learn(clip=None)
    with pytest.raises(UserError, match=r"no VAE at this node's 'vae'.*Load VAE"):
        learn(vae=None)
    net = TAESD(latent_channels=16)
    with pytest.raises(UserError, match=r"shape \(16, 16, 16\) .* takes \(4, height, width\)"):
        learn(vae=comfy.sd.VAE(sd=net.state_dict()))
    assert_nothing(tmp_path)


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kept", ["the words", "the state"])
def test_the_disk_is_full(
    learn: Learn, method: Method, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: str
) -> None:
    """No part of a file is left; once there is room, the run goes on."""
    file = {"the words": "tensor_files", "the state": "files"}[kept]
    with monkeypatch.context() as patch:
        patch.setattr(f"pack.infinite_id.{file}.save_file", full)
        with pytest.raises((OSError, UserError), match=r"No space left on device.*Make room"):
            learn(steps=1)
    words = tmp_path / method.folder
    assert not list(words.rglob("*.*"))
    assert not list(tmp_path.rglob("*.part"))
    learn(steps=1)
    assert (words / "people" / "anna.safetensors").is_file()


def test_photos_that_are_none(learn: Learn, tmp_path: Path) -> None:
    nothing = drawn_photo()[:0]
    with pytest.raises(ValueError, match="an empty batch"):
        learn(images=nothing)
    with pytest.raises(ValueError, match=r"not numbers|NaN"):
        learn(images=torch.full((1, 64, 64, 3), torch.nan))
    assert_nothing(tmp_path)
