"""Stages `unpack` and `keep`: turn weights into a work folder, so that training goes on from them.

`unpack` fills the folder with the weights that take longest to learn. Of published weights these
are the autoencoder, the UNet with its text encoders, the CLIP encoder and the detector. Of weights
that `keep` has written, they are the state of a run that had not ended. Weights that a stage has
written itself are not replaced.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import comfy.sd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...infinite_id.files import write_tensors
from .. import nets
from ..host import register
from . import workers
from .lesson import averaged_weights, begin_with
from .publish import FILES, NAME
from .vae import ENCODER

KEPT = ("vae", "unet")
"""Stages that take hours."""


def unpack(folder: Path, weights: Path) -> None:
    if workers.number() > 0:
        return
    for source, target in FILES.items():
        path = folder / source
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() and (weights / target).exists():
            shutil.copyfile(weights / target, path)
    for name in KEPT:
        if (weights / f"{name}.safetensors").exists():
            begin_with(folder, name, load_file(weights / f"{name}.safetensors"))
    if not (weights / f"{NAME}.safetensors").exists():
        return
    register()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
        str(weights / f"{NAME}.safetensors")
    )
    unet, text = model.model.diffusion_model, clip.cond_stage_model
    begin_with(folder, "unet", _prefixed("unet.", unet) | _prefixed("text.", text))
    if not (folder / ENCODER).exists():
        write_tensors(folder / ENCODER, _prefixed("", vae.first_stage_model), {})


def keep(folder: Path, to: Path) -> None:
    """Write what stages have learnt so far, in half precision, for `unpack` on another machine."""
    if workers.number() > 0:
        return
    to.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (folder / name).exists():
            partial = to / f"{name}.partial"
            save_file(nets.as_half(averaged_weights(folder, name)), partial)
            partial.replace(to / f"{name}.safetensors")


def _prefixed(prefix: str, net: torch.nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": x.float() for name, x in net.state_dict().items()}
