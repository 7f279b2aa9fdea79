"""Repeats the paper's ablations on the miniature, with people that no net has seen.

`python -m miniature.ablation` writes `docs/ablation.md` and its pictures.

Every variant draws the same people and prompts from the same noise. Nets that took no part in the
drawing say what a picture shows. Intervals are bootstrapped over people. With `--keep FOLDER`,
`python -m infinite_id.metrics score FOLDER/pictures.csv --face-pack PACK --out REPORT` reports the
same pictures one by one.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...infinite_id import launch

if TYPE_CHECKING:
    from .pool import Pool

PEOPLE, PICTURES = 40, 500


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m miniature.ablation", description="Repeats the paper's ablations."
    )
    launch.add_host(parser)
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="of the base model")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the pictures, to be scored"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/ablation.md"))
    parser.add_argument("--steps", type=int, default=30, help="of each sampling")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    launch.use_host(launch.HostOptions(options.host, cpu=True))
    from .pool import Pool

    start = time.monotonic()
    with Pool(options.host, options.processes, options.steps) as pool:
        _run(pool, options)
    print(f"{options.out}: {(time.monotonic() - start) / 60:.1f} minutes")


def _run(pool: Pool, options: argparse.Namespace) -> None:
    from . import curves, split, variants
    from .report import Results, write

    guidances = variants.score_guidances(pool, math.ceil(options.people / 4))
    cfg = max(guidances, key=lambda cfg: sum(guidances[cfg]))
    everybody = range(split.TEST, split.TEST + options.people)
    pairs = split.pair_up(math.ceil(options.people / 5))
    halves, side_by_side = curves.side_by_side(pool, pairs, cfg)
    results = Results(
        steps=options.steps,
        guidance=cfg,
        guidances=guidances,
        base=variants.score_base(pool, options.pictures, cfg),
        outcome=variants.score_all(pool, everybody, cfg, options.keep),
        by_weight=curves.by_weight(pool, everybody[: 2 * len(pairs)], cfg),
        blends=curves.blend(pool, pairs, cfg),
        halves=halves,
        side_by_side=side_by_side,
    )
    write(options.out, results)
