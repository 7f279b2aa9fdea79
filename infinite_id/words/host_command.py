"""Shared by the commands that learn words: checkpoints, photos, progress in the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import comfy.sd
import folder_paths

from ..errors import UserError
from ..faces.face import Photo
from ..faces.model_pack import load_analysis
from ..faces.parser import FaceParser
from ..host.models import find_face_pack, find_file, load_clip_vision
from ..photos.look import Limits, Rejected, decode
from ..progress import make_bar
from ..training.host_follow import Tell
from .host_faces import Nets
from .material import GivenMasks, Material


def make_tell() -> Tell:
    """Return a function that shows how many photos are encoded."""
    bars: list[Any] = []

    def tell(done: int, count: int) -> None:
        if not bars:
            bars.append(make_bar(count, "encoding", "photo"))
        bars[0].update()
        if done == count:
            bars[0].close()

    return tell


def load_checkpoint(choice: str) -> tuple[Any, Any, Any]:
    """Load model, CLIP and autoencoder. Raises UserError if one is missing."""
    path = find_file("--model", "checkpoints", choice)
    folders = folder_paths.get_folder_paths("embeddings")
    model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(
        str(path), embedding_directory=folders
    )
    if model is None or clip is None or vae is None:
        raise UserError(
            f"--model: {path.name} lacks the diffusion model, the text encoders or the "
            "autoencoder: give a whole checkpoint."
        )
    return model, clip, vae


def read_photo(path: Path) -> Photo:
    """Read a photo. Raises UserError if it cannot be read, or is no photo."""
    try:
        return decode(path.read_bytes(), Limits())
    except Rejected as rejected:
        raise UserError(f"{path}: {rejected}.") from rejected
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def load_nets(options: argparse.Namespace) -> Nets:
    """Load the nets that the options name.

    Raises:
        UserError: if one is not there.
        FaceError: if one is damaged, or of another kind.
    """
    analysis = clip_vision = None
    if options.face_pack:
        pack = find_face_pack(options.face_pack)
        analysis = load_analysis(pack, options.provider, options.detection_size)
    if options.clip_vision:
        path = find_file("--clip-vision", "clip_vision", options.clip_vision)
        clip_vision = load_clip_vision(path)
    parser = FaceParser(options.face_parser, options.provider) if options.face_parser else None
    return Nets(analysis, clip_vision, parser)


def read_material(options: argparse.Namespace, held_out: Path | None) -> Material:
    """Read photos and masks. Raises UserError if one cannot be read, or does not fit."""
    photos = {str(path): read_photo(path) for path in options.photos}
    paths = options.face_mask or [None] * len(photos)
    if len(paths) != len(photos):
        raise UserError(f"--face-mask: {len(paths)} masks for {len(photos)} photos.")
    masks = [_read_mask(path, photo) for path, photo in zip(paths, photos.values(), strict=True)]
    return Material(photos, masks, None if held_out is None else read_photo(held_out))


def _read_mask(path: Path | None, photo: Photo) -> GivenMasks:
    if path is None:
        return GivenMasks()
    mask = read_photo(path)
    if mask.shape != photo.shape:
        raise UserError(f"--face-mask: {path} has not the size of its photo.")
    return GivenMasks(face=mask.mean(axis=2, dtype="float32") / 255)
