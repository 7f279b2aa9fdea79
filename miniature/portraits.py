"""Draws the README's picture: `python -m pack.miniature.portraits --host PATH`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..infinite_id import launch

PEOPLE = (1_000_010, 1_000_030, 1_000_001, 1_000_002)
PROMPTS = (
    "a photo of {}, smiling, wearing a red sweater, in the forest",
    "a photo of {}, serious, wearing a blue shirt, on the beach",
    "a watercolor painting of {}, smiling, wearing a green sweater, in the garden",
    "a comic book drawing of {}, laughing, wearing an orange jacket, in the city at night",
)
SEED, CFG = 5, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws held-out people by the miniature.")
    launch.add_host(parser)
    parser.add_argument("--out", type=Path, default=Path("docs/miniature.jpg"))
    options = parser.parse_args()
    launch.use_host(launch.HostOptions(options.host, cpu=True))
    _draw(options.out)


def _draw(path: Path) -> None:
    """Draw a row for each person: the photo, then each prompt without and with the person."""
    import numpy as np

    from ..infinite_id.application import Application
    from ..infinite_id.attention.mixed import Style
    from .ablation.pipeline import SIDE, Pipeline
    from .faces import render, write_png
    from .training.publish import OWN
    from .world.captions import noun
    from .world.identity import draw_identity
    from .world.scene import draw_scene

    pipeline, rows = Pipeline.load([OWN]), []
    for number in PEOPLE:
        who = draw_identity(number)
        photo = render(who, draw_scene(number, "photo")).resized(8 * SIDE).pixels
        identity = pipeline.encode(photo, OWN)
        shown = [photo]
        for prompt in PROMPTS:
            text = [prompt.format(noun(who))]
            style = Style.PHOTO if prompt.startswith("a photo") else Style.ADAIN_MEAN
            with_person = [Application(identity, style=style)]
            shown += [pipeline.draw(text, way, SEED, CFG)[0] for way in ([], with_person)]
        rows.append(np.hstack(shown))
    write_png(path, np.vstack(rows))


if __name__ == "__main__":
    main()
