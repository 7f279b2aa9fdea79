"""Finds ComfyUI and makes it importable, for commands that run outside the server.

The pack's folder has a `nodes/` of its own, and ComfyUI has a `nodes.py`. Python puts the folder
of the running program first on `sys.path`, so ComfyUI's own modules would import the wrong one.
Therefore `use_host` puts ComfyUI's folder first and the pack's last. Further processes find the
pack there. No other module has to know of this.

Nothing here needs torch or ComfyUI until `use_host` is called.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

PACK = Path(__file__).absolute().parent.parent  # not resolved: the pack may be linked into a host


class HostError(UserError):
    """There is no ComfyUI to work with; the message says what to do."""


def run(
    verb: Callable[[argparse.Namespace], int],
    options: argparse.Namespace,
    further: tuple[type[Exception], ...] = (),
) -> int:
    """Run a command's verb and return its exit code: 1 after an error, which is printed.

    Args:
        further: errors beside `UserError` whose messages are for the user.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # ComfyUI tells much
    errors: tuple[type[Exception], ...] = (UserError, *further)
    try:
        return verb(options)
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


@dataclass(frozen=True)
class HostOptions:
    """Which ComfyUI, and how it is to run.

    Attributes:
        folder: ComfyUI's; None to look for it.
        cpu: whether to leave a GPU alone.
        model_paths: further files like ComfyUI's own `extra_model_paths.yaml`.
    """

    folder: Path | None = None
    cpu: bool = False
    model_paths: tuple[Path, ...] = ()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `read_options` reads."""
    group = parser.add_argument_group("ComfyUI")
    add_host(group)
    group.add_argument("--cpu", action="store_true", help="use no GPU")
    group.add_argument(
        "--model-paths",
        type=Path,
        nargs="+",
        default=[],
        metavar="YAML",
        help="files in the form of extra_model_paths.yaml; the one in ComfyUI's folder is read "
        "anyway",
    )


def add_host(parser: argparse._ActionsContainer) -> None:
    """Add `--host` alone; None stands for looking for ComfyUI."""
    parser.add_argument(
        "--host",
        type=Path,
        metavar="FOLDER",
        help="ComfyUI's folder; default: the one whose custom_nodes this pack lies in, else "
        "COMFYUI_PATH, else the one that `python -m dev setup` fetched",
    )


def read_options(options: argparse.Namespace) -> HostOptions:
    return HostOptions(options.host, options.cpu, tuple(options.model_paths))


def find_host(given: Path | None = None) -> Path:
    """ComfyUI's folder.

    Args:
        given: the user's choice, which comes first.

    Raises:
        HostError: if there is none, or the chosen one is no ComfyUI.
    """
    for what, candidate in _candidates(given):
        folder = candidate.expanduser().resolve()
        if (folder / "main.py").is_file() and (folder / "comfy").is_dir():
            return folder
        if what:
            raise HostError(f"{what} {folder} is no ComfyUI: no main.py and comfy/ there.")
    raise HostError(
        "No ComfyUI was found. Give its folder with --host or in COMFYUI_PATH, put this pack into "
        "its custom_nodes, or run `python -m dev setup` in a clone of the repository."
    )


def _candidates(given: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield folders, best first. The text is not empty if the folder must be a ComfyUI."""
    if given is not None:
        yield "--host", given
    for pack in (PACK, PACK.resolve()):
        if pack.parent.name == "custom_nodes":
            yield "", pack.parent.parent
    if os.environ.get("COMFYUI_PATH"):
        yield "COMFYUI_PATH", Path(os.environ["COMFYUI_PATH"])
    for folder in sorted(cache_folder().glob("comfyui-*"), key=_version, reverse=True):
        yield "", folder


def cache_folder() -> Path:
    """`INFINITE_ID_CACHE`, or the folder that the operating system has for caches."""
    chosen = os.environ.get("INFINITE_ID_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ["LOCALAPPDATA"]) / "infinite-id"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "infinite-id"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infinite-id"


def _version(folder: Path) -> list[int]:
    return [int(part) for part in folder.name.partition("-")[2].split(".") if part.isdigit()]


def use_host(options: HostOptions) -> Path:
    """Make `comfy` and `folder_paths` importable, with the user's model folders.

    If there are several processes, each takes the GPU of its `LOCAL_RANK`.

    Raises:
        HostError: if no ComfyUI is found, or a file of model paths is missing.
    """
    folder = find_host(options.folder)
    packs = {PACK, PACK.resolve()}
    ours = [entry for entry in sys.path if Path(entry or ".").resolve() in packs]
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry not in ours), *ours]
    _choose_device(options.cpu)
    _add_model_paths(folder, options.model_paths)
    return folder


def _choose_device(cpu: bool) -> None:
    """Set the options that ComfyUI reads when it is first imported."""
    import torch
    from comfy.cli_args import args

    args.cpu = cpu or not torch.accelerator.is_available()
    args.use_pytorch_cross_attention = True  # the other kinds are slow on a CPU or give no gradient
    if not args.cpu and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _add_model_paths(folder: Path, further: tuple[Path, ...]) -> None:
    from utils.extra_config import load_extra_path_config

    own = folder / "extra_model_paths.yaml"
    for path in [*([own] if own.is_file() else []), *further]:
        if not path.is_file():
            raise HostError(f"--model-paths: there is no file {path}.")
        load_extra_path_config(str(path))
