"""*Learn Staged Identity*: puts the parts together with ComfyUI's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ..files import digest_of
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
from ..words.draw import draw
from ..words.files import Origin
from ..words.host_faces import Nets, Square, cut_square
from ..words.host_frozen import check_model
from ..words.host_likeness import Likeness, see_held_out
from ..words.host_run import Learnt, make_settings, run
from ..words.host_text import Prompts, digest_tables, find_row, list_encoders, make_differentiable
from ..words.masks import MaskError, check_mask, shrink_mask
from ..words.material import Material
from .data import Target, Targets
from .host_frozen import StagedFrozen, Texts
from .host_prompt import PlaceError
from .learner import StagedLearner
from .network import new_network
from .objective import LAMBDA
from .staged_file import Staged
from .stages import Words, find_stage

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
        masked: whether only face and hair are learnt; the paper learns all of the picture.
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
    masked: bool = False

    def describe(self) -> dict[str, Any]:
        """Return the settings that determine the words, except the number of steps."""
        return {name: x for name, x in vars(self).items() if name not in ("steps", "twice")}


@dataclass(frozen=True)
class Result:
    """What was learnt.

    Attributes:
        squares: what was learnt from.
    """

    staged: Staged
    squares: list[Square]
    run: Learnt

    @property
    def lines(self) -> list[str]:
        """What was seen of each photo, in words."""
        return [square.line for square in self.squares]

    @property
    def told(self) -> str:
        """What was done, in words."""
        return self.run.describe(len(self.squares))


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
        nets: to cut out upright faces, else middle squares; and to compare faces.
    """

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    nets: Nets
    material: Material
    wishes: Wishes


def describe(lesson: Lesson) -> dict[str, Any]:
    """Return everything that determines the result, except the number of steps.

    Raises:
        ClipError: if no words can be learnt for the model, or not with this CLIP or class word.
        FaceError: if a photo is held out, and no net compares faces.
        MaskError: if masks are given that would not be used.
        UserError: if there is no autoencoder.
    """
    clip, nets, material, wishes = lesson.clip, lesson.nets, lesson.material, lesson.wishes
    check_model(lesson.model, clip)
    check_vae(lesson.vae)
    are_given = nets.parser or any(masks.are_given for masks in material.masks)
    if are_given and not wishes.masked:
        raise MaskError(
            "A mask or a face parser is given, and 'masked' is off, so that all of the picture "
            "would be learnt. Switch 'masked' on, or give neither."
        )
    for key in list_encoders(clip):
        find_row(clip, key, wishes.noun)
    return {
        "model": digest_model(lesson.model),
        "tables": digest_tables(clip),
        "text": digest_text(clip),
        "vae": digest_autoencoder(lesson.vae),
        **material.describe(),
        **nets.describe(),
        "face_encoder": "" if material.held_out is None else nets.encoder,
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
        FaceError, MaskError: if photos or masks do not fit; the message says what to do.
        UserError: if the loss is not finite, or the disk is full.
    """
    model, clip, nets, wishes = lesson.model, lesson.clip, lesson.nets, lesson.wishes
    material = lesson.material
    squares = [
        cut_square(nets, name, photo, masks, wishes.side, wishes.masked)
        for (name, photo), masks in zip(material.photos.items(), material.masks, strict=True)
    ]
    held_out = material.held_out
    wanted = None if held_out is None else see_held_out(nets, held_out, wishes.side)
    targets = _encode(lesson, squares, tell)
    rows = {key: find_row(clip, key, wishes.noun).cpu() for key in list_encoders(clip)}
    out = runs / f"staged-{digest_of(origin)[:16]}"
    settings = make_settings(
        wishes.steps, wishes.rate, wishes.seed, wishes.twice, wanted is not None
    )
    with training():
        patcher, text = load_with_text(model, clip)
        network = new_network(rows, wishes.stages, wishes.split, wishes.seed)
        make_differentiable(text, wishes.twice)
        texts = Texts(
            wishes.prompt.replace(PERSON, "{}"), wishes.prompt.replace(PERSON, wishes.noun)
        )
        frozen = StagedFrozen(patcher.model, Prompts(text), texts, wishes.side, wishes.twice)
        likeness = (
            None
            if wanted is None
            else Likeness(
                partial(_draw, frozen, targets.shape),
                network,
                [patcher, text.patcher],
                lesson.vae,
                nets,
                wanted,
                wishes.side,
            )
        )
        times = len(frozen.alphas_cumprod)
        learner = StagedLearner(network, frozen, wishes.attention)
        looks = None if likeness is None else likeness.look
        done = run(out, settings, learner, targets, times, origin, patcher, looks, follow)
        words = detach(network.cpu()())
    told = Origin(digest_of(origin), digest_tables(clip), {**origin, "steps": done.step})
    return Result(Staged(words, told), squares, done)


def _draw(frozen: StagedFrozen, shape: tuple[int, int, int], words: Words, number: int) -> Tensor:
    """Draw the person by the training prompt."""
    count = len(frozen.alphas_cumprod)

    def predict(z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        stage = find_stage(Fraction(int(time), count), words.stages)
        with_person, _ = frozen.predict_staged(z, time, words, [stage], compares=False)
        return with_person, frozen.predict(z, time, None, [""])

    return draw(predict, frozen.alphas_cumprod, frozen.prediction, shape, number)


def _encode(lesson: Lesson, squares: Sequence[Square], tell: Tell) -> Targets:
    """Encode the pictures and their mirror images as latents, with their masks."""
    targets = []
    with torch.inference_mode():
        for done, (name, square) in enumerate(
            zip(lesson.material.photos, squares, strict=True), start=1
        ):
            throw_exception_if_processing_interrupted()
            latents = torch.stack(
                [
                    encode_picture(lesson.vae, one.permute(1, 2, 0)[None], lesson.model)
                    for one in (square.picture, square.picture.flip(-1))
                ]
            )
            size = latents.shape[-2], latents.shape[-1]
            check_mask(square.masks.face, size, name)
            face, hair = (
                torch.stack([shrink_mask(mask, size), shrink_mask(mask.flip(-1), size)])
                for mask in (square.masks.face, square.masks.hair)
            )
            targets.append(Target(name, latents, face, hair))
            tell(done, len(squares))
    return Targets(targets)


def detach(words: Words) -> Words:
    """Return the words without their gradients."""
    keys, values = (
        {key: x.detach().clone() for key, x in side.items()} for side in (words.keys, words.values)
    )
    return Words(keys, values)
