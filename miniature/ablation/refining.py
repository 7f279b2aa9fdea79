"""Measures on the miniature what *Refine Identity* does to a person encoded from four photos.

`python -m miniature.refining` writes `docs/refining.md` and its picture.

The same people, prompts and noise are drawn with the identity as encoded and as refined. Nets that
took no part in the drawing score both. Intervals are bootstrapped over people.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ...infinite_id import launch

if TYPE_CHECKING:
    from .metrics import Metrics, Scores
    from .pipeline import Pipeline, Pixels
    from .pool import Pool

PEOPLE, PHOTOS, SHOWN = 40, 4, 4
STEPS, BATCH, RATE = 200, 2, 2e-3  # the node's defaults
ONE, ENCODED, REFINED = "encoded from one photo", "encoded from four photos", "refined on the four"
WAYS = (ONE, ENCODED, REFINED)


class Part(NamedTuple):
    """One person: the scores of each way, the photos, and each way's picture of every prompt."""

    scores: dict[str, Scores]
    photos: Pixels
    pictures: dict[str, Pixels]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m miniature.refining", description="Measures Refine Identity."
    )
    launch.add_host(parser)
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--steps", type=int, default=STEPS, help="of refining")
    parser.add_argument("--rate", type=float, default=RATE, help="of learning")
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=Path("docs/refining.md"))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    launch.use_host(launch.HostOptions(options.host, cpu=True))
    from .pipeline import STEPS as SAMPLING_STEPS
    from .pool import Pool

    start = time.monotonic()
    with Pool(options.host, options.processes, SAMPLING_STEPS) as pool:
        parts = _run(pool, options)
    _write(options, parts)
    print(f"{options.out}: {(time.monotonic() - start) / 60:.1f} minutes")


def _run(pool: Pool, options: argparse.Namespace) -> list[Part]:
    from . import split

    people = range(split.TEST, split.TEST + options.people)
    work = partial(_compare, steps=options.steps, rate=options.rate, cfg=options.guidance)
    return pool.map("refining", work, people)


@torch.inference_mode()  # as the host runs nodes
def _compare(
    pipeline: Pipeline, metrics: Metrics, number: int, steps: int, rate: float, cfg: float
) -> Part:
    """Draw and score one person in every way."""
    from ...infinite_id.application import Application
    from ...infinite_id.identities import mixing
    from ...infinite_id.training.host_follow import follow_signals
    from ...infinite_id.training.host_refine import make_settings, refine
    from ..training.publish import OWN
    from . import split

    photos = split.own_photos(number, PHOTOS)
    each = pipeline.encode_each(list(photos), OWN)
    stacked = mixing.stack(each)
    named = {str(n): photo for n, photo in enumerate(photos[..., ::-1].copy())}
    settings = make_settings(steps, BATCH, rate, number, False)
    with tempfile.TemporaryDirectory() as runs:
        refined, *_ = refine(
            pipeline.model,
            pipeline.vae,
            stacked,
            named,
            photos.shape[1],
            settings,
            Path(runs),
            follow_signals,
        )
    person, scenes = metrics.embed_person(number), split.photos(number)
    prompts = [split.prompt(number, scene) for scene in scenes]
    identities = dict(zip(WAYS, (each[0], stacked, refined), strict=True))
    pictures = {
        way: pipeline.draw(prompts, [Application(identity)], number, cfg)
        for way, identity in identities.items()
    }
    scores = {way: metrics.score(drawn, scenes, person) for way, drawn in pictures.items()}
    return Part(scores, photos, pictures)


def _write(options: argparse.Namespace, parts: list[Part]) -> None:
    """Write the table, and the first people's photos beside their pictures."""
    import numpy as np

    from . import plots
    from .metrics import FOLLOWING, LIKENESS
    from .report import interval, means
    from .variants import stack

    scores = {way: stack([part.scores[way] for part in parts]) for way in WAYS}
    rows = [
        f"| {way} | {interval(means(scores[way], LIKENESS))} | "
        f"{interval(means(scores[way], FOLLOWING))} |"
        for way in WAYS
    ]
    gains = [
        interval(means(scores[REFINED], m) - means(scores[ENCODED], m), signed=True)
        for m in (LIKENESS, FOLLOWING)
    ]
    shown = [
        np.hstack([*part.photos[:2], *part.pictures[ENCODED], *part.pictures[REFINED]])
        for part in parts[:SHOWN]
    ]
    folder = options.out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    plots.draw_rows(folder / "people.jpg", shown)
    prompts = len(parts[0].pictures[ENCODED])
    text = f"""# What refining an identity gains, on the miniature

Made by `python -m miniature.refining --host PATH --people {len(parts)}`: {len(parts)} \
people that no net was trained on, {prompts} prompts each, the same noise for every way, guidance \
{options.guidance:g}. *Refine Identity* learns for {options.steps} steps of {BATCH} photos at a \
rate of {options.rate:g}, on the same {PHOTOS} photos that were encoded. *Likeness* is the cosine \
to the person by a face net that took no part in training; *following* the share of place, \
clothes, colour and expression that another such net finds as asked. Means with 95 % intervals, \
bootstrapped over people; the difference is paired.

| identity | likeness | following |
|---|---|---|
{chr(10).join(rows)}
| refined - encoded from four | {gains[0]} | {gains[1]} |

The first {len(shown)} people: two of the photos, {prompts} pictures of the identity as encoded \
from four photos, the same {prompts} after refining.

![People](refining/people.jpg)
"""
    options.out.write_text(text, encoding="utf-8")
