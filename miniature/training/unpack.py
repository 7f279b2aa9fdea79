"""Stage `unpack`: published weights as a work folder, so that training goes on from them.

It puts there what takes longest to learn: the autoencoder, the UNet with its text encoders, the
CLIP encoder and the detector. Stages that have written their own are left as they are.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import comfy.sd
import torch
from torch import Tensor

from ..host import register
from . import workers
from .publish import FILES, NAME


def unpack(folder: Path, weights: Path) -> None:
    if workers.number() > 0:
        return
    for source, target in FILES.items():
        path = folder / source
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() and (weights / target).exists():
            shutil.copyfile(weights / target, path)
    register()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
        str(weights / f"{NAME}.safetensors")
    )
    unet, text = model.model.diffusion_model, clip.cond_stage_model
    both = _prefixed("unet.", unet) | _prefixed("text.", text)
    _write(folder / "encoder.pt", _prefixed("", vae.first_stage_model))
    _write(folder / "unet.pt", {"averaged": both})


def _prefixed(prefix: str, net: torch.nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": x.float() for name, x in net.state_dict().items()}


def _write(path: Path, state: object) -> None:
    if not path.exists():
        torch.save(state, path)
