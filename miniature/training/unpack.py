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

from .. import nets
from ..host import register
from . import workers
from .publish import FILES, NAME
from .run import averaged_weights

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
            learnt = load_file(weights / f"{name}.safetensors")
            _write(folder / f"{name}.pt", {"averaged": {k: x.float() for k, x in learnt.items()}})
    if not (weights / f"{NAME}.safetensors").exists():
        return
    register()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
        str(weights / f"{NAME}.safetensors")
    )
    unet, text = model.model.diffusion_model, clip.cond_stage_model
    both = _prefixed("unet.", unet) | _prefixed("text.", text)
    _write(folder / "encoder.pt", _prefixed("", vae.first_stage_model))
    _write(folder / "unet.pt", {"averaged": both})


def keep(folder: Path, to: Path) -> None:
    """Write what stages have learnt so far, in half precision, for `unpack` on another machine."""
    if workers.number() > 0:
        return
    to.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (folder / f"{name}.pt").exists():
            partial = to / f"{name}.partial"
            save_file(nets.as_half(averaged_weights(folder, name)), partial)
            partial.replace(to / f"{name}.safetensors")


def _prefixed(prefix: str, net: torch.nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": x.float() for name, x in net.state_dict().items()}


def _write(path: Path, state: object) -> None:
    if not path.exists():
        torch.save(state, path)
