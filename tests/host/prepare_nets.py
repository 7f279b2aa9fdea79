"""The miniature's nets for `prepare`, loaded by name in any process."""

from typing import TYPE_CHECKING, Any

from pack.infinite_id.errors import UserError
from pack.infinite_id.faces import model_pack
from pack.miniature.shapes import WEIGHTS

if TYPE_CHECKING:
    from pack.infinite_id.training.prepare.host_encoders import HostEncoders

CHECKPOINT = WEIGHTS / "infinite-id-miniature.safetensors"
CLIP_VISION = WEIGHTS / "infinite-id-miniature-clip-vision.safetensors"
PACK = WEIGHTS / "insightface" / "models" / "miniature"


def load_analysis() -> Any:
    return model_pack.load_analysis(PACK, "CPU", 256)


def load_encoders() -> "HostEncoders":
    from pack.infinite_id.training.prepare.host_encoders import HostEncoders
    from pack.miniature.host import register

    register()
    return HostEncoders.load(CHECKPOINT, CLIP_VISION)


def fail() -> "HostEncoders":
    raise UserError("no nets today")
