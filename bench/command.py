"""The command: chooses which parts are measured, and on what."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..dev.cache import ROOT
from ..dev.comfyui import host_folder
from ..infinite_id import launch
from .texts import PEER

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PARTS = ("count", "modes", "attention", "scaling", "nodes", "deviation")
IN_NAMES = ("model", "dtype", "size")  # a part with other ones of these is recorded separately
Options = argparse.Namespace


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    _set_up_host()
    torch.set_num_threads(options.threads)
    from .report import Record

    record = Record(options.to)
    for part in options.only:
        start = time.monotonic()
        found = _measure(part, options)
        about = {
            "command": _command(arguments),
            "machine": describe_machine(),
            "minutes": (time.monotonic() - start) / 60,
        }
        record.note(_name(part, found), found | {"about": about})
        page = record.write()
        print(f"{part}: {about['minutes']:.1f} minutes", flush=True)
    print(page)
    return 0


def _parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m dev bench")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--count", action="store_const", dest="only", const=("count",))
    parser.add_argument("--model", choices=("small", "sdxl"), default="small")
    parser.add_argument("--dtype", choices=DTYPES, help="of the model; else the quicker one")
    parser.add_argument("--size", type=int, default=512, help="in pixels")
    parser.add_argument("--streams", action="store_true", help="time no savings and no sweep")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--people", type=int, default=8, help="drawn for the deviation")
    parser.add_argument("--to", type=Path, default=ROOT / "docs")
    return parser.parse_args(arguments)


def _set_up_host() -> None:
    launch.use_host(launch.HostOptions(host_folder(), cpu=not torch.cuda.is_available()))
    import comfy.utils

    comfy.utils.set_progress_bar_enabled(False)


def _command(arguments: Sequence[str]) -> str:
    peer = [f"{PEER}=..."] if PEER in os.environ else []
    return " ".join([*peer, shlex.join(["python", "-m", "dev", "bench", *arguments])])


def _name(part: str, found: Mapping[str, Any]) -> str:
    return "-".join([part, *(str(found[key]) for key in IN_NAMES if key in found)])


def _measure(part: str, options: Options) -> dict[str, Any]:
    measure: dict[str, Callable[[Options], dict[str, Any]]] = {
        "count": _count,
        "modes": _time_modes,
        "attention": _time_attention,
        "scaling": _time_scaling,
        "nodes": _time_nodes,
        "deviation": _measure_deviation,
    }
    return measure[part](options)


def _count(_options: Options) -> dict[str, Any]:
    from .counting import SIZES, count_modes

    return count_modes(SIZES)


def _time_modes(options: Options) -> dict[str, Any]:
    from .models import make_subject
    from .modes import MODES, STREAMS
    from .parts import time_modes

    subject = make_subject(options.model, DTYPES.get(options.dtype))
    modes = STREAMS if options.streams else MODES
    return time_modes(subject, modes, options.size, options.repeats)


def _time_attention(options: Options) -> dict[str, Any]:
    from .floor import time_floor
    from .models import make_subject

    subject = make_subject(options.model, DTYPES.get(options.dtype))
    return time_floor(subject, options.size, options.repeats)


def _time_scaling(options: Options) -> dict[str, Any]:
    from .models import make_subject
    from .parts import time_scaling

    subject = make_subject(options.model, DTYPES.get(options.dtype))
    return time_scaling(subject, options.repeats)


def _time_nodes(options: Options) -> dict[str, Any]:
    from .through_nodes import time_nodes

    return time_nodes(options.repeats)


def _measure_deviation(options: Options) -> dict[str, Any]:
    from .deviation import measure

    return measure(options.people)


def describe_machine() -> str:
    import comfy.model_management
    import comfyui_version

    device = comfy.model_management.get_torch_device()
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return (
        f"{gpu}{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; "
        f"torch {torch.__version__}, ComfyUI {comfyui_version.__version__}, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
