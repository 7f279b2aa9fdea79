"""The identity file: one safetensors file. A loaded identity draws the same pictures again.

Metadata:
    format: "infinite-id-identity"
    version: "1"
    adapter: the adapter's file name; adapter_kind, face_model, clip_model: of its recipe. They say
        what the file was made with; `load` decides nothing by them
    adapter_fingerprint: `Adapter.fingerprint`
    sources: JSON array of {"label": text, "digest": SHA-256 in hexadecimal}, one for each photo
Tensors, float32:
    tokens         (n, l, token_width)
    unconditional  (1, l0, token_width)
    shares         (n, l); left out if all tokens count alike
    face           (n, face_width)      both or none: the features, as `Features` has them
    clip           (n, lc, clip_width)
    thumbnail.<i>  (h, w, 3), uint8: of the i-th source; may be left out

Tokens are stored as they were computed: float16 would do for a model in float16, but not for one in
bfloat16 or float32. K', V' are not stored: the adapter makes them again from the tokens. One
photo is 5.6 MB with a native adapter (tokens and unconditional tokens 4.3, CLIP's states 1.3), 1.6
with Plus Face, 1.4 with FaceID PlusV2, below 0.3 with FaceID and InstantID; a thumbnail adds 0.05.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..adapters.adapter import Adapter
from ..tensor_files import (
    MAX_WIDTH,
    FormatError,
    Shapes,
    TensorFile,
    check_shapes,
    open_tensors,
    read_start,
    write_tensors,
)
from .identity import Features, Identity, Source

FORMAT = "infinite-id-identity"
VERSION = "1"

_MAX_HEADER = 4 << 20  # bytes
_MAX_TOKENS = 1 << 17  # in all: 500 photos of 261 tokens each, or 500 in-betweens of one photo
_MAX_SOURCES = 1024
_MAX_LABEL = 200
_MAX_SIDE = 1024  # of a thumbnail, in pixels
_DIGEST = re.compile("[0-9a-f]{64}")


def save(
    identity: Identity, path: Path, include_thumbnails: bool = True, is_new: bool = False
) -> None:
    """Write an identity. The file appears under its name only when it is complete.

    Raises:
        FileExistsError: if the file must be new and exists.
        OSError: if it cannot be written.
        FormatError: if `load` would refuse the file: for more tokens or photos than a file may
            hold, or tokens that are not finite.
    """
    recipe = identity.adapter.config.mapper.recipe
    sources = [{"label": s.label, "digest": s.digest} for s in identity.sources]
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "adapter": identity.adapter.name,
        "adapter_fingerprint": identity.adapter.fingerprint,
        "adapter_kind": recipe.name,
        "face_model": recipe.face_model,
        "clip_model": recipe.clip_model,
        "sources": json.dumps(sources, ensure_ascii=False),
    }
    tensors = _to_tensors(identity, include_thumbnails)
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    _check_layout(path, shapes, identity.adapter, len(sources))
    _check_values(path, tensors)
    write_tensors(tensors, path, metadata, is_new)


def _to_tensors(identity: Identity, include_thumbnails: bool) -> dict[str, Tensor]:
    tensors = {"tokens": identity.tokens, "unconditional": identity.unconditional}
    if identity.shares is not None:
        tensors["shares"] = identity.shares
    if identity.features is not None:
        tensors |= {"face": identity.features.face, "clip": identity.features.clip}
    for index, source in enumerate(identity.sources):
        if include_thumbnails and source.thumbnail is not None:
            tensors[f"thumbnail.{index}"] = source.thumbnail
    # Copies: safetensors takes no tensors that share their memory.
    return {n: x.clone(memory_format=torch.contiguous_format) for n, x in tensors.items()}


@dataclass(frozen=True, eq=False)
class Card:
    """What an identity file tells without its adapter.

    Attributes:
        adapter: the file name of the adapter that it was made with.
        labels: of the photos.
        thumbnail: `(h, w, 3)` uint8 RGB, of the first photo that has one; None if none has.
    """

    adapter: str
    labels: tuple[str, ...]
    thumbnail: Tensor | None


def read_card(path: Path) -> Card:
    """Read who is in an identity file. Only a thumbnail is read of its tensors.

    Raises:
        FormatError: if the file is damaged or is no identity file.
        FileNotFoundError: if there is no such file.
    """
    _check_header(path)
    with open_tensors(path) as file:
        _check_format(file)
        labels = tuple(label for label, _ in _read_sources(file))
        names = [f"thumbnail.{index}" for index in range(len(labels))]
        found = [name for name in names if _is_thumbnail(file.shapes.get(name, ()))]
        return Card(
            adapter=file.metadata.get("adapter", "")[:100],
            labels=labels,
            thumbnail=_read(file, found[0]) if found else None,
        )


def _is_thumbnail(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] == 3 and all(0 < side <= _MAX_SIDE for side in shape)


def load(path: Path, adapter: Adapter) -> Identity:
    """Read an identity that was made with this adapter, whatever file the adapter came in.

    Raises:
        FormatError: if the file is damaged, is no identity file, was made with another adapter, or
            holds values that no identity has. Sizes are checked before anything is read.
        FileNotFoundError: if there is no such file.
    """
    _check_header(path)
    with open_tensors(path) as file:
        _check_format(file)
        sources = _read_sources(file)
        _check_adapter(file, adapter)
        _check_layout(path, file.shapes, adapter, len(sources))
        tensors = {name: _read(file, name) for name in file.shapes}
    _check_values(path, tensors)
    return Identity(
        tokens=tensors["tokens"],
        unconditional=adapter.share(tensors["unconditional"]),
        adapter=adapter,
        sources=tuple(
            Source(label, digest, tensors.get(f"thumbnail.{index}"))
            for index, (label, digest) in enumerate(sources)
        ),
        shares=tensors.get("shares"),
        features=Features(tensors["face"], tensors["clip"]) if "face" in tensors else None,
    )


def _check_header(path: Path) -> None:
    """Raise FormatError if a header is larger than any identity's, before it is parsed."""
    size = int.from_bytes(read_start(path, 8), "little")
    if size > _MAX_HEADER:
        raise FormatError(
            f"{path.name} is no identity file: its header is {size} bytes long, or it is no "
            "safetensors file at all. Choose a file that Save Identity wrote."
        )


