"""Runs a peer's pack on the same model in the same run, with the same weights as ours.

`IPADAPTER_PLUS_PATH` is a checkout of ComfyUI_IPAdapter_plus; nothing of it is kept here.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import comfy.clip_vision
import torch
from comfy.cli_args import args

from ..infinite_id.adapters.formats import ip_adapter
from ..infinite_id.application import Application
from ..infinite_id.attention.blocks import list_layers
from ..infinite_id.attention.mixed import Mixing
from ..infinite_id.host.patch import apply
from . import peer_pack
from .adapter_files import write_safetensors
from .models import Subject
from .texts import PEER
from .timing import Way
from .unet_adapters import make_file

KIND = "Plus Face"
# The peer asks the host's options, not the model, for the dtype of its own tensors.
DTYPE_OPTIONS = {
    torch.float32: "fp32_unet",
    torch.bfloat16: "bf16_unet",
    torch.float16: "fp16_unet",
}
THEIRS, OURS = "ComfyUI_IPAdapter_plus", "ours, the same file"


class Peers(NamedTuple):
    """Ways to draw by name, and the megabytes that each keeps beside the UNet."""

    ways: dict[str, Way]
    megabytes: dict[str, float]


@torch.inference_mode()
def patch_by_both(subject: Subject) -> Peers:
    """Patch the model with one file's identity attention, by the peer's nodes and by ours."""
    from ..miniature.host import register
    from ..miniature.random_weights import write

    register()
    unet = subject.model.model.diffusion_model
    ip_adapter.SDXL = list_layers(unet)  # the small model has as many layers, but narrower ones
    peer = peer_pack.import_peer(Path(os.environ[PEER]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = comfy.clip_vision.load(str(write(folder, "tiny")["clip_vision"]))
        tensors = make_file(unet, KIND, peer_pack.TOKEN_WIDTH, peer_pack.CLIP_WIDTH)
        halves = {k: x.to(subject.dtype) for k, x in tensors.items()}
        file = write_safetensors(folder / "plus-face.safetensors", halves)
        image = torch.rand(1, peer_pack.SIZE, peer_pack.SIZE, 3)
        with patch.object(args, DTYPE_OPTIONS[subject.dtype], True):
            theirs, crop = peer_pack.patch_by_peer(peer, KIND, file, subject.model, clip, image)
        identity = peer_pack.encode(file, clip, crop)
    ours = apply(subject.model, Application(identity, weight=peer_pack.WEIGHT, mixing=Mixing.OFF))
    hooks: dict[Any, Any] = peer_pack.get_hooks(theirs)
    for index in range(10):  # the peer's ("middle", 1, i) is no block: it would do less than ours
        if ("middle", 1, index) in hooks:
            hooks["middle", 0, index] = hooks.pop(("middle", 1, index))
    told = hooks["input", 4, 0].kwargs[0]
    both = (identity.projections, identity.unconditional_projections)
    stored = [p.on(torch.device("cpu"), subject.dtype) for p in both]
    return Peers(
        ways={THEIRS: Way(theirs), OURS: Way(ours)},
        megabytes={
            THEIRS: peer_pack.measure(told["ipadapter"].ip_layers.parameters()),
            OURS: peer_pack.measure(x for pairs in stored for pair in pairs.values() for x in pair),
        },
    )
