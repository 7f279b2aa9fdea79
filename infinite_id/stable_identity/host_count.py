"""What learning an embedding takes, for `plan`."""

from __future__ import annotations

import torch
from comfy.model_base import BaseModel
from comfy.sd import CLIP

from ..words.host_count import plan
from ..words.host_frozen import HostFrozen
from ..words.host_text import Prompts, list_encoders, read_table
from .celebs import WORDS, CelebSpace
from .data import Batch
from .learner import WordLearner
from .mapper import Landing, new_mapper
from .templates import TEMPLATES

_FACE_WIDTH = 512
"""Of InsightFace's vectors."""


def make_step(model: BaseModel, clip: CLIP, side: int, twice: bool) -> tuple[WordLearner, Batch]:
    """Make a learner, and a batch of one sample of zeros; see `words.host_count.Make`."""
    frozen = HostFrozen(model, Prompts(clip), side, twice)
    widths = {key: read_table(encoder).shape[1] for key, encoder in list_encoders(clip).items()}
    spaces = {
        key: CelebSpace(torch.zeros(WORDS, width), torch.ones(WORDS, width))
        for key, width in widths.items()
    }
    learner = WordLearner(new_mapper(_FACE_WIDTH, spaces, Landing.JOINT, 0), frozen)
    latents, mask = torch.zeros(1, 4, side // 8, side // 8), torch.ones(1, 1, side // 8, side // 8)
    time = torch.zeros(1, dtype=torch.long)
    vector = torch.zeros(1, _FACE_WIDTH)
    noise = latents.clone()
    return learner, Batch(vector, latents, noise, time, mask, mask, (TEMPLATES[0],), ("",))


def tell_plan() -> str:
    """What learning takes, in a table."""
    return plan(make_step)
