"""*Learn Staged Identity*: puts the parts together with ComfyUI's models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ..faces.detection import describe_finder, detect
from ..faces.face import FaceError, Photo
from ..faces.headshot import cut_headshot, place_headshot, place_middle
from ..faces.photo import digest
from ..files import digest_of
from ..training.draws import time_of_preview
from ..training.host_load import (
    check_vae,
    digest_autoencoder,
    digest_model,
    digest_text,
    encode_picture,
    load_with_text,
    training,
)
from ..training.loop import Loop
from ..training.processes import Alone
from ..training.settings import Optimiser, Settings, short_run
from ..training.stats import read_losses
from ..training.trainee import Trainee
from ..words.files import Origin
from ..words.host_follow import Follow, Tell
from ..words.host_frozen import check_model
from ..words.host_text import Prompts, digest_tables, find_row, list_encoders, make_differentiable
from .data import Target, Targets
from .host_frozen import StagedFrozen, Texts
from .host_prompt import PlaceError
from .learner import StagedLearner
from .network import new_network
from .objective import LAMBDA
from .staged_file import Staged
from .stages import Words

PERSON = "V*"
"""The mark for the person in the training prompt."""
PROMPT, NOUN = "a photo of the face of V*", "person"
"""The published prompt and class word."""


@dataclass(frozen=True)
class Wishes:
    """The user's settings.

    Attributes:
        side: of the pictures in pixels.
        stages: how many; the paper has 5.
        split: whether keys and values have words of their own.
        attention: lambda of the attention loss.
        prompt: with `PERSON` for the person.
        noun: the class word; it initialises the words, and is in the reference prompt.
        twice: compute activations twice, for less memory.
    """

    steps: int
    rate: float
    seed: int
    side: int
    stages: int = 5
    split: bool = True
    attention: float = LAMBDA
    prompt: str = PROMPT
    noun: str = NOUN
    twice: bool = True

    def settings(self) -> Settings:
        return Settings(
            optimiser=Optimiser(rate=self.rate, warm_up=0, average=0.0),
            run=short_run(self.steps, 1, self.seed, self.twice),
        )

    def describe(self) -> dict[str, Any]:
        """Return the settings that determine the words, except the number of steps."""
        names = ("rate", "seed", "side", "stages", "split", "attention", "prompt", "noun")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Result:
    """What was learnt.

    Attributes:
        pictures: what was learnt from, each `(3, side, side)`.
        lines: what was seen of each photo, in words.
        whole: whether it was not interrupted.
    """

    staged: Staged
    losses: list[float]
    step: int
    pictures: list[Tensor]
    lines: list[str]
    whole: bool

    @property
    def told(self) -> str:
        """What was done, in words."""
        last = self.losses[-10:]
        return (
            f"{self.step} steps on {len(self.pictures)} photos, mean loss of the last "
            f"{len(last)} {sum(last) / max(1, len(last)):.4f}"
        )


def check_prompt(prompt: str) -> None:
    """Raises PlaceError if there is no place for the person, or something else in curly braces."""
    if PERSON not in prompt or {"{", "}"} & {*prompt}:
        raise PlaceError(
            f"Learn Staged Identity: the prompt must say '{PERSON}' for the person, such as "
            f"'{PROMPT}', and have no curly braces."
        )


@dataclass(frozen=True)
class Lesson:
    """All inputs of a run: the host's models, and what the user gave.

    Attributes:
        analysis: an InsightFace FaceAnalysis to cut out upright faces; None for middle squares.
        photos: of one person, by their names for the user.
    """

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    analysis: Any
    photos: Mapping[str, Photo]
    wishes: Wishes


def describe(lesson: Lesson) -> dict[str, Any]:
    """Return everything that determines the result, except the number of steps.

    Raises:
        ClipError: if no words can be learnt for the model, or not with this CLIP or class word.
        UserError: if there is no autoencoder.
    """
    clip, wishes = lesson.clip, lesson.wishes
    check_model(lesson.model, clip)
    check_vae(lesson.vae)
    for key in list_encoders(clip):
        find_row(clip, key, wishes.noun)
    return {
        "model": digest_model(lesson.model),
        "tables": digest_tables(clip),
        "text": digest_text(clip),
        "vae": digest_autoencoder(lesson.vae),
        "photos": [digest(photo) for photo in lesson.photos.values()],
        "face_finder": "" if lesson.analysis is None else describe_finder(lesson.analysis),
        "settings": wishes.describe(),
    }


def learn(
    lesson: Lesson, origin: Mapping[str, Any], runs: Path, tell: Tell, follow: Follow
) -> Result:
    """Learn the words of a person, or go on.

    Args:
        origin: from `describe`.
        runs: a folder for states; a run with the same inputs goes on where it was stopped.

    Raises:
        FaceError: if a face is looked for and not found.
        UserError: if the loss is not finite, or the disk is full.
    """
    clip, wishes = lesson.clip, lesson.wishes
    pictures, lines = cut_pictures(lesson.photos, lesson.analysis, wishes.side)
    targets = _encode(lesson, dict(zip(lesson.photos, pictures, strict=True)), tell)
    rows = {key: find_row(clip, key, wishes.noun).cpu() for key in list_encoders(clip)}
    out = runs / f"staged-{digest_of(origin)[:16]}"
    with training():
        patcher, text = load_with_text(lesson.model, clip)
        network = new_network(rows, wishes.stages, wishes.split, wishes.seed)
        make_differentiable(text, wishes.twice)
        texts = Texts(
            wishes.prompt.replace(PERSON, "{}"), wishes.prompt.replace(PERSON, wishes.noun)
        )
        frozen = StagedFrozen(patcher.model, Prompts(text), texts, wishes.side, wishes.twice)
        learner = StagedLearner(network, frozen, wishes.attention)
        processes, settings = Alone(patcher.load_device), wishes.settings()
        trainee = Trainee(learner, processes, settings.optimiser)
        times = len(frozen.alphas_cumprod)
        loop = Loop(out, settings, trainee, targets, None, processes, times, origin)
        begun = loop.resume()
        shown = targets.show(time_of_preview(times)).to(processes.device)
        whole = True
        if trainee.step < wishes.steps:
            whole = follow(loop, begun, patcher, lambda: learner.denoise(shown))
        words = detach(network.cpu()())
    told = Origin(digest_of(origin), digest_tables(clip), {**origin, "steps": trainee.step})
    losses = read_losses(out) if trainee.step else []
    return Result(Staged(words, told), losses, trainee.step, pictures, lines, whole)


def cut_pictures(
    photos: Mapping[str, Photo], analysis: Any, side: int
) -> tuple[list[Tensor], list[str]]:
    """Cut square pictures `(3, side, side)`, and say what was seen of each photo.

    Raises:
        FaceError: if a face is looked for and not found.
    """
    pictures, lines = [], []
    for name, photo in photos.items():
        matrix, seen = place_middle((photo.shape[0], photo.shape[1]), side), "its middle square"
        if analysis is not None:
            faces = detect(analysis, photo)
            if not faces:
                raise FaceError(
                    f"No face found in {name}. Use a photo in which the face is sharp and "
                    "uncovered, or leave 'face_analysis' unconnected: the middle of the photo is "
                    "learnt then."
                )
            matrix = place_headshot(faces[0].landmarks, side)
            seen = "one face" if len(faces) == 1 else f"the largest of {len(faces)} faces"
        pictures.append(cut_headshot(photo, matrix, side))
        lines.append(f"{name}: {seen}")
    return pictures, lines


def _encode(lesson: Lesson, pictures: Mapping[str, Tensor], tell: Tell) -> Targets:
    """Encode the pictures and their mirror images as latents."""
    targets = []
    with torch.inference_mode():
        for done, (name, picture) in enumerate(pictures.items(), start=1):
            throw_exception_if_processing_interrupted()
            both = [
                encode_picture(lesson.vae, one.permute(1, 2, 0)[None], lesson.model)
                for one in (picture, picture.flip(-1))
            ]
            targets.append(Target(name, torch.stack(both)))
            tell(done, len(pictures))
    return Targets(targets)


def detach(words: Words) -> Words:
    """Return the words without their gradients."""
    keys, values = (
        {key: x.detach().clone() for key, x in side.items()} for side in (words.keys, words.values)
    )
    return Words(keys, values)
