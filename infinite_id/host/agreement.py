"""Leaves the negative prompt out once it makes no difference (Adaptive Guidance, arXiv 2312.12487).

Guidance goes away from the prediction for the negative prompt. Late in a sampling both predictions
point the same way. From then on the positive prompt's is taken for both, in both streams.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch.nn.functional as F
from torch import Tensor

from .conds import Conds


class Agreement:
    """Decides at each noise level whether the negative prompt is left out.

    Args:
        threshold: the cosine of the two predicted noises above which they agree.

    Attributes:
        evaluations: how many there were of a positive and a negative prompt.
        left_out: in how many of them the negative prompt was left out.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._sigma = float("inf")
        self._acting: Hashable = None
        self._has_agreed = self._is_over = False
        self.evaluations = self.left_out = 0

    def enter(self, sigma: float, is_full: bool, acting: Hashable = None) -> None:
        """Note the noise level of an evaluation.

        If the sampler climbs, or others act, guidance begins again: what has agreed were other
        predictions. A step that runs the outermost level alone goes on as the last step in full,
        whose features it reads.

        Args:
            acting: the people, prompts, controls and hooks that act.
        """
        if sigma > self._sigma or acting != self._acting:
            self._has_agreed = self._is_over = False
        elif sigma < self._sigma and is_full:
            self._is_over = self._has_agreed
        self._sigma, self._acting = sigma, acting

    def leaves_out(self, groups: Sequence[Conds | None], positive: frozenset[int]) -> bool:
        """Whether an evaluation of these groups of conds runs without the negative one."""
        is_pair = self._is_pair(groups, positive)
        self.evaluations += is_pair
        self.left_out += is_pair and self._is_over
        return is_pair and self._is_over

    def see(
        self,
        groups: Sequence[Conds | None],
        positive: frozenset[int],
        x: Tensor,
        denoised: Sequence[Tensor],
    ) -> None:
        """Compare the predictions of all pictures; wait for the device.

        Args:
            x: the identity stream's latents, `(identity, c, h, w)`.
            denoised: the prediction for each group, with more rows behind those.
        """
        if self._is_pair(groups, positive) and not self._has_agreed:
            a, b = ((x - one[: len(x)]).flatten(1).float() for one in denoised)
            self._has_agreed = bool((F.cosine_similarity(a, b) > self._threshold).all())

    def describe(self) -> str | None:
        """Say how much was left out; None if no evaluation had a negative prompt."""
        if not self.evaluations:
            return None
        return f"no negative prompt in {self.left_out} of {self.evaluations} evaluations"

    def _is_pair(self, groups: Sequence[Conds | None], positive: frozenset[int]) -> bool:
        return len(groups) == 2 and None not in groups and len(positive) == 1
