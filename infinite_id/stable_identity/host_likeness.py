"""Measures the likeness of drawn pictures to a photo that is held out from learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ..faces.face import FaceError, Photo
from ..faces.photo import read_photo
from ..metrics.scores import cosine
from ..words.files import Rows
from ..words.host_frozen import HostFrozen
from .draw import draw
from .host_faces import Nets, encode_face

_PICTURES = 2
"""Of a look."""


def see_held_out(nets: Nets, photo: Photo, side: int) -> Tensor:
    """Return the face vector `(w,)` of the held-out photo. Raises FaceError if it has no face."""
    vector = encode_face(nets, "held_out", photo, side)
    if vector is None:
        raise FaceError(
            "No face found in 'held_out'. Give a photo in which the person's face is sharp and "
            "uncovered, or none."
        )
    return vector


@dataclass(frozen=True, eq=False)
class Likeness:
    """Draws the person, and compares the pictures with the held-out photo.

    Attributes:
        person: the face vector `(w,)` of the held-out photo.
        shape: of latents, `(c, h, w)`.
        side: of the headshots that face vectors are made of, in pixels.
    """

    frozen: HostFrozen
    patcher: ModelPatcher
    vae: VAE
    nets: Nets
    person: Tensor
    shape: tuple[int, int, int]
    side: int

    def measure(self, rows: Rows) -> float:
        """Return the mean cosine of some pictures; one without a face counts as 0.

        The autoencoder may push the models off the device: place them again afterwards.
        """
        return sum(self._score(rows, number) for number in range(_PICTURES)) / _PICTURES

    def _score(self, rows: Rows, number: int) -> float:
        latents = draw(self.frozen, rows, self.shape, number)
        with torch.inference_mode():
            picture = self.vae.decode(self.patcher.model.process_latent_out(latents.cpu()))[0]
            vector = encode_face(self.nets, "a drawn picture", read_photo(picture), self.side)
        return 0.0 if vector is None else cosine(vector.numpy(), self.person.numpy())
