"""*Learn Identity Embedding*: puts the parts together with ComfyUI's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ..faces.face import FaceError
from ..files import digest_of
from ..training.checkpoints import load_newest
from ..training.host_follow import Follow, Tell
from ..training.host_load import (
    check_vae,
    digest_autoencoder,
    digest_model,
    digest_text,
    encode_picture,
    load_with_text,
    training,
)
from ..training.settings import Settings
from ..words.draw import draw
from ..words.files import Rows
from ..words.host_faces import Nets
from ..words.host_frozen import HostFrozen, check_model
from ..words.host_likeness import Likeness, see_held_out
from ..words.host_run import Learnt, make_settings, run
from ..words.host_text import Prompts, digest_tables, make_differentiable
from ..words.masks import check_mask
from ..words.material import Material
from .celebs import Name
from .data import Portrait, Targets, list_needed, make_target, make_variant
from .host_mapper import average, check_start, make_mapper, make_words
from .host_names import measure_names
from .host_portraits import look
from .learner import WordLearner
from .mapper import Landing
from .mapper_file import Learned
from .objective import Phases
from .word_file import Words

SHOWN = "a photo of {}, facing the camera, best quality"
"""The prompt of pictures whose likeness is measured."""


@dataclass(frozen=True)
class Wishes:
    """The user's settings.

    Attributes:
        side: of the headshot in pixels.
        twice: compute activations twice, for less memory.
        names: of the celeb space.
        masked: whether only face and hair are learnt.
    """

    steps: int
    rate: float
    seed: int
    side: int
    names: Sequence[Name]
    twice: bool = True
    landing: Landing = Landing.JOINT
    phases: Phases = Phases.BOTH
    masked: bool = True

    def settings(self, looks: bool) -> Settings:
        """Return the trainer's settings; `looks` says whether a photo is held out."""
        return make_settings(self.steps, self.rate, self.seed, self.twice, looks)


@dataclass(frozen=True)
class Lesson:
    """All inputs of a run: the host's models, the nets, and what the user gave.

    Attributes:
        start: a mapper to begin with.
    """

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    nets: Nets
    material: Material
    wishes: Wishes
    start: Learned | None = None


@dataclass(frozen=True)
class Result:
    """What was learnt.

    Attributes:
        portraits: what was learnt from.
        lines: what was seen of each photo, in words.
    """

    words: Words
    learned: Learned
    portraits: list[Portrait]
    lines: list[str]
    run: Learnt

    @property
    def told(self) -> str:
        """What was done, in words."""
        if not self.run.step:
            return "no training, by the mapper that was there"
        return self.run.describe(len(self.portraits))


def describe(lesson: Lesson) -> dict[str, Any]:
    """Return everything that determines the result, except the number of steps.

    Raises:
        ClipError: if words cannot be learnt for the model, or not with this CLIP.
        FaceError: if the mapper does not fit, or there is nothing to learn.
        UserError: if there is no autoencoder.
    """
    nets, material, wishes, start = lesson.nets, lesson.material, lesson.wishes, lesson.start
    check_model(lesson.model, lesson.clip)
    check_vae(lesson.vae)
    if start is not None:
        check_start(start, lesson.clip, nets)
    elif not wishes.steps:
        raise FaceError(
            "With steps 0 nothing is learnt: choose a person who was learnt before in "
            "'go_on_from', or give steps."
        )
    return {
        **material.describe(),
        "model": digest_model(lesson.model),
        "tables": digest_tables(lesson.clip),
        "text": digest_text(lesson.clip),
        "vae": digest_autoencoder(lesson.vae),
        "face_encoder": nets.encoder,
        **nets.describe(),
        "names": digest_of(list(wishes.names)),
        "settings": {
            "rate": wishes.rate,
            "seed": wishes.seed,
            "side": wishes.side,
            "landing": wishes.landing.value,
            "phases": wishes.phases.value,
            "masked": wishes.masked,
        },
        "start": None if start is None else start.digest(),
    }