def _check_format(file: TensorFile) -> None:
    if file.metadata.get("format") != FORMAT:
        raise FormatError(
            f"{file.path.name} is no identity file: it holds {len(file.shapes)} tensors of "
            "something else. Choose a file that Save Identity wrote."
        )
    if file.metadata.get("version") != VERSION:
        version = str(file.metadata.get("version"))[:20]
        raise FormatError(
            f"{file.path.name} has format version {version!r}; this release reads version "
            f"{VERSION}. Update the node pack."
        )


def _read_sources(file: TensorFile) -> list[tuple[str, str]]:
    """Label and digest of each photo. Labels are shown to the user: one line of plain text each."""
    try:
        entries = json.loads(file.metadata["sources"])
        if type(entries) is not list or len(entries) > _MAX_SOURCES:
            raise ValueError(f"it is no list of at most {_MAX_SOURCES} photos")
        sources = [(entry["label"], entry["digest"]) for entry in entries]
        for label, digest in sources:
            if type(label) is not str or len(label) > _MAX_LABEL or not label.isprintable():
                raise ValueError(f"no plain label of at most {_MAX_LABEL} letters: {label!r:.100}")
            if not _DIGEST.fullmatch(digest):
                raise ValueError(f"no SHA-256: {digest!r:.100}")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(
            f"{file.path.name}: its list of photos cannot be read ({repr(error)[:300]}). Save the "
            "identity again."
        ) from error
    return sources


def _check_adapter(file: TensorFile, adapter: Adapter) -> None:
    fingerprint = file.metadata.get("adapter_fingerprint", "")
    if fingerprint == adapter.fingerprint:
        return
    name, kind = (file.metadata.get(key, "")[:100] for key in ("adapter", "adapter_kind"))
    raise FormatError(
        f"{file.path.name} was made with the adapter {name!r} ({kind!r}, fingerprint "
        f"{fingerprint[:12]!r}), and the one connected is {adapter.name!r} "
        f"({adapter.config.mapper.recipe.name!r}, fingerprint {adapter.fingerprint[:12]!r}). "
        "Choose the same adapter in Load Infinite-ID Model; its file may have another name, but "
        "not another precision."
    )


