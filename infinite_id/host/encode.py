"""Faces -> identities, with the host's CLIP image encoder if the adapter needs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from comfy.clip_vision import ClipVisionModel
from torch import Tensor

from ..adapters.adapter import Adapter, encode
from ..adapters.mappers import FaceVector, Recipe
from ..faces.face import Face
from ..identities.identity import Features, Identity, Source
from .clip import encode_image, encode_nothing


@dataclass(frozen=True, eq=False)
class Encoder:
    """The models that turn photos into an identity.

    Attributes:
        analysis: an InsightFace FaceAnalysis; None if the adapter reads whole photos.
        clip: None if the adapter reads no CLIP features.
    """

    adapter: Adapter
    analysis: Any
    clip: ClipVisionModel | None


def encode_identities(
    adapter: Adapter,
    clip: ClipVisionModel | None,
    faces: Sequence[Face],
    crops: Tensor,
    sources: Sequence[Source],
) -> list[Identity]:
    """Map each face to an identity of its own, for `mixing` to combine.

    Args:
        faces: their embeddings are read if the adapter's recipe wants one.
        crops: `(number of faces, size, size, 3)` float in 0..1, cut as the adapter's recipe says.
        sources: where each face is from.

    Raises:
        ValueError: if the CLIP encoder or the recogniser is not the adapter's.
    """
    recipe = adapter.config.mapper.recipe
    vectors = _read_vectors(adapter, recipe, faces)
    hidden, nothing = _read_hidden(adapter, recipe, clip, crops)
    tokens = encode(adapter, vectors, hidden)
    unconditional = adapter.share(encode(adapter, torch.zeros_like(vectors[:1]), nothing))
    return [
        Identity(
            tokens=tokens[i : i + 1],
            unconditional=unconditional,
            adapter=adapter,
            sources=(source,),
            features=Features(vectors[i : i + 1], hidden[i : i + 1].float()),
        )
        for i, source in enumerate(sources)
    ]


def _read_vectors(adapter: Adapter, recipe: Recipe, faces: Sequence[Face]) -> Tensor:
    """`(number of faces, face_width)` as the recipe wants them."""
    vectors = torch.from_numpy(np.stack([face.embedding for face in faces]))
    if recipe.face_width not in (0, vectors.shape[-1]):
        raise ValueError(
            f"The face model gives {vectors.shape[-1]} numbers, and the adapter '{adapter.name}' "
            f"was trained on {recipe.face_width}: choose its face model "
            f"({recipe.face_model}) in Load Face Analysis."
        )
    if recipe.face_vector is FaceVector.RAW:
        return vectors
    return torch.nn.functional.normalize(vectors, dim=-1)


def _read_hidden(
    adapter: Adapter, recipe: Recipe, clip: ClipVisionModel | None, crops: Tensor
) -> tuple[Tensor, Tensor]:
    """CLIP features of the crops `(b, l, w)` and of nothing `(1, l, w)`; maybe empty."""
    if not recipe.clip_width:
        return crops.new_zeros(len(crops), 0, 0), crops.new_zeros(1, 0, 0)
    if clip is None:
        raise ValueError(
            f"The adapter '{adapter.name}' ({recipe.name}) needs a CLIP vision model: connect "
            f"Load CLIP Vision with {recipe.clip_model}."
        )
    hidden = encode_image(clip, crops, recipe.clip_layer)
    if hidden.shape[-1] != recipe.clip_width:
        raise ValueError(
            f"The CLIP vision model gives {hidden.shape[-1]} wide features, and the adapter "
            f"'{adapter.name}' ({recipe.name}) was trained on {recipe.clip_width} wide ones: load "
            f"{recipe.clip_model} in Load CLIP Vision."
        )
    return hidden, encode_nothing(clip, recipe.clip_layer)
