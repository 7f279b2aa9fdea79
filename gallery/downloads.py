"""The public models that the workflows name, and the links from which the page downloads them."""

from __future__ import annotations

BASE = "sd_xl_base_1.0.safetensors"
LIGHTNING = "sdxl_lightning_8step.safetensors"
ADAPTER = "ip-adapter-faceid-plusv2_sdxl.bin"
CLIP_VISION = "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
CONTROL_NET = "control-lora-canny-rank256.safetensors"
LORA = "watercolor_v1_sdxl.safetensors"
FACE_PACK = "buffalo_l"  # a folder of several files, which the page cannot download

_PLACES = {
    BASE: ("checkpoints", f"stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{BASE}"),
    LIGHTNING: ("checkpoints", f"ByteDance/SDXL-Lightning/resolve/main/{LIGHTNING}"),
    ADAPTER: ("ipadapter", f"h94/IP-Adapter-FaceID/resolve/main/{ADAPTER}"),
    CLIP_VISION: (
        "clip_vision",
        "h94/IP-Adapter/resolve/main/models/image_encoder/model.safetensors",
    ),
    CONTROL_NET: (
        "controlnet",
        f"stabilityai/control-lora/resolve/main/control-LoRAs-rank256/{CONTROL_NET}",
    ),
    LORA: ("loras", f"ostris/watercolor_style_lora_sdxl/resolve/main/{LORA}"),
}

NEEDED = (
    f"[{ADAPTER}](https://huggingface.co/{_PLACES[ADAPTER][1]}) (1.49 GB) in `models/ipadapter`",
    "[buffalo_l.zip](https://github.com/deepinsight/insightface/releases/download/model-zoo/"
    f"buffalo_l.zip) (289 MB) in `models/insightface/models/{FACE_PACK}, unpacked`",
    f"[{CLIP_VISION}](https://huggingface.co/{_PLACES[CLIP_VISION][1]}) (2.53 GB) in "
    "`models/clip_vision`",
)
"""The files that the first preset of `infinite_id.presets` needs, for a note."""

DOWNLOADS = {
    name: {"url": f"https://huggingface.co/{path}", "directory": directory}
    for name, (directory, path) in _PLACES.items()
}
