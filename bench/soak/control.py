"""Writes a ControlNet with random weights for the miniature. Runs inside the environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ...dev.cache import ROOT
from ...dev.comfyui import host_folder

NAME = "soak-controlnet.safetensors"


def write_control(folder: Path) -> Path:
    """Write it in a separate process: the host reads its command line when it is imported."""
    command = [
        sys.executable,
        "-m",
        "pack.bench.soak.control",
        str(host_folder()),
        str(folder / NAME),
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    return folder / NAME


def main(host: Path, file: Path) -> None:
    from ...infinite_id import launch
    from ...miniature import random_weights

    launch.use_host(launch.HostOptions(host, cpu=True))
    import comfy.ops
    from comfy.cldm.cldm import ControlNet
    from safetensors.torch import save_file

    from ...miniature.shapes import UNETS

    config = UNETS["tiny"].config() | {"hint_channels": 3}
    del config["out_channels"]
    net = ControlNet(**config, operations=comfy.ops.disable_weight_init)
    save_file(random_weights.randomise(net, seed=0), file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
