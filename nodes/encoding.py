"""Shared parts of the two nodes that turn photos into an identity."""

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..infinite_id.adapters.mappers import Crop
from ..infinite_id.faces.face import MIN_CONFIDENCE, FaceError, Order, Photo, Vector, sort_faces
from ..infinite_id.faces.photo import read_photos, to_image
from ..infinite_id.faces.selection import Choice, WholePhoto, draw_choices
from ..infinite_id.host.encode import Encoder, encode_identities
from ..infinite_id.identities.identity import Identity
from ..infinite_id.identities.mixing import average, average_directions, stack, subtract
from . import sockets
from .detection import look_through, read_person

CROP_SIZE = 224
MOST_PHOTOS = 16
SUBTRACT = "subtract"
COMBINE = {
    "stack": stack,
    "average": average,
    "normalised average": average_directions,
    SUBTRACT: subtract,
}
ERROR, SKIP = "error", "skip"
MUCH_MEMORY = 10**9
"""The user is told if keys and values take more bytes than this."""
_SMALLEST, _LARGEST = 1e-6, 1e6
"""Weights of photos: float32 holds them, and sums of them."""
EXPLAIN_MORE_IMAGES = (
    'Give each further photo, or batch, in an input of its own: "more_images.image_2": '
    '["node", 0], "more_images.image_3": ["other node", 0], and so on.'
)


@dataclass(frozen=True)
class Wishes:
    """The user's settings for the photos.

    Attributes:
        combine: a key of `COMBINE`; weights: text for `read_weights`.
        index: the number of the face, from 0; first: the number that the user counts from.
    """

    combine: str
    weights: str
    order: Order
    index: int
    first: int
    min_confidence: float
    on_no_face: str


def image_input() -> io.Image.Input:
    """The input for the photos, which is required."""
    return io.Image.Input("image", tooltip="One photo, or a batch of photos of one person.")


def wish_inputs(number: io.Int.Input) -> list[io.Input]:
    """Inputs for further photos and for the choice of a face, whose number is read by `number`."""
    return [
        io.Image.Input(
            "reference",
            optional=True,
            tooltip="Only for face 'most similar to reference': a photo in which the "
            "person's face is the largest.",
        ),
        io.Autogrow.Input(
            "more_images",
            template=io.Autogrow.TemplateNames(
                io.Image.Input(
                    "image",
                    tooltip="A further photo of the person, or a batch, of any size.",
                ),
                names=[f"image_{number}" for number in range(2, MOST_PHOTOS + 1)],
                min=0,
            ),
            optional=True,
            tooltip="Further photos of the person, of any size: a new input appears as "
            "the last one is connected.",
        ),
        io.Combo.Input(
            "combine",
            options=list(COMBINE),
            default="stack",
            optional=True,
            tooltip="Several photos: 'stack' keeps the tokens of each (the paper's way). "
            "'average' makes one face of them, with the tokens of a single photo; 'normalised "
            "average' does so from features of equal length. 'subtract' takes the mean of the "
            "other photos away from the first.",
        ),
        io.String.Input(
            "weights",
            default="",
            optional=True,
            tooltip="How much each photo counts, relative to the others, such as '1, 0.5': "
            "one number for each photo, in order. Empty: all alike.",
        ),
        io.Combo.Input(
            "face",
            options=[order.value for order in Order],
            default=Order.LARGEST.value,
            optional=True,
            tooltip="How the faces in a photo are counted. The first is taken, or the one "
            "with another number; the preview shows the numbers.",
        ),
        number,
        io.Float.Input(
            "min_confidence",
            default=MIN_CONFIDENCE,
            min=0.05,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="How sure the detector must be that something is a face. Lower finds "
            "drawn, turned or covered faces, and more that are none.",
            advanced=True,
        ),
        io.Combo.Input(
            "on_no_face",
            options=[ERROR, SKIP],
            default=ERROR,
            optional=True,
            tooltip="For a photo without a usable face: stop with an error, or go on "
            "without that photo. There is an error in any case if no photo is left.",
        ),
    ]


def outputs() -> list[io.Output]:
    """The outputs: the identity, and what was seen of the photos."""
    return [
        sockets.Identity.Output(
            "identity", display_name="identity", tooltip="For Apply Infinite-ID."
        ),
        io.Image.Output(
            "face",
            display_name="aligned face",
            tooltip="The crop of each photo that the CLIP encoder sees.",
        ),
        io.Mask.Output(
            "face_mask",
            display_name="face mask",
            tooltip="An oval over the face in each photo of 'image', for inpainting; "
            "empty for photos that were skipped.",
        ),
        io.Image.Output(
            "preview",
            display_name="preview",
            tooltip="What the node shows: each photo with its faces numbered, the chosen "
            "one in green, and the crops that the face and CLIP nets see.",
        ),
        io.String.Output(
            "info",
            display_name="info",
            tooltip="One line for each photo: the face that was taken, or why none was.",
        ),
    ]


