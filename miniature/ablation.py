"""Repeats the paper's ablations on the miniature, with people that no net has seen.

`python -m miniature.ablation --host PATH` writes `docs/ablation.md` and its pictures.

Every way is drawn from the same noise for the same people and prompts; nets that took no part in
the drawing say what is in a picture. Intervals are bootstrapped over people.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from .random_weights import use_host

PEOPLE, PICTURES = 60, 500


def main() -> None:
    parser = argparse.ArgumentParser(description="Repeats the paper's ablations.")
    parser.add_argument("--host", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="of the base model")
    parser.add_argument("--out", type=Path, default=Path("docs/ablation.md"))
    options = parser.parse_args()
    use_host(options.host)
    from comfy.cli_args import args

    args.use_pytorch_cross_attention = True  # the host's choice for a CPU is slow
    start = time.monotonic()
    _run(options.people, options.pictures, options.out)
    print(f"{options.out}: {(time.monotonic() - start) / 60:.1f} minutes")


def _run(people: int, pictures: int, out: Path) -> None:
    from .experiment import cast, curves, trial
    from .experiment.jury import Jury
    from .experiment.report import Results, write
    from .experiment.studio import Studio

    studio = Studio.open()
    jury = Jury.seat(studio.analysis)
    guidances = trial.choose_guidance(studio, jury, pictures // 10)
    cfg = max(guidances, key=guidances.__getitem__)
    print(f"guidance {cfg:g}", flush=True)
    everybody = range(cast.TRIAL, cast.TRIAL + people)
    pairs = cast.pair_up(math.ceil(people / 5))
    halves, side_by_side = curves.side_by_side(studio, jury, pairs, cfg)
    results = Results(
        guidance=cfg,
        guidances=guidances,
        base=trial.judge_base(studio, jury, pictures, cfg),
        trial=trial.try_all(studio, jury, everybody, cfg),
        by_weight=curves.by_weight(studio, jury, everybody[: 2 * len(pairs)], cfg),
        blends=curves.blend(studio, jury, pairs, cfg),
        halves=halves,
        side_by_side=side_by_side,
    )
    write(out, results)


if __name__ == "__main__":
    main()
