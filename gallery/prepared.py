"""Prepared photos of drawn people, for the workflow that trains. Runs inside the environment.

They are made by the trainer's own `prepare`, with the miniature's nets.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ..dev.cache import ROOT, build, fingerprint
from ..dev.comfyui import host_folder

WEIGHTS = ROOT / "miniature" / "weights"
NAME = "infinite-id-miniature"
PEOPLE, PHOTOS = 6, 4
FIRST = 1_000_100
"""The first person: nobody of them is in a picture that the miniature was trained on."""


def prepared_people() -> Path:
    """A folder as `prepare` makes it, written into the cache where it is missing."""
    rooms = (ROOT / "infinite_id" / room for room in ("photos", "training/prepare"))
    sources = sorted(path for room in rooms for path in room.glob("*.py"))
    name = f"people-{fingerprint(Path(__file__), *sources)}"
    return build(name, "Drawn people: preparing", _write) / "data"


def _write(folder: Path) -> None:
    """In a process of its own: the host looks at its command line when it is imported."""
    command = [sys.executable, "-m", "pack.gallery.prepared", str(host_folder()), str(folder)]
    subprocess.run(command, check=True, cwd=ROOT)


def main(host: Path, folder: Path) -> int:
    """Draw people into `folder/photos` and prepare them into `folder/data`."""
    from ..infinite_id import launch
    from ..infinite_id.training import command
    from ..miniature.faces import render, write_png
    from ..miniature.world.identity import draw_identity
    from ..miniature.world.scene import draw_scene

    for person in range(PEOPLE):
        own = folder / "photos" / f"person {person}"
        own.mkdir(parents=True)
        for n in range(PHOTOS):
            scene = draw_scene(300 + 17 * person + n, "photo")
            write_png(own / f"{n}.png", render(draw_identity(FIRST + person), scene).pixels)
    launch.use_host(launch.HostOptions(host, cpu=True))
    from ..miniature.host import register

    register()
    nets = {
        "--model": WEIGHTS / f"{NAME}.safetensors",
        "--clip-vision": WEIGHTS / f"{NAME}-clip-vision.safetensors",
        "--face-pack": WEIGHTS / "insightface" / "models" / "miniature",
    }
    fitting = {"--sizes": 128, "--min-face": 24, "--min-likeness": 0.2, "--detection-size": 256}
    options = [str(word) for pair in (nets | fitting).items() for word in pair]
    places = [str(folder / "photos"), "--out", str(folder / "data"), "--host", str(host), "--cpu"]
    return command.main(["prepare", *places, *options])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
