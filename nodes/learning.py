"""Shared parts of the nodes that learn: category, inputs, the loss, and a run's folder."""

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io
from torch import Tensor

from ..infinite_id.faces.parser import FaceParser
from ..infinite_id.faces.photo import read_photos
from ..infinite_id.words.material import Material, read_masks
from . import folders

CATEGORY = "model/training"
NO_PARSER = "[None]"
LossMap = io.Custom("LOSS_MAP")
LARGEST_SEED = 2**63 - 1


def rate_input(default: float, least: float, tooltip: str) -> io.Float.Input:
    """The learning rate; `least` is its lowest value, and its step."""
    return io.Float.Input(
        "learning_rate",
        default=default,
        min=least,
        max=1.0,
        step=least,
        round=False,
        tooltip=tooltip,
    )


def seed_input(learnt: str) -> io.Int.Input:
    """The input for the seed of a run; `learnt` names what the run learns.

    It is not named `seed`: the page would change it at each queue, and no run could be resumed.
    """
    return io.Int.Input(
        "training_seed",
        default=0,
        min=0,
        max=LARGEST_SEED,
        tooltip=f"Of everything that is drawn; the same seed gives the same {learnt}.",
    )


def checkpointing_input() -> io.Boolean.Input:
    """The input that says whether activations are computed twice."""
    return io.Boolean.Input(
        "gradient_checkpointing",
        default=True,
        tooltip="Compute activations twice: much less memory, a third slower.",
    )


def mask_inputs() -> list[io.Input]:
    """Inputs for the user's masks of each photo."""
    return [
        io.Mask.Input(
            "face_mask",
            optional=True,
            tooltip="The face in each photo; else it is drawn by the landmarks.",
        ),
        io.Mask.Input(
            "hair_mask",
            optional=True,
            tooltip="The hair in each photo; else what lies around the face.",
        ),
        io.Mask.Input(
            "person_mask",
            optional=True,
            tooltip="The person in each photo: keeps the background out of the hair.",
        ),
    ]


def parser_input() -> io.Combo.Input:
    """The input for a face parser."""
    return io.Combo.Input(
        "face_parser",
        options=[NO_PARSER, *folders.list_files(folders.FACE_PARSERS)],
        default=NO_PARSER,
        optional=True,
        advanced=True,
        tooltip="Sees which pixels are face and which are hair, where no mask is connected: an "
        ".onnx file of BiSeNet's 19 classes in models/infinite_id_parsers.",
    )


def find_parser(choice: str) -> Path:
    """The file of a face parser. Raises FileNotFoundError."""
    return folders.find_file(folders.FACE_PARSERS, choice, "face parser", "face_parser")


def load_nets(face_analysis: Any, clip_vision: Any, face_parser: str) -> Any:
    """Put together the nets that see faces. Raises FaceError if a parser is none."""
    from ..infinite_id.words.host_faces import Nets

    parser = None if face_parser == NO_PARSER else FaceParser(find_parser(face_parser))
    return Nets(face_analysis, clip_vision, parser)


def held_out_input() -> io.Image.Input:
    """The input for a photo that is not learnt from."""
    return io.Image.Input(
        "held_out",
        optional=True,
        tooltip="Another photo of the person. Every 50 steps two pictures are compared with it; "
        "the best words are kept, and learning ends if they get no better.",
    )


def read_material(
    images: Tensor,
    face_mask: Tensor | None,
    hair_mask: Tensor | None,
    person_mask: Tensor | None,
    held_out: Tensor | None,
) -> Material:
    """Read photos and masks. Raises MaskError if they do not go together."""
    photos = read_photos([images])
    masks = read_masks(photos, face_mask, hair_mask, person_mask)
    others = None if held_out is None else list(read_photos([held_out], "held_out").values())
    return Material(photos, masks, others[0] if others else None)


def loss_output() -> io.Output:
    """The output with the loss of each step, as the host's own training nodes have it."""
    return LossMap.Output("loss_map", display_name="loss_map", tooltip="For Plot Loss Graph.")


def output_folder(folder: str) -> Path:
    """Return the path of a folder in the host's output folder."""
    return Path(folder_paths.get_output_directory(), folder)
