"""*Learn Identity Embedding*: puts the parts together with ComfyUI's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ..faces.face import FaceError, Photo
from ..faces.photo import digest
from ..files import digest_of
from ..training.checkpoints import BEST, FOLDER, load, load_newest
from ..training.draws import time_of_preview
from ..training.host_load import (
    check_vae,
    digest_autoencoder,
    digest_model,
    digest_text,
    encode_picture,
    load_with_text,
    place,
    training,
)
from ..training.processes import Alone
from ..training.settings import Optimiser, Settings, short_run
from ..training.stats import read_losses
from ..training.trainee import Trainee
from ..words.host_follow import Follow, Tell
from ..words.host_frozen import HostFrozen, check_model
from ..words.host_text import Prompts, digest_tables, make_differentiable
from .celebs import Name
from .data import Portrait, Targets, Variant, list_needed, make_target, make_variant
from .early import LookingLoop
from .host_faces import GivenMasks, Nets, look
from .host_likeness import Likeness, see_held_out
from .host_mapper import average, check_start, make_mapper, make_words
from .host_names import measure_names
from .learner import WordLearner
from .mapper import Landing, Mapper
from .mapper_file import Learned
from .masks import check_mask
from .objective import Phases
from .word_file import Words

LOOK_EVERY = 50
"""Steps between measurements of the likeness to a held-out photo."""


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
        return Settings(
            optimiser=Optimiser(rate=self.rate, warm_up=0, average=0.0),
            run=short_run(self.steps, 1, self.seed, self.twice, LOOK_EVERY if looks else 0),
        )


@dataclass(frozen=True)
class Material:
    """The photos to learn from.

    Attributes:
        photos: of one person, by their names for the user.
        masks: one for each photo.
        held_out: a photo of the person that is not learnt from; its likeness ends the run.
    """

    photos: dict[str, Photo]
    masks: Sequence[GivenMasks]
    held_out: Photo | None = None


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
        likeness: the greatest likeness to the held-out photo, if there is one.
        whole: whether it was not interrupted.
    """

    words: Words
    learned: Learned
    losses: list[float]
    step: int
    portraits: list[Portrait]
    lines: list[str]
    likeness: float | None
    whole: bool

    @property
    def told(self) -> str:
        """What was done, in words."""
        if not self.step:
            return "no training, by the mapper that was there"
        text = f"{self.step} steps on {len(self.portraits)} photos"
        if self.losses:
            last = self.losses[-10:]
            text += f", mean loss of the last {len(last)} {sum(last) / len(last):.4f}"
        if self.likeness is not None:
            text += f"; the best of {len(self.losses)} steps, likeness {self.likeness:.3f}"
        return text


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
    held_out = material.held_out
    return {
        "model": digest_model(lesson.model),
        "tables": digest_tables(lesson.clip),
        "text": digest_text(lesson.clip),
        "vae": digest_autoencoder(lesson.vae),
        "photos": [digest(photo) for photo in material.photos.values()],
        "masks": [_digest_masks(masks) for masks in material.masks],
        "held_out": None if held_out is None else digest(held_out),
        "face_encoder": nets.encoder,
        "face_finder": nets.finder,
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


def _digest_masks(masks: GivenMasks) -> str:
    given = {name: x for name, x in vars(masks).items() if x is not None}
    return digest_of({name: sha256(x.tobytes()).hexdigest() for name, x in given.items()})


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
    looked = look(nets, material.photos, material.masks, wishes.side, wishes.masked)
    portraits = looked.portraits
    if start is not None and not wishes.steps:
        words = make_words(start, portraits, digest_of(origin), {**origin, "steps": 0})
        return Result(words, start, [], 0, portraits, looked.lines, None, True)
    wanted = (
        None if material.held_out is None else see_held_out(nets, material.held_out, wishes.side)
    )
    out = runs / f"words-{digest_of(origin)[:16]}"
    settings = wishes.settings(looks=wanted is not None)
    newest = load_newest(out)
    targets, plain = _encode(vae, model, portraits, newest.step if newest else 0, settings, tell)
    with training():
        patcher, text = load_with_text(model, clip)
        width = portraits[0].vectors.shape[-1]
        mapper = make_mapper(spaces, width, wishes.landing, wishes.seed, start)
        make_differentiable(text, wishes.twice)
        frozen = HostFrozen(patcher.model, Prompts(text), wishes.side, wishes.twice)
        learner = WordLearner(mapper, frozen, wishes.phases)
        processes = Alone(patcher.load_device)
        trainee = Trainee(learner, processes, settings.optimiser)
        times = len(frozen.alphas_cumprod)
        loop = LookingLoop(out, settings, trainee, targets, None, processes, times, origin)
        begun = loop.resume()
        shown = targets.show(time_of_preview(times)).to(processes.device)
        if wanted is not None:
            channels, height, width = plain.latents.shape
            shape = channels, height, width
            likeness = Likeness(frozen, patcher, vae, nets, wanted, shape, wishes.side)

            def take_look() -> float:
                rows = mapper(average(portraits)[None].to(processes.device))
                found = likeness.measure(rows)
                place([patcher, text.patcher])
                return found

            loop.look = take_look
        whole = True
        if trainee.step < wishes.steps and not loop.is_settled:
            whole = follow(loop, begun, patcher, lambda: learner.denoise(shown))
        if loop.best_step:
            _take_best(mapper, out)
        step = loop.best_step or trainee.step
        learned = Learned(mapper.cpu(), digest_tables(clip), nets.encoder)
        words = make_words(learned, portraits, digest_of(origin), {**origin, "steps": step})
    return Result(
        words,
        learned,
        read_losses(out) if trainee.step else [],
        step,
        portraits,
        looked.lines,
        loop.likeness if loop.best_step else None,
        whole,
    )


def _take_best(mapper: Mapper, out: Path) -> None:
    best = load(out / FOLDER / BEST).under("adapter")
    mapper.load_state_dict({**mapper.state_dict(), **best})


def _encode(
    vae: VAE,
    model: ModelPatcher,
    portraits: Sequence[Portrait],
    begun: int,
    settings: Settings,
    tell: Tell,
) -> tuple[Targets, Variant]:
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
    return Targets(variants, plain), plain
