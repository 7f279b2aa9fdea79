"""What learning staged words takes, for `plan`."""

from __future__ import annotations

import torch
from comfy.model_base import BaseModel
from comfy.sd import CLIP

from ..words.host_count import plan
from ..words.host_text import Prompts, list_encoders, read_table
from .data import Batch
from .host_frozen import StagedFrozen, Texts
from .host_learn import NOUN, PERSON, PROMPT
from .learner import StagedLearner
from .network import new_network
from .objective import LAMBDA

_STAGES = 5


def make_step(model: BaseModel, clip: CLIP, side: int, twice: bool) -> tuple[StagedLearner, Batch]:
    """Make a learner, and a batch of one sample of zeros; see `words.host_count.Make`."""
    texts = Texts(PROMPT.replace(PERSON, "{}"), PROMPT.replace(PERSON, NOUN))
    frozen = StagedFrozen(model, Prompts(clip), texts, side, twice)
    rows = {
        key: torch.zeros(read_table(encoder).shape[1])
        for key, encoder in list_encoders(clip).items()
    }
    learner = StagedLearner(new_network(rows, _STAGES, True, 0), frozen, LAMBDA)
    latents, mask = torch.zeros(1, 4, side // 8, side // 8), torch.ones(1, 1, side // 8, side // 8)
    time = torch.zeros(1, dtype=torch.long)
    batch = Batch(latents, latents.clone(), time, (0,), mask, torch.zeros_like(mask), ("",))
    return learner, batch


def tell_plan() -> str:
    """What learning takes, in a table."""
    return plan(make_step)
