"""What learning an embedding takes at SDXL's true size, counted on tensors without storage."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.sd
import pytest
import torch
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from pack.infinite_id.count import PeakMemory
from pack.infinite_id.stable_identity.celebs import CelebSpace
from pack.infinite_id.stable_identity.data import Batch
from pack.infinite_id.stable_identity.learner import WordLearner
from pack.infinite_id.stable_identity.mapper import Landing, new_mapper
from pack.infinite_id.training.host_count import UNET, make_model
from pack.infinite_id.words.host_frozen import HostFrozen
from pack.infinite_id.words.host_text import Prompts, make_differentiable
from torch._subclasses.fake_tensor import FakeTensorMode

GIGABYTE = 1e9
RESERVED = 1.5
"""GB of a card that others have: the system, the CUDA context, what the allocator loses."""


def make_clip() -> comfy.sd.CLIP:
    """The host's object, without what loads models."""
    clip = comfy.sd.CLIP(no_init=True)
    clip.cond_stage_model = SDXLClipModel(dtype=torch.float16).requires_grad_(False)
    clip.tokenizer, clip.layer_idx, clip.tokenizer_options = SDXLTokenizer(), None, {}
    clip.patcher = SimpleNamespace(load_device=torch.device("cpu"))  # type: ignore[assignment]
    return clip


def count(side: int, twice: bool) -> tuple[float, float]:
    """Weights, and the most that a forward and its gradient make, in GB."""
    with FakeTensorMode():
        model = make_model(UNET, torch.bfloat16, torch.device("cpu"))
        clip = make_clip()
        text = clip.cond_stage_model
        make_differentiable(clip, twice)
        frozen = HostFrozen(model, Prompts(clip), side, twice)
        spaces = {
            key: CelebSpace(torch.zeros(2, width), torch.ones(2, width))
            for key, width in (("clip_l", 768), ("clip_g", 1280))
        }
        mapper = new_mapper(512, spaces, Landing.JOINT, 0)
        learner = WordLearner(mapper, frozen)
        latents, mask = (
            torch.zeros(1, 4, side // 8, side // 8),
            torch.ones(1, 1, side // 8, side // 8),
        )
        batch = Batch(
            torch.zeros(1, 512), latents, latents.clone(), torch.zeros(1, dtype=torch.long),
            mask, mask, ("a photo of {}",), ("",),
        )  # fmt: skip
        with PeakMemory() as memory:
            learner(batch).mean().backward()
        frozen_weights = [*model.diffusion_model.parameters(), *text.parameters()]
        weights = sum(x.nbytes for x in frozen_weights)
        weights += 5 * sum(x.nbytes for x in mapper.parameters())  # gradient, average, two moments
        return weights / GIGABYTE, memory.peak / GIGABYTE


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("side", "twice", "card"),
    [(512, True, 12), (512, False, 16), (1024, True, 12), (1024, False, 24)],
)
def test_what_it_takes(side: int, twice: bool, card: int) -> None:
    weights, peak = count(side, twice)
    print(f"{side} px, computed {'twice' if twice else 'once'}: {weights:.1f} + {peak:.1f} GB")
    assert weights + peak + RESERVED < card
