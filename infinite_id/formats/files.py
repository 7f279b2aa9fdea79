"""Tensor files from strangers: what they hold is looked at before anything is read or believed."""

import pickle
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import FormatError

FLOATS = {torch.float32, torch.float16, torch.bfloat16}
_SAFETENSORS_FLOATS = {"F32", "F16", "BF16"}


@dataclass(frozen=True)
class TensorFile:
    """A file's tensors by name, memory-mapped where the format allows.

    `floats` tells for each tensor whether it is of a floating type that adapters come in.
    """

    path: Path
    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    floats: dict[str, bool]
    read: Callable[[str], Tensor]

    def check_floats(self) -> None:
        """Raises FormatError if a tensor is no float (a quantised or integer file)."""
        wrong = [name for name, is_float in self.floats.items() if not is_float]
        if wrong:
            raise FormatError(
                f"{self.path.name}: {len(wrong)} tensors are not float32, float16 or bfloat16, "
                f"first {wrong[0]}. Use the original, unquantised file."
            )


class open_tensors:  # noqa: N801  # used as a function: `with open_tensors(path) as file`
    """Open a `.safetensors`, or a PyTorch `.bin` without executing what it may hold.

    Raises:
        FormatError: if the file is damaged, incomplete, or wants code to be executed.
        FileNotFoundError: if there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()

    def __enter__(self) -> TensorFile:
        try:
            if self._path.suffix == ".safetensors":
                return self._open_safetensors()
            return _open_pickle(self._path)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        if isinstance(error, SafetensorError):
            raise _damaged(self._path, error) from error

    def _open_safetensors(self) -> TensorFile:
        file: Any = self._stack.enter_context(safe_open(self._path, framework="pt"))
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return TensorFile(
            path=self._path,
            metadata=file.metadata() or {},
            shapes={name: tuple(part.get_shape()) for name, part in slices.items()},
            floats={n: part.get_dtype() in _SAFETENSORS_FLOATS for n, part in slices.items()},
            read=file.get_tensor,
        )


def _open_pickle(path: Path) -> TensorFile:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        raise FormatError(
            f"{path.name} holds more than tensors, so it was not opened: such a file can run any "
            "program. Get the .safetensors version of this adapter."
        ) from error
    except Exception as error:  # a damaged archive fails in any way it likes
        raise _damaged(path, error) from error
    tensors = _flatten(path, content)
    return TensorFile(
        path=path,
        metadata={},
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        floats={name: tensor.dtype in FLOATS for name, tensor in tensors.items()},
        read=tensors.__getitem__,
    )


def _flatten(path: Path, content: Any, prefix: str = "") -> dict[str, Tensor]:
    """Nested dictionaries of tensors with dotted names."""
    if isinstance(content, Tensor):
        return {prefix.removesuffix("."): content}
    if not isinstance(content, dict):
        raise FormatError(f"{path.name}: '{prefix}' is a {type(content).__name__}, not a tensor.")
    flat: dict[str, Tensor] = {}
    for name, value in content.items():
        flat |= _flatten(path, value, f"{prefix}{name}.")
    return flat


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{path.name} is damaged or incomplete ({error}). Download or copy it again."
    )
