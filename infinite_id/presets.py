"""Adapters that users can choose by name, the models that each needs, and their downloads."""

from dataclasses import dataclass

from .adapters.mappers.ip_adapter import ANTELOPE, BUFFALO

_HUB = "https://huggingface.co"
_INSIGHTFACE = "https://github.com/deepinsight/insightface/releases/download/model-zoo"
VIT_H, VIT_BIG_G = "CLIP ViT-H/14", "CLIP ViT-bigG/14"
SEARCH_WORDS = (
    "face",
    "portrait",
    "identity",
    "ipadapter",
    "instantid",
    "faceid",
    "pulid",
    "face swap",
    "character",
    "photo to person",
)
"""Words that users search for to put a person into a picture, names of other methods included."""


@dataclass(frozen=True)
class Download:
    """A public model file.

    Attributes:
        name: this pack's name for the file. Files of other names are recognised, too.
        size: in bytes.
        folder: below ComfyUI's models folder.
    """

    name: str
    url: str
    size: int
    folder: str

    @property
    def amount(self) -> str:
        """The size for the user."""
        unit, size = ("GB", self.size / 1e9) if self.size >= 1e9 else ("MB", self.size / 1e6)
        return f"{size:.3g} {unit}"

    def __str__(self) -> str:
        return f"{self.name} ({self.amount}, {self.url}) in models/{self.folder}"


@dataclass(frozen=True)
class FacePack:
    """One of InsightFace's model packs. No other pack has its `recogniser` file."""

    recogniser: str
    download: Download


@dataclass(frozen=True)
class Preset:
    """A kind of adapter.

    Attributes:
        face_model, clip_model: as its recipe names them; empty if it needs none.
        adapter: None if no file is published.
        finds_faces: whether photos are searched for faces, by any face model if none is named.
    """

    face_model: str
    clip_model: str
    adapter: Download | None
    finds_faces: bool = True


def _adapter(name: str, path: str, size: int, folder: str = "ipadapter") -> Download:
    return Download(name, f"{_HUB}/{path}", size, folder)


def _face_id(name: str, size: int) -> Download:
    return _adapter(name, f"h94/IP-Adapter-FaceID/resolve/main/{name}", size)


def _plain(name: str, size: int) -> Download:
    return _adapter(name, f"h94/IP-Adapter/resolve/main/sdxl_models/{name}", size)


FACE_PACKS = {
    BUFFALO: FacePack(
        "w600k_r50.onnx",
        Download(
            "buffalo_l.zip",
            f"{_INSIGHTFACE}/buffalo_l.zip",
            288_600_000,
            f"insightface/models/{BUFFALO}, unpacked",
        ),
    ),
    ANTELOPE: FacePack(
        "glintr100.onnx",
        Download(
            "antelopev2.zip",
            f"{_INSIGHTFACE}/antelopev2.zip",
            360_700_000,
            f"insightface/models/{ANTELOPE}, unpacked",
        ),
    ),
}

CLIP_MODELS = {
    VIT_H: Download(
        "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
        f"{_HUB}/h94/IP-Adapter/resolve/main/models/image_encoder/model.safetensors",
        2_528_373_448,
        "clip_vision",
    ),
    VIT_BIG_G: Download(
        "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors",
        f"{_HUB}/h94/IP-Adapter/resolve/main/sdxl_models/image_encoder/model.safetensors",
        3_689_912_664,
        "clip_vision",
    ),
}

PLUS_V2 = "IP-Adapter FaceID PlusV2"
NATIVE = "Infinite-ID"

PRESETS = {
    PLUS_V2: Preset(BUFFALO, VIT_H, _face_id("ip-adapter-faceid-plusv2_sdxl.bin", 1_487_555_181)),
    "InstantID": Preset(
        ANTELOPE,
        "",
        _adapter(
            "ip-adapter.bin",
            "InstantX/InstantID/resolve/main/ip-adapter.bin",
            1_691_134_141,
            "instantid",
        ),
    ),
    "IP-Adapter Plus Face": Preset(
        "", VIT_H, _plain("ip-adapter-plus-face_sdxl_vit-h.safetensors", 847_517_512)
    ),
    "IP-Adapter FaceID": Preset(BUFFALO, "", _face_id("ip-adapter-faceid_sdxl.bin", 1_071_149_741)),
    "IP-Adapter FaceID Portrait": Preset(
        BUFFALO, "", _face_id("ip-adapter-faceid-portrait_sdxl.bin", 749_825_937)
    ),
    "IP-Adapter FaceID Portrait unnorm": Preset(
        BUFFALO, "", _face_id("ip-adapter-faceid-portrait_sdxl_unnorm.bin", 1_009_523_411)
    ),
    "IP-Adapter Plus": Preset(
        "", VIT_H, _plain("ip-adapter-plus_sdxl_vit-h.safetensors", 847_517_512), False
    ),
    "IP-Adapter Plus Composition": Preset(
        "",
        VIT_H,
        _adapter(
            "ip_plus_composition_sdxl.safetensors",
            "ostris/ip-composition-adapter/resolve/main/ip_plus_composition_sdxl.safetensors",
            847_517_512,
        ),
        False,
    ),
    "IP-Adapter": Preset("", VIT_BIG_G, _plain("ip-adapter_sdxl.safetensors", 702_585_376), False),
    NATIVE: Preset("", "", None),
}
"""Presets by their recipes' names, the first choice first."""
