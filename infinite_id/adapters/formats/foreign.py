"""Files of other face methods, which users may take for adapters. They are refused by name."""

import re
from dataclasses import dataclass
from pathlib import Path

from ...tensor_files import FormatError, Shapes


@dataclass(frozen=True)
class Foreign:
    """A kind of file that is no adapter for this pack.

    Attributes:
        sign: a pattern that the start of a tensor's name matches in such files only.
        size: the first side of that tensor; 0 if it does not matter.
        name: what the file is; advice: why it does not work here and what to use instead.
    """

    sign: re.Pattern[str]
    name: str
    advice: str
    size: int = 0

    def matches(self, shapes: Shapes) -> bool:
        """Whether these are the tensors of such a file."""
        found = (shape for name, shape in shapes.items() if self.sign.match(name))
        return any(not self.size or shape[:1] == (self.size,) for shape in found)


_PULID = (
    "a PuLID adapter",
    "It needs EVA-CLIP, which ComfyUI does not load: use it with PuLID's own node pack, or use "
    "IP-Adapter FaceID PlusV2 here.",
)
_PHOTOMAKER = "It changes the prompt's words and has no image attention"
_KOLORS = (
    "It was trained for Kolors, whose UNet reads another text encoder, and CLIP ViT-L/14 at 336 "
    "pixels: use it with a node pack for Kolors. For SDXL use IP-Adapter Plus Face or FaceID "
    "PlusV2."
)

FOREIGN = (
    Foreign(re.compile(r"id_adapter\.|id_adapter_attn_layers\."), *_PULID),
    Foreign(re.compile(r"image_proj\.(body|mapping_|id_embedding_mapping)"), *_PULID),
    Foreign(
        re.compile(r"id_encoder\.qformer_perceiver\."),
        "PhotoMaker V2",
        f"{_PHOTOMAKER}: use it with PhotoMaker's own node pack, or use IP-Adapter FaceID PlusV2 "
        "here.",
    ),
    Foreign(
        re.compile(r"id_encoder\."),
        "PhotoMaker V1",
        f"{_PHOTOMAKER}: put it into models/photomaker and use ComfyUI's own PhotoMakerLoader and "
        "PhotoMakerEncode.",
    ),
    Foreign(
        re.compile(r"image_proj\.perceiver_resampler\.layers\.0\.0\.to_out\.weight"),
        "Kolors' IP-Adapter FaceID Plus",
        _KOLORS,
        4096,
    ),
    Foreign(
        re.compile(r"image_proj\.layers\.0\.0\.to_out\.weight"),
        "Kolors' IP-Adapter Plus",
        _KOLORS,
        2048,
    ),
    Foreign(
        re.compile(r"image_proj_model\.|FacialEncoder\."),
        "ConsistentID",
        "It needs a face parser and changes the prompt's words: use it with its own node pack, or "
        "use IP-Adapter FaceID PlusV2 here.",
    ),
    Foreign(
        re.compile(r"\d+\.to_(q|k|v|out)\.(id|base)_(down|up)_basis"),
        "HyperLoRA",
        "It makes a LoRA of a face and no identity tokens: use it with its own node pack.",
    ),
    Foreign(
        re.compile(r"text_model\.encoder\.|down_blocks\.\d+\.attentions\."),
        "a whole text encoder or UNet in diffusers' form, such as Arc2Face's",
        "Arc2Face is for SD 1.5 and this pack for SDXL: use Arc2Face with its own node pack, or "
        "IP-Adapter FaceID PlusV2 here.",
    ),
)
"""The order matters: PhotoMaker V2 also has V1's tensors."""


def refuse(path: Path, shapes: Shapes) -> None:
    """Raise FormatError if a file is one of `FOREIGN`, and say what to use instead."""
    for foreign in FOREIGN:
        if foreign.matches(shapes):
            raise FormatError(f"{path.name} is {foreign.name}. {foreign.advice}")
