"""Sample sheets of a run: held-out people, drawn by the code that the nodes use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.sd
import numpy as np
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ..adapters.adapter import Adapter, encode
from ..application import Application
from ..errors import UserError
from ..faces.detection import detect
from ..faces.face import FaceError
from ..faces.model_pack import load_analysis
from ..faces.photo import read_photo
from ..files import write_whole
from ..host.models import find_face_pack
from ..host.patch import apply
from ..identities.identity import Identity
from ..metrics.scores import cosine
from ..sheet import draw_sheet
from .data import Prepared
from .draws import Draw
from .settings import Pictures as Settings

FOLDER = "samples"
_SAMPLER, _SCHEDULER = "ddim", "ddim_uniform"
_LATENT = 8
"""Picture pixels along one side of a latent pixel."""


@dataclass(frozen=True)
class Person:
    """Who is drawn.

    Attributes:
        photo: the number of the identity's photo in the prepared data.
        picture: `(1, side, side, 3)`, that photo as the autoencoder keeps it, on white paper.
    """

    photo: int
    picture: Tensor


class Pictures:
    """Draws some people with a prompt each time it is asked to, always from the same noise."""

    def __init__(
        self, path: Path, prepared: Prepared, photos: Sequence[int], settings: Settings
    ) -> None:
        """Load the autoencoder, encode the prompt, and look for the face pack of the data.

        Args:
            path: the checkpoint.
            photos: numbers of the photos from which people are chosen, one of each.
        """
        _, clip, self._vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), output_model=False)
        if clip is None or self._vae is None:
            raise UserError(
                f"pictures.people is {settings.people}, and {path.name} holds no text encoder or "
                "no autoencoder: give a whole checkpoint with --model, or set it to 0."
            )
        with torch.no_grad():
            self._positive, self._negative = (
                clip.encode_from_tokens_scheduled(clip.tokenize(text))
                for text in (settings.prompt, "")
            )
        self._prepared, self._settings = prepared, settings
        first = {prepared.photos[n].person: n for n in reversed(photos)}
        chosen = sorted(first.values())[: settings.people]
        self._people = [Person(n, self._decode(n)) for n in chosen]
        self._analysis = _find_analysis(prepared)
        self._patcher: ModelPatcher | None = None

    @torch.inference_mode()
    def draw(self, model: BaseModel, adapter: Adapter, step: int, run: Path) -> Mapping[str, float]:
        """Draw the people, write `samples/step-<step>.jpg`, and measure the likeness.

        Args:
            model: on its device; it is sampled as it is.
            adapter: on the CPU.

        Returns:
            `{"likeness": mean cosine, "faces": share of the pictures in which a face was found}`;
            empty if the data's face pack is not there.
        """
        if self._patcher is None:  # kept: the host takes a model without its patcher for a leak
            device = next(model.diffusion_model.parameters()).device
            self._patcher = ModelPatcher(model, load_device=device, offload_device=device)
        drawn = [self._draw(self._patcher, adapter, person) for person in self._people]
        rows = [torch.cat([person.picture for person in self._people]), torch.cat(drawn)]
        title = f"step {step}: {self._settings.prompt}"
        sheet = draw_sheet(rows, [], ["photo", "drawn"], title, len(drawn), 0, 8, 16)
        image = Image.fromarray((sheet[0] * 255).round().byte().numpy())
        write_whole(run / FOLDER / f"step-{step:08d}.jpg", lambda p: image.save(p, "JPEG"))
        return self._judge(drawn) if self._analysis is not None else {}

    def _draw(self, patcher: ModelPatcher, adapter: Adapter, person: Person) -> Tensor:
        batch = self._prepared.load([Draw(person.photo, person.photo, False, False, 0, 0)])
        identity = Identity(
            tokens=encode(adapter, batch.face, batch.clip),
            unconditional=encode(adapter, torch.zeros_like(batch.face), self._prepared.nothing),
            adapter=adapter,
        )
        side = self._prepared.size // _LATENT
        latent = torch.zeros(1, batch.latents.shape[1], side, side)
        samples = comfy.sample.sample(
            apply(patcher, Application(identity)),
            comfy.sample.prepare_noise(latent, 0),
            self._settings.steps,
            self._settings.guidance,
            _SAMPLER,
            _SCHEDULER,
            self._positive,
            self._negative,
            latent,
            disable_pbar=True,
            seed=0,
        )
        decoded: Tensor = self._vae.decode(samples)
        return decoded.clamp(0, 1).cpu()

    @torch.no_grad()
    def _decode(self, photo: int) -> Tensor:
        batch = self._prepared.load([Draw(photo, photo, False, False, 0, 0)])
        decoded: Tensor = self._vae.decode(batch.latents)
        return _fit(decoded.clamp(0, 1).cpu(), self._prepared.size)

    def _judge(self, drawn: Sequence[Tensor]) -> Mapping[str, float]:
        found = []
        for person, picture in zip(self._people, drawn, strict=True):
            faces = detect(self._analysis, read_photo(picture[0]))
            own = self._prepared.load([Draw(person.photo, person.photo, False, False, 0, 0)]).face
            if faces:
                found.append(cosine(np.asarray(own[0]), faces[0].embedding))
        share = len(found) / len(drawn)
        return {"faces": share, **({"likeness": float(np.mean(found))} if found else {})}


def _fit(picture: Tensor, side: int) -> Tensor:
    """Scale a picture `(1, h, w, 3)` into the middle of a white square."""
    height, width = picture.shape[1:3]
    scale = side / max(height, width)
    small = interpolate(
        rearrange(picture, "b h w c -> b c h w"),
        (round(height * scale), round(width * scale)),
        mode="area",
    )
    down, across = (side - length for length in small.shape[2:])
    margins = (across // 2, across - across // 2, down // 2, down - down // 2)
    return rearrange(pad(small, margins, value=1.0), "b c h w -> b h w c")


def _find_analysis(prepared: Prepared) -> Any:
    """The face analysis that the data were prepared with; None if it is not there."""
    try:
        pack = find_face_pack(prepared.settings["models"]["face"]["name"])
        return load_analysis(pack, "auto", 640)
    except (KeyError, UserError, FaceError):
        return None
