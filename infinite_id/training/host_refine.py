"""*Refine Identity*: a few hundred steps on the tokens of one person."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from comfy.model_management import InterruptProcessingException
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE

from ..adapters.adapter import check_fits
from ..faces.face import Photo
from ..faces.photo import digest, to_image
from ..files import digest_of
from ..host.patch import read_unet
from ..identities.identity import Identity
from .draws import time_of_preview
from .host_follow import Follow
from .host_frozen import HostFrozen
from .host_load import (
    check_vae,
    digest_autoencoder,
    digest_model,
    encode_picture,
    load_for_training,
    training,
)
from .loop import Loop
from .prepare.buckets import choose_bucket, cut
from .processes import Alone
from .refine import OwnPhoto, OwnPhotos, RefineObjective, Tokens
from .settings import Objective, Optimiser, Settings, short_run
from .stats import read_losses
from .trainee import Trainee

_STEP = 64
"""Sides of the targets are multiples of it, in pixels."""


def make_settings(steps: int, batch: int, rate: float, seed: int, twice: bool) -> Settings:
    """Make the settings of a few hundred steps.

    Args:
        twice: compute activations twice.
    """
    return Settings(
        objective=Objective(),
        optimiser=Optimiser(rate=rate, weight_decay=0.0, warm_up=10, average=0.98),
        run=short_run(steps, batch, seed, twice),
    )


def encode_photos(photos: dict[str, Photo], vae: VAE, size: int, model: ModelPatcher) -> OwnPhotos:
    """Latents of whole photos, each cut to the nearest bucket around its middle.

    Args:
        size: buckets have at most `size * size` pixels.
    """
    encoded = []
    for name, photo in photos.items():
        height, width = photo.shape[:2]
        bucket = choose_bucket(height, width, size, _STEP)
        piece = cut(photo, np.array([0, 0, width, height], np.float32), bucket)
        pictures = (piece.pixels, piece.pixels[:, ::-1])
        latents, mirrored = (encode_picture(vae, to_image(x), model) for x in pictures)
        sizes = (height, width, piece.top, piece.left, *bucket)
        encoded.append(OwnPhoto(name, latents, mirrored, sizes))
    return OwnPhotos(encoded)


def refine(
    model: ModelPatcher,
    vae: VAE,
    identity: Identity,
    photos: dict[str, Photo],
    size: int,
    settings: Settings,
    runs: Path,
    follow: Follow,
) -> tuple[Identity, list[float], int]:
    """Train an identity's tokens on the person's photos.

    Args:
        runs: a folder for states; the same inputs go on where they were stopped.
        follow: trains the run and shows it.

    Returns:
        The identity, the loss of each step, and how many steps were done in all.

    Raises:
        InterruptProcessingException: if the user interrupts; the state is stored before.
        UserError: if the loss is not finite, or the disk is full.
        ValueError: if it is no single identity whose tokens count alike, or does not fit the model.
    """
    _check(model, identity)
    check_vae(vae)
    own = encode_photos(photos, vae, size, model)
    metadata = _describe(model, vae, identity, list(photos.values()), size, settings)
    with training():
        patcher = load_for_training(model)
        frozen = HostFrozen(patcher.model, settings.run.checkpointing)
        device = patcher.load_device
        adapter = copy.deepcopy(identity.adapter).to(device, frozen.dtype)
        objective = RefineObjective(Tokens(identity.tokens), adapter, frozen)
        processes = Alone(device)
        trainee = Trainee(objective, processes, settings.optimiser)
        times = len(frozen.alphas_cumprod)
        out = runs / f"refine-{digest_of(metadata)[:16]}"
        loop = Loop(out, settings, trainee, own, None, processes, times, metadata)
        begun = loop.resume()
        shown = own.show(time_of_preview(times)).to(device)
        if not follow(loop, begun, patcher, lambda: objective.denoise(shown)):
            raise InterruptProcessingException
        tokens = trainee.average["tokens"].detach().cpu().clone()
    refined = replace(identity, tokens=tokens, features=None)
    return refined, read_losses(out), trainee.step


def _check(model: ModelPatcher, identity: Identity) -> None:
    check_fits(identity.adapter, *read_unet(model))
    if identity.count > 1 or identity.shares is not None:
        raise ValueError(
            "Refine Identity takes a single identity whose photos count alike, and this is a sweep "
            "or a mix with weights. Connect Encode Identity without weights."
        )


def _describe(
    model: ModelPatcher,
    vae: VAE,
    identity: Identity,
    photos: Sequence[Photo],
    size: int,
    settings: Settings,
) -> dict[str, object]:
    """Describe all that decides what is learnt, except the number of steps."""
    run, rate = settings.run, settings.optimiser.rate
    return {
        "model": digest_model(model),
        "vae": digest_autoencoder(vae),
        "identity": sha256(identity.tokens.numpy().tobytes()).hexdigest(),
        "adapter": identity.adapter.fingerprint,
        "photos": [digest(photo) for photo in photos],
        "settings": [size, run.batch, run.seed, rate],
    }
