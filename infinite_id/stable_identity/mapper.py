"""The mapper: a face vector becomes two rows in the token table of each text encoder.

StableIdentity, section 3.2, and its official code where the paper is silent. Each text encoder has
a head and statistics of its own; a model with one text encoder has one head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from ..words.files import Rows
from .celebs import WORDS, CelebSpace

RATE = 0.1
"""The factor by which equalised layers multiply their weights."""
_SPREAD = 0.02
_SLOPE = 0.2
_EPSILON = 1e-5


class Landing(Enum):
    """How the mapper's output is brought to the statistics of the names."""

    JOINT = "joint"
    """`mu + sigma LN(x)`, one affine LayerNorm over both rows: the official code."""
    EACH = "per word"
    """`sigma (x - mean(x)) / std(x) + mu` for each row: the paper, equation 3."""
    NONE = "none"
    """The output is left as it is: the paper's ablation without AdaIN."""


class EqualLinear(nn.Module):
    """A linear layer that multiplies its weights by 0.1, and so learns at a tenth of the rate."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_SPREAD * torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, RATE * self.weight, RATE * self.bias)


class Head(nn.Module):
    """Two layers for one text encoder; the hidden width is that of both rows together."""

    mean: Tensor
    std: Tensor

    def __init__(self, face_width: int, space: CelebSpace, landing: Landing) -> None:
        super().__init__()
        width = space.mean.numel()
        self._landing = landing
        self.first = EqualLinear(face_width, width)
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.second = EqualLinear(width, width)
        if landing is Landing.JOINT:
            self.land = nn.LayerNorm(width, eps=_EPSILON)
        self.register_buffer("mean", space.mean.clone())
        self.register_buffer("std", space.std.clone())

    def forward(self, face: Tensor) -> Tensor:
        """`(b, face_width)` -> `(b, 2, d)`."""
        hidden = functional.leaky_relu(self.first(face), _SLOPE)
        output = self.second(self.norm(hidden))
        if self._landing is Landing.JOINT:
            output = self.land(output)
        rows = rearrange(output, "b (n d) -> b n d", n=WORDS)
        if self._landing is Landing.NONE:
            return rows
        if self._landing is Landing.EACH:
            rows = normalise(rows)
        return self.mean + self.std * rows


def normalise(rows: Tensor) -> Tensor:
    """Scale each row `(..., d)` to mean 0 and unbiased standard deviation 1."""
    mean = rows.mean(dim=-1, keepdim=True)
    variance = rows.var(dim=-1, keepdim=True, correction=1)
    return (rows - mean) / (variance + _EPSILON).sqrt()


@dataclass(frozen=True)
class MapperConfig:
    """The configuration of a mapper: all but its weights.

    Attributes:
        face_width: of the face encoder's vectors.
        widths: of the token tables, by the text encoders' keys.
    """

    face_width: int
    widths: Mapping[str, int]
    landing: Landing = Landing.JOINT


class Mapper(nn.Module):
    """A head for each text encoder."""

    def __init__(
        self, face_width: int, spaces: Mapping[str, CelebSpace], landing: Landing = Landing.JOINT
    ) -> None:
        super().__init__()
        self.config = MapperConfig(
            face_width, {key: s.mean.shape[-1] for key, s in spaces.items()}, landing
        )
        heads = {key: Head(face_width, space, landing) for key, space in spaces.items()}
        self.heads: Any = nn.ModuleDict(heads)

    def spaces(self) -> dict[str, CelebSpace]:
        """The statistics of names that the rows are brought to, by text encoder."""
        return {key: CelebSpace(head.mean, head.std) for key, head in self.heads.items()}

    def forward(self, face: Tensor) -> Rows:
        """Face vectors `(b, face_width)` -> rows, float32."""
        scaled = scale_face(face.float())
        return {key: head(scaled) for key, head in self.heads.items()}


def new_mapper(
    face_width: int, spaces: Mapping[str, CelebSpace], landing: Landing, seed: int
) -> Mapper:
    """Return an untrained mapper; the seed determines its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Mapper(face_width, spaces, landing)


def scale_face(face: Tensor) -> Tensor:
    """Scale face vectors `(b, w)` to mean square 1, whatever length their encoder gives them.

    The official encoder's vectors have about this length. Beside a unit vector the LayerNorm's
    epsilon would be large.
    """
    return functional.normalize(face, dim=-1) * face.shape[-1] ** 0.5
