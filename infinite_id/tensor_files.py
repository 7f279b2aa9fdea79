"""Opens untrusted tensor files: their contents are checked before any tensor is read."""

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]

MAX_WIDTH = 65536
"""No layer of an adapter is wider. A file that declares more is refused before it costs memory."""


KNOWN = (
    "Known are native Infinite-ID, InstantID, and for SDXL IP-Adapter, its Plus, Plus Face and "
    "Plus Composition, FaceID, FaceID PlusV2, FaceID Portrait and Portrait unnorm."
)
"""Tells the user which adapters `load` reads."""


class FormatError(ValueError):
    """A file is not what it should be; the message names the file and what to do."""

    __module__ = "infinite_id"  # the page shows it; as a node pack's it would be a path


def check_shapes(path: Path, found: Shapes, expected: Shapes) -> None:
    """Compare a file's tensors with what its format demands, before any is read.

    Raises:
        FormatError: listing missing, unexpected and mis-shaped keys.
    """
    problems = [
        *(f"missing: {key} {expected[key]}" for key in expected if key not in found),
        *(f"unexpected: {key} {found[key]}" for key in found if key not in expected),
        *(
            f"wrong shape: {key} is {found[key]}, expected {shape}"
            for key, shape in expected.items()
            if key in found and found[key] != shape
        ),
    ]
    if problems:
        listed = "\n  ".join(problem[:200] for problem in problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise FormatError(f"{path.name}: {len(problems)} tensors do not fit:\n  {listed}{more}")


_SAFETENSORS = {".safetensors", ".sft"}
"""Lower-case endings of safetensors files; the host knows both."""
FLOATS = {torch.float32, torch.float16, torch.bfloat16}
_SAFETENSORS_FLOATS = {"F32", "F16", "BF16"}
_MAX_TENSORS = 10_000  # in a pickle, which can name one dictionary any number of times


@dataclass(frozen=True)
class TensorFile:
    """A file's tensors by name, memory-mapped where the format allows.

    `floats` tells for each tensor whether it has one of the `FLOATS` types.
    """

    path: Path
    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    floats: dict[str, bool]
    read: Callable[[str], Tensor]

    def check_floats(self) -> None:
        """Raise FormatError if a tensor is no float (a quantised or integer file)."""
        wrong = [name for name, is_float in self.floats.items() if not is_float]
        if wrong:
            raise FormatError(
                f"{self.path.name}: {len(wrong)} tensors are not float32, float16 or bfloat16, "
                f"first {wrong[0][:100]}. Use the original, unquantised file."
            )


class open_tensors:  # noqa: N801  # used as a function: `with open_tensors(path) as file`
    """Open a `.safetensors` (`.sft`) or a PyTorch `.bin`; code in the file is not executed.

    Raises:
        FormatError: if the file is damaged, incomplete, or wants code to be executed.
        FileNotFoundError: if there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()

    def __enter__(self) -> TensorFile:
        read_start(self._path, 1)
        try:
            if self._path.suffix.lower() in _SAFETENSORS:
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
        if isinstance(error, OSError):
            raise _unreadable(self._path, error) from error

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
        _check_stored(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
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


def _check_stored(path: Path) -> None:
    """Raise BadZipFile if the archive is compressed: it could inflate to any size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise zipfile.BadZipFile("it is compressed")


def _flatten(path: Path, content: Any) -> dict[str, Tensor]:
    """Flatten `{name: tensor}` or `{part: {name: tensor}}` to dotted names; no deeper nesting."""
    flat: dict[str, Any] = {}
    for part, value in _check_dict(path, "content", content).items():
        if isinstance(value, Tensor):
            flat[str(part)] = value
            continue
        inner = _check_dict(path, str(part), value)
        if len(flat) + len(inner) > _MAX_TENSORS:
            raise FormatError(f"{path.name} holds more than {_MAX_TENSORS} tensors: no adapter.")
        flat |= {f"{part}.{name}": x for name, x in inner.items()}
    for name, value in flat.items():
        _check_tensor(path, name, value)
    return flat


def _check_dict(path: Path, name: str, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise FormatError(f"{path.name}: '{name[:100]}' is a {kind}, not a dictionary of tensors.")
    return value


def _check_tensor(path: Path, name: str, value: Any) -> None:
    """Raise FormatError if `value` is no tensor or the file does not hold all its numbers."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise FormatError(f"{path.name}: '{name[:100]}' is a {kind}, not a tensor.")
    plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not plain or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise FormatError(
            f"{path.name}: '{name[:100]}' is no ordinary tensor (it is sparse, quantised, expanded "
            "or without contents). Use the adapter's original file."
        )


def read_start(path: Path, size: int) -> bytes:
    """Return a file's first bytes. Call it before a reader whose errors would not be clear.

    Raises:
        FormatError: if it cannot be read.
        FileNotFoundError: if there is no such file.
    """
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str], is_new: bool = False
) -> None:
    """Write a safetensors file, which appears under its name only when it is complete.

    Args:
        is_new: never replace a file.

    Raises:
        FileExistsError: if `is_new` and there is a file, even if it appeared meanwhile.
        OSError: saying what cannot be written, why, and what to do.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # also where a file has the folder's name
        raise _unwritable(path, error) from error
    if is_new and os.path.lexists(path):
        raise FileExistsError(path)
    temporary = path.with_name(f".{uuid4().hex}.part")  # its own: others may save the same
    try:
        save_file(dict(tensors), temporary, metadata)
        if is_new:
            _rename_to_new(temporary, path)
        else:
            temporary.replace(path)
    except FileExistsError:
        raise
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _rename_to_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a drive without hard links, such as exFAT
        path.touch(exist_ok=False)  # takes the name
        temporary.replace(path)


def _unwritable(path: Path, error: Exception) -> OSError:
    return OSError(
        f"{path} cannot be written ({getattr(error, 'strerror', None) or error}). Make room on "
        "that drive, give the account that runs ComfyUI the right to write there, or choose "
        "another name."
    )


def _unreadable(path: Path, error: OSError) -> FormatError:
    if os.path.isdir(path):  # noqa: PTH112  # it never raises
        return FormatError(f"{path.name} is a folder, not a file. Choose the file inside it.")
    return FormatError(
        f"{path.name} cannot be read ({error.strerror or error}). Give the account that runs "
        "ComfyUI the right to read it, or connect the drive that it is on."
    )


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{path.name} is damaged or incomplete ({error}). Download or copy it again."
    )
