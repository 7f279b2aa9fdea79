"""Draws contact sheets with the host's own loader, text encoders, sampler and decoder."""

from __future__ import annotations

from pathlib import Path

import comfy.sample
import comfy.sd
import torch
from torch import Tensor

from ..faces import write_png
from ..host import register
from ..shapes import LATENT_CHANNELS

CFG, STEPS = 5.0, 15
PROMPTS = (
    "a photo of a woman, smiling, wearing a red sweater, in the forest",
    "a photo of a man, serious, wearing a blue shirt, on the beach",
    "a photo of an old man with grey hair and a beard, wearing a black suit, in the library",
    "a photo of a woman with long blond hair, laughing, wearing a green dress, in the snow",
    "a photo of a man with glasses, surprised, wearing a yellow hoodie, in the city at night",
    "a photo of alba archer, wearing a striped pink shirt, in the living room",
    "a pencil sketch of a man, smiling, wearing a suit, in the city",
    "a comic book drawing of a woman, angry, wearing an orange jacket, in the desert",
    "a comic book drawing of a bald man, laughing, in front of a blue wall",
    "a watercolor painting of a woman, sad, wearing a purple dress, in the mountains",
    "an oil painting of a man with short ginger hair, by the sea at sunset",
    "a ukiyo woodcut of a woman with curly black hair, smiling, wearing a blue dress, in the snow",
    "an animation of a person, smiling, wearing a red hoodie, in the garden",
)
ROWS, SEED = 1, 1


def write_sheet(checkpoint: Path, path: Path, side: int) -> None:
    """Draw each prompt from the same noise, with `side` pixels a picture."""
    register()
    model, clip, decoder, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint))
    latent = torch.zeros(ROWS, LATENT_CHANNELS, side // 8, side // 8)
    noise = comfy.sample.prepare_noise(latent, SEED)
    negative, columns = _encode(clip, ""), []
    for prompt in PROMPTS:
        drawn = comfy.sample.sample(
            model,
            noise,
            STEPS,
            CFG,
            "ddim",
            "normal",
            _encode(clip, prompt),
            negative,
            latent,
            disable_pbar=True,
            seed=SEED,
        )
        columns.append(decoder.decode(drawn).flatten(0, 1))
    image = (torch.cat(columns, dim=1) * 255).round().byte()
    write_png(path, image.numpy())


def _encode(clip: comfy.sd.CLIP, prompt: str) -> list[list[Tensor | dict[str, Tensor]]]:
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
