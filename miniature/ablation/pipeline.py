"""Draws people in scenes with the pack's own encoder and patch, and the host's sampler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.clip_vision
import comfy.sample
import comfy.sd
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from numpy.typing import NDArray
from torch import Tensor

from ...infinite_id.adapters import formats
from ...infinite_id.adapters.adapter import Adapter
from ...infinite_id.application import Application
from ...infinite_id.faces.alignment import align
from ...infinite_id.faces.detection import detect
from ...infinite_id.faces.model_pack import load_analysis
from ...infinite_id.faces.photo import to_image
from ...infinite_id.host.encode import encode_identities
from ...infinite_id.host.patch import apply
from ...infinite_id.identities.identity import Identity, Source
from ..host import register
from ..shapes import WEIGHTS
from ..training.publish import ADAPTERS, NAME

STEPS, SAMPLER, SCHEDULER = 30, "ddim", "ddim_uniform"
SIDE = 16  # of a picture's latent
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The published miniature, loaded by the host's and the pack's own loaders."""

    model: ModelPatcher
    clip: Any
    vae: Any
    vision: Any
    analysis: Any
    adapters: dict[str, Adapter]
    steps: int = STEPS

    @classmethod
    def load(cls, kinds: Iterable[str] = ADAPTERS, steps: int = STEPS) -> Pipeline:
        register()
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(WEIGHTS / f"{NAME}.safetensors")
        )
        return cls(
            model=model,
            clip=clip,
            vae=vae,
            vision=comfy.clip_vision.load(str(WEIGHTS / f"{NAME}-clip-vision.safetensors")),
            analysis=load_analysis(WEIGHTS / "insightface" / "models" / "miniature", "CPU", 128),
            adapters={kind: formats.load(WEIGHTS / ADAPTERS[kind]) for kind in kinds},
            steps=steps,
        )

    def encode(self, photo: Pixels, adapter: str) -> Identity:
        """`(h, w, 3)` RGB -> identity, as Encode Identity makes it."""
        return self.encode_each([photo], adapter)[0]

    def encode_each(self, photos: Sequence[Pixels], adapter: str) -> list[Identity]:
        """Photos `(h, w, 3)` RGB -> an identity of each."""
        chosen = self.adapters[adapter]
        size, crop = self.vision.image_size, chosen.config.mapper.recipe.crop
        bgr = [np.ascontiguousarray(photo[..., ::-1]) for photo in photos]
        faces = [detect(self.analysis, photo)[0] for photo in bgr]
        pairs = zip(bgr, faces, strict=True)
        crops = torch.cat([to_image(align(photo, face, size, crop)) for photo, face in pairs])
        sources = [Source("drawn", "") for _ in photos]
        return encode_identities(chosen, self.vision, faces, crops, sources)

    @torch.inference_mode()
    def draw(
        self,
        prompts: list[str],
        applications: list[Application],
        seed: int,
        cfg: float,
        across: int = 1,
    ) -> Pixels:
        """A picture for each prompt, `(n, 128, across * 128, 3)`; a sweep gives a row for each."""
        model = self.model
        for application in applications:
            model = apply(model, application)
        latent = torch.zeros(len(prompts), 4, SIDE, across * SIDE)
        samples = comfy.sample.sample(
            model,
            comfy.sample.prepare_noise(latent, seed),
            self.steps,
            cfg,
            SAMPLER,
            SCHEDULER,
            self._condition(prompts),
            self._condition([""]),
            latent,
            disable_pbar=True,
            seed=seed,
        )
        pictures = self.vae.decode(samples)
        return (pictures.clamp(0, 1) * 255).round().byte().numpy()

    def _condition(self, prompts: list[str]) -> list[list[Any]]:
        """Return one batch of conditioning, with a prompt for each latent."""
        encoded = [
            self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))[0] for text in prompts
        ]
        pooled: Tensor = torch.cat([extra["pooled_output"] for _, extra in encoded])
        return [[torch.cat([context for context, _ in encoded]), {"pooled_output": pooled}]]
