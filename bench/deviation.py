"""Measures how the savings change the trained miniature's pictures, and what they save.

The cost is SDXL's at 512 px: each forward of the sampler is noted, and counted with its cost at
true size.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from comfy.samplers import calculate_sigmas
from numpy.typing import NDArray
from torch.nn import Module

from ..infinite_id.application import Application
from ..infinite_id.attention.mixed import Mixing
from ..infinite_id.faces.detection import detect
from ..infinite_id.host.keys import EVALUATION
from ..infinite_id.host.patch import save_time
from ..infinite_id.host.text_stream import TextRows
from ..infinite_id.identities.identity import Identity
from ..infinite_id.metrics.scores import direction
from ..infinite_id.savings import Savings
from ..miniature.ablation import split
from ..miniature.ablation.pipeline import SCHEDULER, Pipeline, Pixels
from ..miniature.training.publish import OWN
from .limit import UNet, Work, count_limit
from .modes import FAITHFUL, NEGATIVE, POSITIVE, Evaluation
from .true_size import CONFIG

Vector = NDArray[np.float32]

UNET, WORK = UNet.of(CONFIG), Work(64, 64)
NO_SAVINGS = Savings()
SAVINGS: dict[str, Savings] = {
    "mixed up to 75 %": Savings(until=0.75),
    "mixed up to 50 %": Savings(until=0.5),
    "mixed up to 25 %": Savings(until=0.25),
    "text every 2nd step": Savings(every=2),
    "text every 3rd step": Savings(every=3),
    "text every 4th step": Savings(every=4),
    "text on positive rows": Savings(guided=False),
    "every 2nd, up to 50 %": Savings(every=2, until=0.5),
    "shared latents": Savings(shared=True),
    "deep every 2nd step": Savings(deep=2),
    "deep every 3rd step": Savings(deep=3),
    "deep and text every 2nd": Savings(every=2, deep=2),
}
NOTHING = "never mixed"


def measure(people: int) -> dict[str, Any]:
    """Return each saving's cost in plain samplings, and RMSE and likeness against no saving."""
    pipeline = Pipeline.load((OWN,))
    faithful = _Variant(pipeline)
    ways = {name: _Variant(pipeline, savings) for name, savings in SAVINGS.items()}
    ways[NOTHING] = _Variant(pipeline, mixing=Mixing.OFF)
    pictures = 0
    for number in range(split.TEST, split.TEST + people):
        photo = split.photo(number)
        identity, face = pipeline.encode(photo, OWN), _read_faces(pipeline, photo)[0]
        prompts = [split.prompt(number, scene) for scene in split.photos(number)]
        pictures += len(prompts)
        expected = faithful.draw(prompts, identity, number)
        for way in ways.values():
            way.judge(expected, way.draw(prompts, identity, number), face)
        print(f"person {number - split.TEST + 1} of {people}", flush=True)
    rows = [{"way": name} | way.summarise(people) for name, way in ways.items()]
    return {"pictures": pictures, "faithful": faithful.cost(people), "ways": rows}


class _Variant:
    """One setting of the savings, with the cost and the deviation of its pictures."""

    def __init__(
        self, pipeline: Pipeline, savings: Savings = NO_SAVINGS, mixing: Mixing = Mixing.MIXED
    ) -> None:
        model = save_time(pipeline.model, savings)
        self._pipeline, self._mixing = replace(pipeline, model=model), mixing
        self._evaluations: Counter[Evaluation] = Counter()
        self._errors: list[float] = []
        self._changes: list[float] = []

    def draw(self, prompts: list[str], identity: Identity, seed: int) -> Pixels:
        application = Application(identity, mixing=self._mixing)
        unet = self._pipeline.model.model.diffusion_model
        with unet.register_forward_pre_hook(self._count, with_kwargs=True):
            return self._pipeline.draw(prompts, [application], seed, cfg=5.0)

    def judge(self, expected: Pixels, found: Pixels, face: Vector) -> None:
        for a, b in zip(expected, found, strict=True):
            difference = (a.astype(np.float64) - b) / 255
            self._errors.append(float(np.sqrt((difference**2).mean())))
            before, after = (_read_faces(self._pipeline, picture) for picture in (a, b))
            if before and after:
                self._changes.append(float((after[0] - before[0]) @ face))

    def cost(self, samplings: int) -> float:
        """Return the FLOPs of a sampling at true size, relative to a plain one."""
        mode = replace(FAITHFUL, mixing=self._mixing)
        plain = count_limit(UNET, WORK, None, Evaluation((NEGATIVE, POSITIVE), has_text=False))
        found = sum(
            times * count_limit(UNET, WORK, mode, evaluation)
            for evaluation, times in self._evaluations.items()
        )
        sampling = self._pipeline.model.get_model_object("model_sampling")
        sigmas = calculate_sigmas(sampling, SCHEDULER, self._pipeline.steps)
        return found / (samplings * (len(sigmas) - 1) * plain)

    def summarise(self, samplings: int) -> dict[str, float]:
        return {
            "cost": self.cost(samplings),
            "rmse": float(np.mean(self._errors)),
            "likeness": float(np.mean(self._changes)),
            "spread": float(np.std(self._changes)),
            "faces": len(self._changes),
        }

    def _count(self, _: Module, __: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        """Note the kind of this forward, by a hook: beside a foreign wrapper nothing is saved."""
        options = inputs["transformer_options"]
        evaluation = options[EVALUATION]
        rows = evaluation.text_rows
        has_text = evaluation.streams.has_text or rows is TextRows.ADDED
        conds = tuple(options["cond_or_uncond"])
        is_shallow = evaluation.step is not None and not evaluation.step.is_full
        found = Evaluation(conds, has_text, rows, is_shallow=is_shallow)
        self._evaluations[found] += 1


def _read_faces(pipeline: Pipeline, picture: Pixels) -> list[Vector]:
    """Return the recogniser's features of each face, scaled to length 1; the largest face first."""
    faces = detect(pipeline.analysis, np.ascontiguousarray(picture[..., ::-1]))
    return [direction(face.embedding) for face in faces]
