"""Finds and loads frozen models with ComfyUI's own loaders."""

from hashlib import sha256
from pathlib import Path

import comfy.clip_vision
import comfy.sd
import folder_paths
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_base import BaseModel
from comfy.sd import CLIP, VAE
from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..faces.model_pack import list_packs


def find_file(option: str, kind: str, choice: str) -> Path:
    """Find a model file by its path, or by its name in ComfyUI's folders.

    Args:
        option: the command's option, for the message.
        kind: ComfyUI's name for the folders, such as "checkpoints".

    Raises:
        UserError: if there is no such file.
    """
    if Path(choice).is_file():
        return Path(choice)
    found = folder_paths.get_full_path(kind, choice)
    if found is None:
        here = folder_paths.get_filename_list(kind)
        raise UserError(
            f"{option}: there is no file {choice}, and ComfyUI has none of this name in "
            f"{', '.join(folder_paths.get_folder_paths(kind))}; there are "
            f"{', '.join(here[:20]) or 'none'}."
        )
    return Path(found)


def find_face_pack(choice: str) -> Path:
    """Find the folder of an InsightFace model pack by its path, or by its name in ComfyUI.

    Raises:
        UserError: if there is none.
    """
    if Path(choice).is_dir():
        return Path(choice)
    known = folder_paths.folder_names_and_paths.get("insightface", ([], set()))[0]
    roots = [*map(Path, known), Path(folder_paths.models_dir, "insightface")]
    packs = list_packs([root for root in roots if root.is_dir()])
    if choice not in packs:
        raise UserError(
            f"--face-pack: there is no folder {choice}, and no pack of this name in "
            f"{', '.join(str(root) for root in roots)}; there are {', '.join(packs) or 'none'}."
        )
    return packs[choice]


def autoencoder_digest(path: Path) -> str:
    """SHA-256 of a checkpoint's autoencoder. Checkpoints with the same digest share latents.

    Raises:
        UserError: if the file is no .safetensors file.
    """
    digest = sha256()
    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            own = [name for name in names if name.startswith("first_stage_model.")] or names
            for name in own:
                x = file.get_tensor(name)
                digest.update(f"{name} {tuple(x.shape)} {x.dtype}\n".encode())
                digest.update(x.contiguous().flatten().view(torch.uint8).numpy())
    except SafetensorError as error:
        raise UserError(f"--model: {path.name} is damaged or no .safetensors file.") from error
    return digest.hexdigest()


def load_vae(path: Path) -> VAE:
    """Load the autoencoder of a checkpoint. Raises UserError if it has none."""
    vae = comfy.sd.load_checkpoint_guess_config(
        str(path), output_vae=True, output_clip=False, output_model=False
    )[2]
    if vae is None:
        raise UserError(f"--model: {path.name} holds no autoencoder: give a whole checkpoint.")
    vae.throw_exception_if_invalid()
    return vae


def load_clip_vision(path: Path) -> ClipVisionModel:
    """Load a CLIP image encoder. Raises UserError if ComfyUI does not know the file as one."""
    clip = comfy.clip_vision.load(str(path))
    if clip is None:
        raise UserError(f"--clip-vision: ComfyUI does not know {path.name} as one.")
    return clip


def load_model(path: Path) -> BaseModel:
    """Load the diffusion model of a checkpoint, frozen, on the CPU in the file's precision.

    Raises:
        UserError: if the file holds none.
    """
    patcher = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False)
    if patcher[0] is None:
        raise UserError(f"--model: {path.name} holds no diffusion model.")
    model: BaseModel = patcher[0].model
    model.requires_grad_(False)
    return model


def load_text_encoders(path: Path) -> CLIP:
    """Load the text encoders of a checkpoint. Raises UserError if it has none."""
    clip = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_model=False)[1]
    if clip is None:
        raise UserError(
            f"objective.text is true, and {path.name} holds no text encoder: give a whole "
            "checkpoint with --model."
        )
    return clip


def place_model(model: BaseModel, device: torch.device, dtype: torch.dtype) -> BaseModel:
    """Move a diffusion model, in place, to a device and a dtype, and have it run in that dtype."""
    model.diffusion_model.to(device=device, dtype=dtype)
    model.diffusion_model.dtype, model.manual_cast_dtype = dtype, None
    return model