def encode(
    cls: type[io.ComfyNode],
    encoder: Encoder,
    batches: list[torch.Tensor],
    reference: torch.Tensor | None,
    wishes: Wishes,
) -> io.NodeOutput:
    """Encode photos and return the result of either node.

    Args:
        batches: the photos, each `(b, h, w, c)`; masks are returned for the first batch only.

    Raises:
        FaceError: if a photo has no usable face and none may be skipped, or none is left.
        ValueError: if weights, CLIP vision or face model do not fit.
    """
    photos = read_photos(batches)
    shares = read_weights(wishes.weights, len(photos))
    choices = _choose_faces(encoder, photos, reference, wishes)
    used = [choice for choice in choices if not choice.problem]
    if not used:
        raise FaceError(f"No photo is left, all {len(choices)} were skipped. {choices[0].problem}")
    if wishes.combine == SUBTRACT and choices[0].problem:
        raise FaceError(
            "combine 'subtract' takes the other photos away from photo 1, which cannot be skipped. "
            + choices[0].problem
        )
    adapter, clip = encoder.adapter, encoder.clip
    recipe = adapter.config.mapper.recipe
    size = CROP_SIZE if clip is None else clip.image_size
    aligned = [choice.cut(size, recipe.crop) for choice in used]
    crops = torch.cat([to_image(crop) for crop in aligned])
    identities = encode_identities(
        adapter, clip, [c.face for c in used], crops, [c.source for c in used]
    )
    kept = [s for s, choice in zip(shares, choices, strict=True) if not choice.problem]
    identity = COMBINE[wishes.combine](identities, kept)
    lines = [choice.line for choice in choices] + _warn_of_memory(identity)
    sheets = draw_choices(choices, aligned, encoder.analysis, recipe)
    return io.NodeOutput(
        identity,
        crops,
        torch.from_numpy(np.stack([choice.mask for choice in choices[: len(batches[0])]])),
        sheets,
        "\n".join(lines),
        ui=ui.PreviewImage(sheets, cls=cls),
    )


def _choose_faces(
    encoder: Encoder, photos: dict[str, Photo], reference: torch.Tensor | None, wishes: Wishes
) -> list[Choice]:
    if encoder.adapter.config.mapper.recipe.crop is Crop.WHOLE:
        return [WholePhoto(name, photo, [], 0, 0) for name, photo in photos.items()]
    if encoder.analysis is None:
        raise ValueError(
            "The adapter needs a face model: connect Load Face Analysis to 'face_analysis', or "
            "Infinite-ID Unified Loader's encoder, which brings one."
        )
    person = None
    if wishes.order is Order.MOST_SIMILAR:
        person = _read_person(encoder.analysis, reference)
    choices = []
    for name, photo, faces in look_through(encoder.analysis, photos, wishes.min_confidence):
        counted = sort_faces(faces, wishes.order, person)
        choices.append(Choice(name, photo, counted, wishes.index, wishes.first))
        if choices[-1].problem:
            _report(choices[-1].problem, wishes.on_no_face)
    return choices


def check_more_images(more_images: Any) -> bool | str:
    """For `validate_inputs`: whether an API prompt gives further photos in inputs of their own."""
    links = more_images.values() if isinstance(more_images, dict) else [more_images]
    return all(link is None for link in links) or EXPLAIN_MORE_IMAGES


def read_more(
    more_images: dict[str, torch.Tensor] | torch.Tensor | None, others: dict[str, Any]
) -> list[torch.Tensor]:
    """Return further IMAGE batches `(n, h, w, c)`, whatever an API prompt calls them.

    Args:
        others: inputs that the node does not have.

    Raises:
        ValueError: for a picture that is connected to no input of the node.
    """
    given = more_images if isinstance(more_images, dict) else {"more_images": more_images}
    pictures = {k: v for k, v in others.items() if isinstance(v, torch.Tensor)}
    stray = [name for name in pictures if not name.startswith("more_images")]
    if stray:
        raise ValueError(f"Encode Identity has no input '{stray[0]}'. {EXPLAIN_MORE_IMAGES}")
    return [batch for batch in (*given.values(), *pictures.values()) if batch is not None]


def _warn_of_memory(identity: Identity) -> list[str]:
    """A line for the user if the keys and values of an identity will take much memory."""
    tokens = identity.tokens.shape[1]
    taken = identity.adapter.count_bytes(tokens)
    if taken <= MUCH_MEMORY:
        return []
    line = (
        f"Much memory: {len(identity.sources)} photos stacked are {tokens} tokens, whose keys and "
        f"values take {taken / 1e9:.1f} GB in float16 beside the model, and slow each step down. "
        f"combine 'average' takes {taken / len(identity.sources) / 1e9:.2f} GB, however many "
        "photos there are."
    )
    logging.warning("Infinite-ID: %s", line)
    return [line]


def read_weights(text: str, count: int) -> list[float]:
    """Read numbers between commas, one for each photo; all are 1 if the text is empty.

    Raises:
        ValueError: if a number is not valid, or if there are not as many as photos.
    """
    if not text.strip():
        return [1.0] * count
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = [math.nan]
    if not all(weight == 0 or _SMALLEST <= weight <= _LARGEST for weight in weights):
        raise ValueError(
            f"weights must be numbers from 0 on with commas between, such as '1, 0.5'; got "
            f"'{text}'. Between {_SMALLEST:g} and {_LARGEST:g} none is too small or too large."
        )
    if len(weights) != count:
        raise ValueError(
            f"weights has {len(weights)} numbers for {count} photo{'s' * (count != 1)}: give one "
            "number for each photo, or none for all alike."
        )
    return weights


def _read_person(face_analysis: Any, reference: torch.Tensor | None) -> Vector:
    if reference is None:
        raise ValueError(
            "Connect a photo of the person to 'reference', or choose another way in 'face'."
        )
    return read_person(face_analysis, reference)


def _report(problem: str, on_no_face: str) -> None:
    if on_no_face == ERROR:
        raise FaceError(problem)
    logging.warning("Infinite-ID: photo skipped. %s", problem)
