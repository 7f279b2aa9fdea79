"""Measures the likeness of drawn pictures to a photo that is held out from learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ..faces.face import FaceError, Photo
from ..faces.photo import read_photo
from ..metrics.scores import cosine
from ..training.host_load import place
from .host_faces import Nets, encode_face

_PICTURES = 2
"""Of a look."""

W = TypeVar("W")


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
class Likeness(Generic[W]):
    """Draws the person, and compares the pictures with the held-out photo.

    Attributes:
        draw: words and the number of a picture -> its latents `(1, c, h, w)` in the model's scale.
        now: returns the present words.
        loaded: what is on the device; the first one is the diffusion model.
        person: the face vector `(w,)` of the held-out photo.
        side: of the headshots that face vectors are made of, in pixels.
    """

    draw: Callable[[W, int], Tensor]
    now: Callable[[], W]
    loaded: Sequence[ModelPatcher]
    vae: VAE
    nets: Nets
    person: Tensor
    side: int

    def look(self) -> float:
        """Measure the present words; load again what the autoencoder has pushed off the device."""
        found = self.measure(self.now())
        place(self.loaded)
        return found

    def measure(self, words: W) -> float:
        """Return the mean cosine of some pictures; one without a face counts as 0."""
        return sum(self._score(words, number) for number in range(_PICTURES)) / _PICTURES

    def _score(self, words: W, number: int) -> float:
        latents = self.draw(words, number)
        with torch.inference_mode():
            scaled = self.loaded[0].model.process_latent_out(latents.cpu())
            picture = self.vae.decode(scaled)[0]
            vector = encode_face(self.nets, "a drawn picture", read_photo(picture), self.side)
        return 0.0 if vector is None else cosine(vector.numpy(), self.person.numpy())
