"""Repeats the paper's ablations on the miniature, with people that no net has seen.

`python -m miniature.ablation --host PATH` writes `docs/ablation.md` and its contact sheet.

Every way is drawn from the same noise for the same people and prompts; nets that took no part in
the drawing say what is in a picture. Intervals are bootstrapped over people.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from .random_weights import use_host

PEOPLE = 60


def main() -> None:
    parser = argparse.ArgumentParser(description="Repeats the paper's ablations.")
    parser.add_argument("--host", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--out", type=Path, default=Path("docs/ablation.md"))
    options = parser.parse_args()
    use_host(options.host)
    from comfy.cli_args import args

    args.use_pytorch_cross_attention = True  # the host's choice for a CPU is slow
    from .experiment.report import write
    from .experiment.trial import run

    start = time.monotonic()
    results = run(options.people)
    write(options.out, results, minutes=(time.monotonic() - start) / 60)
    print(options.out)


if __name__ == "__main__":
    main()