def _check_layout(path: Path, shapes: Shapes, adapter: Adapter, sources: int) -> None:
    """Check the tensors' names and sizes against the adapter's, before any is read.

    Raises:
        FormatError: saying what does not fit.
    """
    recipe, width = adapter.config.mapper.recipe, adapter.config.mapper.token_width
    n, tokens, _ = _sides(shapes, "tokens", 3)
    _, own_tokens, _ = _sides(shapes, "unconditional", 3)
    _, face_width = _sides(shapes, "face", 2)
    _, clip_tokens, _ = _sides(shapes, "clip", 3)
    expected: dict[str, tuple[int, ...]] = {
        "tokens": (n, tokens, width),
        "unconditional": (1, own_tokens, width),
    }
    if "shares" in shapes:
        expected["shares"] = n, tokens
    if "face" in shapes or "clip" in shapes:
        expected["face"] = n, recipe.face_width or min(face_width, MAX_WIDTH)
        expected["clip"] = n, clip_tokens if recipe.clip_width else 0, recipe.clip_width
    for name in [f"thumbnail.{index}" for index in range(sources)]:
        if name in shapes:
            height, across, _ = _sides(shapes, name, 3)
            expected[name] = height, across, 3
    check_shapes(path, shapes, expected)
    _check_limits(path, expected, sources)
    if "face" in shapes:
        made = _map_shapes(adapter, expected["face"], expected["clip"])
        check_shapes(path, {"tokens": shapes["tokens"]}, {"tokens": made})


def _sides(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    """A tensor's shape, or zeros if it is not there or is of another rank."""
    shape = shapes.get(name, ())
    return shape if len(shape) == rank else (0,) * rank


def _check_limits(path: Path, shapes: Shapes, sources: int) -> None:
    n, tokens, _ = shapes["tokens"]
    own_tokens = shapes["unconditional"][1]
    clip_tokens = shapes["clip"][1] if "clip" in shapes else 0
    if not 0 < n * tokens <= _MAX_TOKENS or n * clip_tokens > _MAX_TOKENS:
        raise FormatError(
            f"{path.name}: {n} identities of {tokens} tokens, mapped from {clip_tokens}; a file "
            f"holds 1 to {_MAX_TOKENS} in all. Encode fewer photos, or make fewer in-betweens."
        )
    if not own_tokens or tokens % own_tokens:
        raise FormatError(
            f"{path.name}: {tokens} tokens are no stack of photos of {own_tokens} tokens each."
        )
    if sources > _MAX_SOURCES:
        raise FormatError(
            f"{path.name}: {sources} photos; a file holds {_MAX_SOURCES}. Encode fewer photos."
        )
    for name, shape in shapes.items():
        if name.startswith("thumbnail.") and not all(0 < side <= _MAX_SIDE for side in shape):
            raise FormatError(
                f"{path.name}: {name} is {shape}; a thumbnail has 1 to {_MAX_SIDE} pixels a side."
            )


def _map_shapes(adapter: Adapter, face: tuple[int, ...], clip: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the tokens of features of these shapes. Nothing is computed."""
    weights = {k: v.to("meta", torch.float32) for k, v in adapter.mapper.state_dict().items()}
    features = torch.empty(face, device="meta"), torch.empty(clip, device="meta")
    return tuple(torch.func.functional_call(adapter.mapper, weights, features).shape)


def _read(file: TensorFile, name: str) -> Tensor:
    x = file.read(name)
    expected = torch.uint8 if name.startswith("thumbnail.") else torch.float32
    if x.dtype is not expected:
        raise FormatError(f"{file.path.name}: {name} is {x.dtype}; it must be {expected}.")
    return x.clone()  # Windows cannot replace a file that is still mapped


def _check_values(path: Path, tensors: dict[str, Tensor]) -> None:
    for name, x in tensors.items():
        if not x.isfinite().all():
            raise FormatError(
                f"{path.name}: {name} hold values that are not numbers (NaN or infinite). Encode "
                "the photos again, with an adapter that is not damaged."
            )
    shares = tensors.get("shares")
    if shares is not None and (shares.min() < 0 or shares.sum(dim=1).min() == 0):
        raise FormatError(
            f"{path.name}: its tokens' shares must not be negative, and one must be above 0."
        )
