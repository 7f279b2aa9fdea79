"""Checkpoints: all that a run needs to go on as if it had not stopped, in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError
from ..files import read_metadata, write_tensors

FOLDER, BEST = "checkpoints", "best.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A stored state.

    Attributes:
        tensors: by name: `adapter.*`, `average.*`, `optimiser.*`, `buffer.*`.
        metadata: the step, and a description of the run.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]

    @property
    def step(self) -> int:
        return int(self.metadata["step"])

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix.`, by the rest of their names."""
        return {
            name.removeprefix(f"{prefix}."): x
            for name, x in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }


def path_of(run: Path, step: int) -> Path:
    return run / FOLDER / f"step-{step:08d}.safetensors"


def list_checkpoints(run: Path) -> list[Path]:
    """Rolling checkpoints, oldest first."""
    return sorted((run / FOLDER).glob("step-*.safetensors"))


def save(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint, and remove all but the newest `keep` of them.

    Raises:
        UserError: if it cannot be written; the earlier ones are there still.
    """
    path = path_of(run, checkpoint.step)
    write_tensors(path, checkpoint.tensors, checkpoint.metadata)
    for old in list_checkpoints(run)[:-keep]:
        old.unlink()
    return path


def save_best(run: Path, checkpoint: Checkpoint) -> None:
    """Write the state of the lowest validation loss; raises as `save`."""
    write_tensors(run / FOLDER / BEST, checkpoint.tensors, checkpoint.metadata)


def load_newest(run: Path) -> Checkpoint | None:
    """The newest checkpoint of a run; None if it has none yet.

    Raises:
        UserError: if the file is damaged; the message says what to do.
    """
    paths = list_checkpoints(run)
    return load(paths[-1]) if paths else None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises UserError if it is damaged or none."""
    try:
        metadata = read_metadata(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Checkpoint(tensors, {"step": int(metadata["step"]), **metadata})
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is damaged or no checkpoint ({error}). Remove it: the run goes on from the "
            "one before it, if there is one."
        ) from error


def check_same(own: Mapping[str, Any], stored: Mapping[str, Any], run: Path) -> None:
    """Check that a run goes on with what it began with.

    Args:
        own, stored: what a run must keep, by names for the user.

    Raises:
        UserError: naming the first thing that differs.
    """
    for name in own:
        if own[name] != stored.get(name):
            raise UserError(
                f"{run} was begun with another {name}: it was {_shorten(stored.get(name))}, and is "
                f"{_shorten(own[name])} now. Go on with the same, or choose another --out."
            )


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
