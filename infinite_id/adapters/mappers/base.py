"""What every mapper has in common: the features that it reads and the tokens that it makes."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from torch import nn


class FaceVector(Enum):
    """Which of the recogniser's vectors a mapper was trained on."""

    NORMED = "normalised"
    RAW = "raw"


class ClipLayer(Enum):
    """Which output of the CLIP image encoder a mapper was trained on; the host's names.

    LAST and PENULTIMATE are hidden states, `(b, l, clip_width)`. POOLED is the projected image
    embedding, as one state: `(b, 1, clip_width)`.
    """

    LAST = "last_hidden_state"
    PENULTIMATE = "penultimate_hidden_states"
    POOLED = "image_embeds"


class Crop(Enum):
    """Which part of the photo the CLIP image encoder sees."""

    LOOSE = "hairline to neck"
    ARCFACE = "the face alone, as ArcFace sees it"
    WHOLE = "the middle square of the photo; no face is looked for"


@dataclass(frozen=True)
class Recipe:
    """Which features an adapter reads. A width of 0 means that it reads none of that kind.

    Attributes:
        name: what kind of adapter this is, for the user.
        face_width, face_vector: width and kind of the recogniser's vector.
        clip_width, clip_layer, crop: width and layer of the CLIP features, and their picture.
        face_model, clip_model: the models that fit, in the user's words; empty if none is needed.
    """

    name: str
    face_width: int
    face_vector: FaceVector
    face_model: str
    clip_width: int
    clip_layer: ClipLayer
    crop: Crop
    clip_model: str


_HIDDEN_WIDTHS = {1280: "CLIP ViT-H/14", 1664: "CLIP ViT-bigG/14", 1024: "CLIP ViT-L/14"}
_POOLED_WIDTHS = {1024: "CLIP ViT-H/14", 1280: "CLIP ViT-bigG/14", 768: "CLIP ViT-L/14"}


def name_clip_model(width: int, layer: ClipLayer = ClipLayer.PENULTIMATE) -> str:
    """The CLIP image encoder whose hidden states, or pooled embedding, have this width."""
    known = _POOLED_WIDTHS if layer is ClipLayer.POOLED else _HIDDEN_WIDTHS
    return known.get(width, f"a CLIP image encoder {width} wide")


class MapperSpec(Protocol):
    """The architecture of a mapper: all that fixes the shapes of its weights."""

    @property
    def token_width(self) -> int: ...

    @property
    def recipe(self) -> Recipe: ...

    def build(self) -> nn.Module:
        """A network `(face (b, face_width), clip (b, l, clip_width)) -> (b, tokens, token_width)`.

        Its weights are not meaningful yet.
        """
        ...
