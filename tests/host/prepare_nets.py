"""The miniature's nets for `prepare`, loaded by name in any process."""

from typing import Any

from pack.infinite_id.errors import UserError
from pack.infinite_id.faces import face
from pack.infinite_id.training.prepare.encode import Encoders
from pack.miniature.shapes import WEIGHTS

CHECKPOINT = WEIGHTS / "infinite-id-miniature.safetensors"
CLIP_VISION = WEIGHTS / "infinite-id-miniature-clip-vision.safetensors"
PACK = WEIGHTS / "insightface" / "models" / "miniature"


def load_analysis() -> Any:
    return face.load_analysis(PACK, "CPU", 256)


def load_encoders() -> Encoders:
    from pack.infinite_id.training.prepare.host_encoders import HostEncoders
    from pack.miniature.host import register

    register()
    return HostEncoders.load(CHECKPOINT, CLIP_VISION)


def fail() -> Encoders:
    raise UserError("no nets today")
