"""The frozen diffusion model of ComfyUI, with separate words for keys and for values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_base import BaseModel
from torch import Tensor

from ..attention.blocks import Block, list_transformers
from ..host.attend import Replacement, make_attend
from ..words.files import Rows
from ..words.host_frozen import HostFrozen
from ..words.host_text import Prompts
from .objective import attention_error
from .stages import MIDDLE, Words, find_stage


@dataclass(frozen=True)
class Texts:
    """The prompts of a run.

    Attributes:
        person: with `{}` for the person.
        reference: the same with the class word.
    """

    person: str
    reference: str


class StagedFrozen(HostFrozen):
    """ComfyUI's model, as `learner.Frozen` asks for it."""

    def __init__(
        self, model: BaseModel, prompts: Prompts, texts: Texts, side: int, twice: bool
    ) -> None:
        super().__init__(model, prompts, side, twice)
        self._texts = texts
        with torch.no_grad():
            self._reference = self.cast(prompts.encode(texts.reference, None)[0])

    def predict_staged(
        self, noised: Tensor, times: Tensor, words: Words, stages: Sequence[int], compares: bool
    ) -> tuple[Tensor, Tensor]:
        """See `learner.Frozen`."""
        keys, values = (
            torch.cat([self._encode(rows) for rows in side])
            for side in zip(*(words.at(stage) for stage in stages), strict=True)
        )
        keys, values = self.cast(keys), self.cast(values)
        errors: dict[Block, Tensor] = {}  # written a second time if activations are computed twice
        options: dict[str, Any] = {"patches": {"attn2_patch": [_make_split(values)]}}
        if compares:
            options["patches_replace"] = {"attn2": self._make_hooks(errors)}
        output = self.run(noised, times, keys, self._pool(words, len(stages)), options)
        if not compares:
            return output, output.new_zeros(len(output))
        return output, torch.stack(list(errors.values())).mean(dim=0)

    def _encode(self, rows: Rows) -> Tensor:
        return self._prompts.encode(self._texts.person, rows)[0]

    @torch.no_grad()
    def _pool(self, words: Words, count: int) -> Tensor:
        """Return the pooled vector of the middle stage's words for keys, as in prompts."""
        rows, _ = words.at(find_stage(MIDDLE, words.stages))
        pooled = self._prompts.encode(self._texts.person, rows)[1]
        return pooled.expand(count, -1)

    def _make_hooks(self, errors: dict[Block, Tensor]) -> dict[Block, Replacement]:
        return {
            block: _make_comparing(block, layer.attn2.to_k, self._reference, errors)
            for block, layer in list_transformers(self.unet)
        }


def _make_split(values: Tensor) -> Any:
    def split(
        n: Tensor, context: Tensor, _: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        del options
        return n, context, values

    return split


def _make_comparing(
    block: Block, to_k: Any, reference: Tensor, errors: dict[Block, Tensor]
) -> Replacement:
    """Return an unchanged cross-attention that notes its difference from the reference's."""

    def attn2(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        with torch.no_grad():
            k_reference = to_k(reference)
        errors[block] = attention_error(q, k, k_reference, options["n_heads"])
        return make_attend(options)(q, k, v)

    return attn2
