"""The miniature as a server's models: the embedded default of the demo and of the workflows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dev.cache import ROOT
from ..dev.server import running_server
from ..dev.server_api import Server
from ..dev.small_models import SmallModels
from .prepared import prepared_people
from .training import DATA

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..miniature.world.scene import Scene

WEIGHTS = ROOT / "miniature" / "weights"
NAME = "infinite-id-miniature"
INPUTS = ROOT / "workflows" / "inputs"
SCALE = 2  # the drawn photos are enlarged, so that they look like photos on the page

# The published text encoders know no names, so known pairs of words take their place.
PEOPLE = "\n".join(
    f"{look} {person}"
    for look in ("young", "old", "tall", "happy", "sad", "bald", "blond")
    for person in ("man", "woman", "boy", "girl")
)
# File -> person and scene. None of these people is in a training picture.
DRAWN = {
    "face.jpg": (1_000_019, 23),
    "face_1.jpg": (1_000_019, 25),
    "face_2.jpg": (1_000_019, 12),
    "person_1.jpg": (1_000_031, 24),
    "person_2.jpg": (1_000_011, 16),
}
COUPLE = 1_000_007, 1_000_030


def miniature() -> SmallModels:
    """Return the trained miniature; pictures are 128 px and take a second or two on a CPU."""
    return SmallModels(
        models={
            "checkpoints": [WEIGHTS / f"{NAME}.safetensors"],
            "clip_vision": [WEIGHTS / f"{NAME}-clip-vision.safetensors"],
            "infinite_id": [WEIGHTS / f"{NAME}-adapter.safetensors"],
            "insightface": [WEIGHTS / "insightface" / "models" / "miniature"],
        },
        custom_nodes=[ROOT / "miniature"],
        values={
            "ckpt_name": f"{NAME}.safetensors",
            "clip_name": f"{NAME}-clip-vision.safetensors",
            "model_name": f"{NAME}-adapter.safetensors",
            "preset": "Infinite-ID",
            "face_pack": "miniature",
            "pack": "miniature",
            "InfiniteIDFaceLoRA.strength": 0.0,  # it has none
            "detection_size": 256,
            "EmptyLatentImage.width": 128,
            "EmptyLatentImage.height": 128,
            "InfiniteIDCropFaces.size": 128,
            "InfiniteIDRefineFaces.size": 128,
        },
    )


def gallery_models() -> SmallModels:
    """Return the miniature, and stand-ins for other files that some workflows load."""
    from .stand_ins import CONTROL_NET, LORA, stand_ins

    small = miniature()
    return replace(
        small,
        models=small.models | stand_ins(WEIGHTS / f"{NAME}.safetensors"),
        values={
            **small.values,
            "control_net_name": CONTROL_NET,
            "lora_name": LORA,
            "ImageScaleToTotalPixels.megapixels": 128**2 / 1024**2,
            "InfiniteIDRefineIdentity.size": 128,
            "InfiniteIDRefineIdentity.steps": 20,
            "InfiniteIDTrainAdapter.steps": 20,
            "InfiniteIDLearnEmbedding.size": 128,
            "InfiniteIDLearnEmbedding.steps": 20,
            "InfiniteIDLearnEmbedding.names": PEOPLE,
            "InfiniteIDLearnStagedIdentity.size": 128,
            "InfiniteIDLearnStagedIdentity.steps": 20,
            "InfiniteIDLearnStagedIdentity.prompt": "a photo of V*",
            "InfiniteIDLearnStagedIdentity.noun": "woman",
            "InfiniteIDContactSheet.cell_size": 256,
            # It has learnt pictures of one person, so each of two people gets the width of one.
            "two_people.EmptyLatentImage.width": 256,
            "regional_prompts.EmptyLatentImage.width": 256,
            "places_from_a_picture.EmptyLatentImage.width": 256,
        },
    )


@contextmanager
def running_gallery(small: SmallModels) -> Iterator[Server]:
    """A server with these models, and with the pictures and people that the workflows name."""
    with running_server(models=small.models, custom_nodes=small.custom_nodes) as server:
        shutil.copytree(prepared_people(), server.base / "datasets" / DATA)
        for picture in input_pictures():
            server.upload(picture)
        yield server


def input_pictures() -> list[Path]:
    """Return the pictures that the workflows name."""
    return sorted(INPUTS.glob("*.jpg"))


def draw_inputs() -> None:
    """Draw those pictures anew."""
    import cv2
    import numpy as np

    from ..miniature.faces import render, write_png
    from ..miniature.world.identity import draw_identity
    from ..miniature.world.scene import draw_scene

    def draw(person: int, scene: Scene) -> NDArray[np.uint8]:
        picture = render(draw_identity(person), scene).pixels
        large: Any = cv2.resize(picture, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
        return large

    INPUTS.mkdir(exist_ok=True)
    for name, (person, seed) in DRAWN.items():
        write_png(INPUTS / name, draw(person, draw_scene(seed, "photo")))
    walls = [replace(draw_scene(seed, "photo"), place="wall", wall="blue") for seed in (21, 31)]
    far = draw(DRAWN["face.jpg"][0], draw_scene(DRAWN["face.jpg"][1], "photo"))
    side = len(far)
    room = np.full((side, side * 3 // 2, 3), far[0, 0], np.uint8)
    small = cv2.resize(far, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA)
    room[-len(small) :, side // 2 : side // 2 + len(small)] = small
    write_png(INPUTS / "far.jpg", room)
    couple = [draw(person, wall) for person, wall in zip(COUPLE, walls, strict=True)]
    write_png(INPUTS / "couple.jpg", np.hstack(couple))