def learn(
    lesson: Lesson,
    origin: Mapping[str, Any],
    runs: Path,
    tell: Tell,
    follow: Follow,
) -> Result:
    """Learn the words of a person, or go on; without steps, make them by the mapper in `start`.

    Args:
        origin: from `describe`.
        runs: a folder for states; a run with the same inputs goes on where it was stopped.

    Raises:
        FaceError, MaskError, NamesError: if inputs do not fit; the message says what to do.
        UserError: if the loss is not finite, or the disk is full.
    """
    model, clip, vae, nets = lesson.model, lesson.clip, lesson.vae, lesson.nets
    material, wishes, start = lesson.material, lesson.wishes, lesson.start
    spaces = start.mapper.spaces() if start else measure_names(clip, wishes.names)
    portraits, lines = look(nets, material.photos, material.masks, wishes.side, wishes.masked)
    if start is not None and not wishes.steps:
        words = make_words(start, portraits, digest_of(origin), {**origin, "steps": 0})
        return Result(words, start, portraits, lines, Learnt([], 0, None, True))
    wanted = (
        None if material.held_out is None else see_held_out(nets, material.held_out, wishes.side)
    )
    out = runs / f"words-{digest_of(origin)[:16]}"
    settings = wishes.settings(looks=wanted is not None)
    newest = load_newest(out)
    targets = _encode(vae, model, portraits, newest.step if newest else 0, settings, tell)
    with training():
        patcher, text = load_with_text(model, clip)
        width = portraits[0].vectors.shape[-1]
        mapper = make_mapper(spaces, width, wishes.landing, wishes.seed, start)
        make_differentiable(text, wishes.twice)
        frozen = HostFrozen(patcher.model, Prompts(text), wishes.side, wishes.twice)
        likeness = (
            None
            if wanted is None
            else Likeness(
                partial(_draw, frozen, targets.shape),
                partial(mapper, average(portraits)[None].to(patcher.load_device)),
                [patcher, text.patcher],
                vae,
                nets,
                wanted,
                wishes.side,
            )
        )
        learner, times = WordLearner(mapper, frozen, wishes.phases), len(frozen.alphas_cumprod)
        looks = None if likeness is None else likeness.look
        done = run(out, settings, learner, targets, times, origin, patcher, looks, follow)
        learned = Learned(mapper.cpu(), digest_tables(clip), nets.encoder)
        words = make_words(learned, portraits, digest_of(origin), {**origin, "steps": done.step})
    return Result(words, learned, portraits, lines, done)


def _draw(frozen: HostFrozen, shape: tuple[int, int, int], rows: Rows, number: int) -> Tensor:
    def predict(z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        return frozen.predict(z, time, rows, [SHOWN]), frozen.predict(z, time, None, [""])

    return draw(predict, frozen.alphas_cumprod, frozen.prediction, shape, number)


def _encode(
    vae: VAE,
    model: ModelPatcher,
    portraits: Sequence[Portrait],
    begun: int,
    settings: Settings,
    tell: Tell,
) -> Targets:
    """Encode the augmented targets that a run needs, and the first photo as it is."""
    first = portraits[0]

    def encode(picture: Tensor) -> Tensor:
        return encode_picture(vae, picture.permute(1, 2, 0)[None], model)

    numbers = list_needed(begun, settings)
    variants = {}
    with torch.inference_mode():
        latents = encode(first.headshot)
        for portrait in portraits:
            size = (latents.shape[-2], latents.shape[-1])
            check_mask(portrait.masks.face, size, portrait.name)
        plain = make_variant(first, first.vectors[0], latents, first.masks.face, first.masks.hair)
        for done, number in enumerate(numbers, start=1):
            throw_exception_if_processing_interrupted()
            portrait, vector, picture, face, hair = make_target(
                portraits, number, settings.run.seed
            )
            variants[number] = make_variant(portrait, vector, encode(picture), face, hair)
            tell(done, len(numbers))
    return Targets(variants, plain)
