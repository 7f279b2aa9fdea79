"""Stages `features`, `adapter` and `adapter_with_text`: Infinite-ID, by the pack's own training.

`features` stores the outputs of the face net and the CLIP encoder for every picture. `adapter` is
the paper's identity-enhanced training: another picture of the person is the input, without text.
`adapter_with_text` is the paper's comparison: the same weights, learnt beside the text's attention.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby, permutations
from pathlib import Path

import comfy.model_base
import comfy.sd
import numpy as np
import torch
from torch import Tensor

from ...infinite_id.adapters.formats import save
from ...infinite_id.adapters.mappers import MapperConfig
from ...infinite_id.host.training import make_predict
from ...infinite_id.training.initialise import new_adapter
from ...infinite_id.training.step import Pairs, drop_identity, identity_loss
from .. import nets
from ..host import register
from ..shapes import CONTEXT_WIDTH, TEXT_G, clip_vision_config
from ..text import MiniatureClipModel
from ..world.canvas import SIDE
from ..world.scene import draw_scene
from . import clip_vision, recogniser, text, workers
from .pictures import PER_PERSON, Pictures, captions, chunk_paths, load, numbers_in
from .run import Run, generator
from .unet import CHECKPOINT

CHUNKS = 24
BATCH = 32
NO_IDENTITY = 0.1
CLIP_WIDTH = clip_vision_config()["hidden_size"]
MAPPER = MapperConfig(
    face_hidden=256, clip_width=CLIP_WIDTH, clip_hidden=128, token_width=CONTEXT_WIDTH
)


@torch.inference_mode()
def extract(folder: Path, _: int) -> None:
    """Writes face vectors `(1024, 512)` and CLIP states `(1024, 257, 64)` of the first chunks."""
    device = workers.device()
    face, clip = recogniser.trained(folder), clip_vision.trained(folder).to(device)
    everything = load(folder / "pictures")
    (folder / "features").mkdir(exist_ok=True)
    for chunk in workers.share(chunk_paths(folder / "pictures")[:CHUNKS]):
        path = folder / "features" / chunk.name
        if path.exists():
            continue
        own, rng = numbers_in(chunk), np.random.default_rng(10)
        missed = rng.normal(0, recogniser.JITTER, (len(own), 5, 2))
        hidden = [
            clip(clip_vision.as_input(everything, own[n : n + 32], rng).to(device))[0].half().cpu()
            for n in range(0, len(own), 32)
        ]
        partial_path = path.with_suffix(".partial.npz")
        np.savez(
            partial_path,
            face=recogniser.embed(face, everything.pixels[own], everything.landmarks[own] + missed)
            .half()
            .numpy(),
            clip=torch.cat(hidden).numpy(),
        )
        partial_path.rename(path)


@torch.inference_mode()
def see_nothing(folder: Path) -> Tensor:
    """Return CLIP states of the picture that is zero in normalised pixels, `(1, 257, 64)`."""
    nothing = torch.zeros(1, 3, clip_vision.SIDE, clip_vision.SIDE)
    return clip_vision.trained(folder)(nothing)[0].to(workers.device())


class Lessons:
    """Pairs of photos of one person: the latents of one, the features of another.

    As in the paper, all are of the photo style: other styles are left to the text.
    """

    def __init__(self, folder: Path) -> None:
        paths = chunk_paths(folder / "features")
        features = [np.load(path) for path in paths]
        targets = [np.load(folder / "latents" / path.name) for path in paths]
        self.face, self.clip = (
            torch.from_numpy(np.concatenate([part[name] for part in features]))
            for name in ("face", "clip")
        )
        self.latents = torch.from_numpy(np.concatenate([part["latents"] for part in targets]))
        pictures = load(folder / "pictures", len(self.face))
        self.prompts = text.Prompts(captions(pictures))
        self.pairs = torch.tensor(_pair_up(pictures))

    def draw(self, random: torch.Generator, count: int) -> tuple[Tensor, Pairs]:
        """Return the targets' numbers, and the pairs."""
        chosen = torch.randint(len(self.pairs), (count,), generator=random)
        target, source = self.pairs[chosen].unbind(1)
        parts = (self.latents[target], self.face[source], self.clip[source])
        return target, Pairs(*(x.to(workers.device()).float() for x in parts))


def _pair_up(pictures: Pictures) -> list[tuple[int, int]]:
    """List all ordered pairs of photos of the same person, by the pictures' numbers."""
    scenes = [draw_scene(seed) for seed in pictures.scenes.tolist()]
    photos = [n for n, scene in enumerate(scenes) if scene.style == "photo"]
    people = groupby(photos, lambda n: n // PER_PERSON)
    return [pair for _, own in people for pair in permutations(own, 2)]


def train(folder: Path, samples: int, with_text: bool = False) -> None:
    name = "adapter_with_text" if with_text else "adapter"
    model, clip = load_base(folder)
    adapter = new_adapter(model.diffusion_model, MAPPER)
    run = Run(folder, name, adapter, lr=1e-3, decay=0.999, batch=BATCH)
    lessons, nothing = Lessons(folder), see_nothing(folder)
    alphas = 1 / (1 + model.model_sampling.sigmas.square())
    sizes = text.embed_sizes(SIDE)
    y = torch.cat([torch.zeros(TEXT_G.width, device=sizes.device), sizes])[None]

    def loss_of(step: int) -> Tensor:
        random = generator(step)
        target, pairs = lessons.draw(random, run.batch)
        pairs = drop_identity(pairs, nothing, NO_IDENTITY, random)
        with nets.half_precision():
            predict = make_predict(model, y)
            if with_text:
                with torch.no_grad():
                    context, vector = lessons.prompts.encode(clip, target, SIDE)
                predict = make_predict(model, vector, context)
            return identity_loss(adapter, predict, pairs, alphas, random)

    run.train(samples, loss_of)
    if workers.number() == 0:
        adapter.load_state_dict(run.averaged())
        save(adapter.cpu(), folder / f"miniature-{name}.safetensors")


train_with_text = partial(train, with_text=True)


def load_base(folder: Path) -> tuple[comfy.model_base.BaseModel, MiniatureClipModel]:
    """Load the diffusion model and the text encoders, frozen, in single precision."""
    register()
    path = str(folder / CHECKPOINT)
    patcher, clip, _, _ = comfy.sd.load_checkpoint_guess_config(path, output_vae=False)
    device = workers.device()
    model, encoders = patcher.model.float().to(device), clip.cond_stage_model.float().to(device)
    for net in (model, encoders):
        net.requires_grad_(False)
    model.diffusion_model.dtype, model.manual_cast_dtype = torch.float32, None
    return model, encoders
