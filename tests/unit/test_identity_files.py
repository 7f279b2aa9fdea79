"""Identity files: what comes back is what was saved, bit by bit, or a clear refusal."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pack.bench import adapter_files
from pack.bench.adapter_files import write_raw_safetensors, write_safetensors
from pack.infinite_id import tensor_files
from pack.infinite_id.adapters import formats
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig, encode
from pack.infinite_id.adapters.formats import FormatError
from pack.infinite_id.adapters.mappers import MapperConfig, MapperSpec
from pack.infinite_id.adapters.mappers.ip_adapter import FaceIDConfig, PerceiverConfig, PlusConfig
from pack.infinite_id.attention.blocks import Block
from pack.infinite_id.identities import identity_file
from pack.infinite_id.identities.identity import Features, Identity, Source
from pack.infinite_id.identities.mixing import average, cross_fade, interpolate_faces, stack
from pack.tests.unit import corrupt_files
from pack.tests.unit.corrupt_files import MAXIMUM_BYTES, MAXIMUM_SECONDS, Usage
from safetensors import safe_open
from torch import Tensor

NATIVE = MapperConfig(
    face_width=8, face_hidden=8, face_tokens=2, clip_width=8, clip_hidden=8, token_width=8
)
FACEID = FaceIDConfig(face_width=8, face_hidden=8, tokens=4, token_width=8)
PLUS = PlusConfig(3, PerceiverConfig(width=8, inner=64, hidden=8, depth=1, features=8), 8)
CLIP_TOKENS = 3


def make_adapter(spec: MapperSpec = NATIVE, seed: int = 0, block: str = "input_4_0") -> Adapter:
    """Random weights of one layer."""
    adapter = Adapter(AdapterConfig(spec, {Block.parse(block): 16}))
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(x.shape, generator=generator) for name, x in adapter.state_dict().items()
    }
    adapter.load_state_dict(weights)
    adapter.name = "adapter.safetensors"
    return adapter.requires_grad_(False)


def make_identity(adapter: Adapter, seed: int = 1) -> Identity:
    """A person of one photo, mapped from random features."""
    generator = torch.Generator().manual_seed(seed)
    recipe = adapter.config.mapper.recipe
    clip_tokens = CLIP_TOKENS if recipe.clip_width else 0
    face = torch.randn(1, recipe.face_width or 8, generator=generator)
    clip = torch.randn(1, clip_tokens, recipe.clip_width, generator=generator)
    thumbnail = torch.randint(256, (6, 5, 3), generator=generator).byte()
    return Identity(
        tokens=encode(adapter, face, clip),
        unconditional=encode(adapter, torch.zeros_like(face), torch.zeros_like(clip)),
        adapter=adapter,
        sources=(Source(f"photo {seed}, Zoë 😀", f"{seed:064x}", thumbnail),),
        features=Features(face, clip),
    )


def make_pair(adapter: Adapter) -> list[Identity]:
    return [make_identity(adapter, seed) for seed in (1, 2)]


def make_bare(tokens: Tensor, adapter: Adapter) -> Identity:
    return Identity(tokens, tokens, adapter)


KINDS: dict[str, Callable[[Adapter], Identity]] = {
    "one photo": make_identity,
    "stack": lambda adapter: stack(make_pair(adapter)),
    "weighted stack": lambda adapter: stack(make_pair(adapter), [0.3, 0.7]),
    "average": lambda adapter: average(make_pair(adapter), [0.3, 0.7]),
    "sweep": lambda adapter: interpolate_faces(make_pair(adapter), [0.0, 0.4, 1.0]),
    "cross-fade": lambda adapter: cross_fade(make_pair(adapter), [0.0, 0.4, 1.0]),
    "tokens alone": lambda adapter: make_bare(torch.randn(1, 5, 8), adapter),
}


def contents(identity: Identity) -> dict[str, Tensor | None]:
    features = identity.features
    return {
        "tokens": identity.tokens,
        "unconditional": identity.unconditional,
        "shares": identity.shares,
        "face": None if features is None else features.face,
        "clip": None if features is None else features.clip,
    }


def equal(a: Tensor | None, b: Tensor | None) -> bool:
    """The same bits: dtype, shape and values."""
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


@pytest.mark.parametrize("spec", [NATIVE, FACEID, PLUS], ids=["native", "FaceID", "Plus Face"])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(tmp_path: Path, kind: str, spec: MapperSpec) -> None:
    saved = KINDS[kind](make_adapter(spec))
    path = tmp_path / "person.safetensors"
    identity_file.save(saved, path)
    adapter = make_adapter(spec)
    loaded = identity_file.load(path, adapter)
    assert loaded.adapter is adapter
    for name, x in contents(saved).items():
        assert equal(x, contents(loaded)[name]), name
    assert len(saved.sources) == len(loaded.sources)
    for one, other in zip(saved.sources, loaded.sources, strict=True):
        assert (one.label, one.digest) == (other.label, other.digest)
        assert equal(one.thumbnail, other.thumbnail)
    assert list(tmp_path.iterdir()) == [path]


def test_projections_are_the_same(tmp_path: Path) -> None:
    saved = KINDS["weighted stack"](make_adapter())
    identity_file.save(saved, tmp_path / "person.safetensors")
    loaded = identity_file.load(tmp_path / "person.safetensors", make_adapter())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        ours, theirs = (i.adapter.project(i.tokens.to(dtype)) for i in (loaded, saved))
        for block, (k, v) in theirs.items():
            assert equal(k, ours[block][0])
            assert equal(v, ours[block][1])


def test_mixing_goes_on_after_loading(tmp_path: Path) -> None:
    adapter = make_adapter()
    pair = make_pair(adapter)
    loaded = []
    for n, identity in enumerate(pair):
        identity_file.save(identity, tmp_path / f"{n}.safetensors")
        loaded.append(identity_file.load(tmp_path / f"{n}.safetensors", adapter))
    places = [0.25, 0.5]
    assert equal(interpolate_faces(loaded, places).tokens, interpolate_faces(pair, places).tokens)
    assert equal(average([loaded[0], pair[1]], [1, 1]).tokens, average(pair, [1, 1]).tokens)


def test_without_thumbnails(tmp_path: Path) -> None:
    saved, path = make_identity(make_adapter()), tmp_path / "person.safetensors"
    identity_file.save(saved, path, include_thumbnails=False)
    with safe_open(path, framework="pt") as file:
        assert not any("thumbnail" in name for name in file.keys())  # noqa: SIM118
    (source,) = identity_file.load(path, saved.adapter).sources
    assert source.thumbnail is None
    assert source.label == saved.sources[0].label


def test_size_of_a_true_native_identity(tmp_path: Path) -> None:
    """The numbers that the format's description and the help page give."""
    adapter = make_adapter(MapperConfig())
    face, clip = torch.zeros(1, 512), torch.zeros(1, 257, 1280)
    tokens = encode(adapter, face, clip)
    source = Source("photo", "0" * 64, torch.zeros(128, 128, 3, dtype=torch.uint8))
    sizes = {}
    for name, features in (("with", Features(face, clip)), ("without", None)):
        path = tmp_path / f"{name}.safetensors"
        identity_file.save(Identity(tokens, tokens, adapter, (), features=features), path)
        sizes[name] = path.stat().st_size / 1e6
    with_source = Identity(tokens, tokens, adapter, (source,))
    identity_file.save(with_source, tmp_path / "thumbnail.safetensors")
    thumbnail = (tmp_path / "thumbnail.safetensors").stat().st_size / 1e6 - sizes["without"]
    print(sizes, thumbnail)
    assert sizes["with"] == pytest.approx(5.6, abs=0.05)
    assert sizes["without"] == pytest.approx(4.3, abs=0.05)
    assert thumbnail == pytest.approx(0.05, abs=0.005)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_save_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, path = make_adapter(), tmp_path / "person.safetensors"
    identity_file.save(make_identity(adapter), path)
    before = path.read_bytes()
    tokens = torch.full((1, 5, 8), float("nan"))
    with pytest.raises(FormatError, match=r"person.safetensors: tokens hold values that are not"):
        identity_file.save(Identity(tokens, tokens, adapter), path)
    too_many = torch.zeros(1, 1 << 18, 8)
    with pytest.raises(FormatError, match="Encode fewer photos"):
        identity_file.save(Identity(too_many, torch.zeros(1, 4, 8), adapter), path)
    crowd = (Source("photo", "0" * 64),) * 1025
    with pytest.raises(FormatError, match=r"1025 photos; a file holds 1024"):
        identity_file.save(Identity(tokens, tokens, adapter, crowd), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with monkeypatch.context() as patch:
        patch.setattr(tensor_files, "save_file", full)
        with pytest.raises(OSError, match=r"person.safetensors cannot be written \(No space left"):
            identity_file.save(make_identity(adapter, seed=2), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_loaded_identity_has_let_go_of_its_file(tmp_path: Path) -> None:
    saved, path = make_identity(make_adapter()), tmp_path / "person.safetensors"
    identity_file.save(saved, path)
    loaded = identity_file.load(path, saved.adapter)
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert equal(loaded.tokens, saved.tokens)
    assert equal(loaded.unconditional, saved.unconditional)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        identity_file.load(tmp_path / "none.safetensors", make_adapter())


# --- The adapter's fingerprint -------------------------------------------------------------------


def test_one_adapter_in_any_file_has_one_fingerprint(tmp_path: Path) -> None:
    tensors = adapter_files.make("FaceID", 8)
    renamed = {n.replace("ip_adapter.", "adapter_modules."): x for n, x in tensors.items()}
    files = [
        write_safetensors(tmp_path / "one.safetensors", tensors),
        write_safetensors(tmp_path / "other.safetensors", renamed),
        adapter_files.write_bin(tmp_path / "one.bin", tensors),
        write_safetensors(
            tmp_path / "with_lora.safetensors", adapter_files.make("FaceID", 8, lora_rank=1)
        ),
    ]
    fingerprints = {formats.load(path).fingerprint for path in files}
    assert len(fingerprints) == 1
    assert all(len(fingerprint) == 64 for fingerprint in fingerprints)


def test_shortcut_scale_is_a_setting(tmp_path: Path) -> None:
    tensors = adapter_files.make("FaceID PlusV2", 64)
    path = write_safetensors(tmp_path / "plusv2.safetensors", tensors)
    assert formats.load(path, 0.5).fingerprint == formats.load(path, 1.0).fingerprint


def test_any_other_weight_has_another_fingerprint() -> None:
    adapters = [make_adapter(), make_adapter(seed=1), make_adapter(FACEID), make_adapter().half()]
    adapters.append(make_adapter(block="input_4_1"))
    for key in ("layers.input_4_0.to_v.weight", "mapper.face.norm.bias"):
        changed = make_adapter()
        changed.state_dict()[key].view(torch.uint8).flatten()[0] ^= 1
        adapters.append(changed)
    swapped = make_adapter()
    swapped.layers["input_4_0"].to_k, swapped.layers["input_4_0"].to_v = (
        swapped.layers["input_4_0"].to_v,
        swapped.layers["input_4_0"].to_k,
    )
    same_bytes = make_adapter().half()
    misread = {name: x.view(torch.bfloat16) for name, x in same_bytes.state_dict().items()}
    same_bytes.load_state_dict(misread, assign=True)
    fingerprints = [adapter.fingerprint for adapter in [*adapters, swapped, same_bytes]]
    assert len(set(fingerprints)) == len(fingerprints)
    assert make_adapter().fingerprint == fingerprints[0]


def test_another_adapter_is_refused_by_name(tmp_path: Path) -> None:
    path, other = tmp_path / "person.safetensors", make_adapter(seed=1)
    identity_file.save(make_identity(make_adapter()), path)
    other.name = "other.bin"
    with pytest.raises(
        FormatError,
        match=r"person.safetensors was made with the adapter 'adapter.safetensors' "
        r"\('Infinite-ID'.*connected is 'other.bin'",
    ):
        identity_file.load(path, other)


# --- Files from strangers ------------------------------------------------------------------------

Change = tuple[dict[str, str | None], dict[str, Tensor | None], str]


def zeros(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(size, dtype=dtype)


def picture(*size: int) -> Tensor:
    return zeros(*size, dtype=torch.uint8)


def bad(value: float, *size: int) -> Tensor:
    """Zeros but for the last value."""
    x = zeros(*size)
    x.flatten()[-1] = value
    return x


def sources(*entries: Any) -> dict[str, str | None]:
    return {"sources": json.dumps(entries)}


LABEL = {"label": "photo", "digest": "0" * 64}
NAN, INF = float("nan"), float("inf")
NO_IDENTITY = "is no identity file"
NO_LIST = "list of photos cannot be read"
NO_LABEL = "no plain label"
FIT = "do not fit"
NUMBERS = "hold values that are not numbers"
SHARES = "shares must not be negative"
PHOTO = "thumbnail.0"

# A good file has 2 + 3 tokens, features, and one photo.
CHANGES: dict[str, Change] = {
    "no format": ({"format": None}, {}, NO_IDENTITY),
    "an adapter's format": ({"format": "infinite-id"}, {}, NO_IDENTITY),
    "version 2": ({"version": "2"}, {}, "format version '2'"),
    "no version": ({"version": None}, {}, "format version 'None'"),
    "version of a million letters": ({"version": "9" * 10**6}, {}, "format version '9999"),
    "another adapter": ({"adapter_fingerprint": "0" * 64}, {}, "'000000000000'), and the one"),
    "no fingerprint": ({"adapter_fingerprint": None}, {}, "fingerprint ''"),
    "an adapter's name that paints the terminal": (
        {"adapter_fingerprint": "0", "adapter": "\x1b[31mred"},
        {},
        r"'\x1b[31mred'",
    ),
    "an adapter's name of a million letters": (
        {"adapter_fingerprint": "0", "adapter": "a" * 10**6},
        {},
        "with the adapter 'aaa",
    ),
    "no list of photos": ({"sources": None}, {}, NO_LIST),
    "photos that are no JSON": ({"sources": "[{"}, {}, NO_LIST),
    "photos in an object": ({"sources": "{}"}, {}, NO_LIST),
    "photos nested too deep": ({"sources": "[" * 100_000}, {}, NO_LIST),
    "photos that are texts": (sources("photo"), {}, NO_LIST),
    "photos that are null": (sources(None), {}, NO_LIST),
    "a number of 5000 digits": ({"sources": f"[1{'0' * 5000}]"}, {}, NO_LIST),
    "too many photos": (sources(*[LABEL] * 1025), {}, NO_LIST),
    "a photo without a label": (sources({"digest": "0" * 64}), {}, NO_LIST),
    "a label that is a number": (sources({**LABEL, "label": 3}), {}, NO_LABEL),
    "a label that is a list": (sources({**LABEL, "label": ["photo"]}), {}, NO_LABEL),
    "a label too long": (sources({**LABEL, "label": "a" * 201}), {}, NO_LABEL),
    "a label of two lines": (sources({**LABEL, "label": "a\nb"}), {}, NO_LABEL),
    "a label that paints the terminal": (sources({**LABEL, "label": "\x1b[31mred"}), {}, NO_LABEL),
    "a label with a null": (sources({**LABEL, "label": "a\0b"}), {}, NO_LABEL),
    "a label written backwards": (sources({**LABEL, "label": "a\u202eb"}), {}, NO_LABEL),
    "a label of half a letter": (sources({**LABEL, "label": "\ud800"}), {}, NO_LABEL),
    "a digest too short": (sources({**LABEL, "digest": "0" * 63}), {}, "no SHA-256"),
    "a digest with a line end": (sources({**LABEL, "digest": "0" * 64 + "\n"}), {}, "no SHA-256"),
    "a digest that is a path": (sources({**LABEL, "digest": "../" * 21 + "a"}), {}, "no SHA-256"),
    "a digest that is a number": (sources({**LABEL, "digest": 0}), {}, NO_LIST),
    "no tokens": ({}, {"tokens": None}, "missing: tokens"),
    "no unconditional tokens": ({}, {"unconditional": None}, "missing: unconditional"),
    "a tensor too many": ({}, {"more": zeros(2)}, "unexpected: more"),
    "a tensor with a path for a name": ({}, {"../../x": zeros(2)}, "unexpected: ../../x"),
    "tokens without a row": ({}, {"tokens": zeros(5, 8)}, "wrong shape: tokens"),
    "tokens without a shape": ({}, {"tokens": zeros()}, "wrong shape: tokens"),
    "tokens of another width": ({}, {"tokens": zeros(1, 5, 16)}, "wrong shape: tokens"),
    "no identity at all": ({}, {"tokens": zeros(0, 5, 8)}, FIT),
    "identities of no tokens": (
        {},
        {"tokens": zeros(1, 0, 8), "face": None, "clip": None},
        "1 identities of 0 tokens",
    ),
    "two sets of unconditional tokens": (
        {},
        {"unconditional": zeros(2, 5, 8)},
        "wrong shape: unconditional",
    ),
    "no unconditional token": ({}, {"unconditional": zeros(1, 0, 8)}, "no stack of photos of 0"),
    "no whole number of photos": ({}, {"unconditional": zeros(1, 3, 8)}, "no stack of photos of 3"),
    "tokens that the features do not make": (
        {},
        {"tokens": zeros(1, 10, 8)},
        "tokens is (1, 10, 8), expected (1, 5, 8)",
    ),
    "CLIP states of another length": ({}, {"clip": zeros(1, 4, 8)}, "expected (1, 6, 8)"),
    "CLIP states of another width": ({}, {"clip": zeros(1, 3, 16)}, "wrong shape: clip"),
    "a face vector of another width": ({}, {"face": zeros(1, 16)}, "wrong shape: face"),
    "two faces for one identity": ({}, {"face": zeros(2, 8)}, "wrong shape: face"),
    "a face without CLIP states": ({}, {"clip": None}, "missing: clip"),
    "CLIP states without a face": ({}, {"face": None}, "missing: face"),
    "shares of other tokens": ({}, {"shares": zeros(1, 4)}, "wrong shape: shares"),
    "negative shares": ({}, {"shares": bad(-1, 1, 5)}, SHARES),
    "shares that are all 0": ({}, {"shares": zeros(1, 5)}, SHARES),
    "shares that are no numbers": ({}, {"shares": bad(NAN, 1, 5)}, f"shares {NUMBERS}"),
    "tokens that are no numbers": ({}, {"tokens": bad(NAN, 1, 5, 8)}, f"tokens {NUMBERS}"),
    "infinite tokens": ({}, {"unconditional": bad(INF, 1, 5, 8)}, f"unconditional {NUMBERS}"),
    "infinite features": ({}, {"clip": bad(-INF, 1, 3, 8)}, f"clip {NUMBERS}"),
    "tokens in float16": ({}, {"tokens": zeros(1, 5, 8).half()}, "tokens is torch.float16"),
    "tokens in float64": ({}, {"tokens": zeros(1, 5, 8).double()}, "tokens is torch.float64"),
    "tokens in int32": ({}, {"tokens": zeros(1, 5, 8).int()}, "tokens is torch.int32"),
    "tokens in fp8": (
        {},
        {"tokens": zeros(1, 5, 8).to(torch.float8_e4m3fn)},
        "tokens is torch.float8_e4m3fn",
    ),
    "a thumbnail in float32": ({}, {PHOTO: zeros(6, 5, 3)}, "thumbnail.0 is torch.float32"),
    "a thumbnail with transparency": ({}, {PHOTO: picture(6, 5, 4)}, "wrong shape: thumbnail.0"),
    "a grey thumbnail": ({}, {PHOTO: picture(6, 5)}, "wrong shape: thumbnail.0"),
    "an empty thumbnail": ({}, {PHOTO: picture(0, 5, 3)}, "thumbnail.0 is (0, 5, 3)"),
    "a thumbnail too wide": ({}, {PHOTO: picture(1, 1025, 3)}, "thumbnail.0 is (1, 1025, 3)"),
    "a thumbnail of no photo": ({}, {"thumbnail.1": picture(6, 5, 3)}, "unexpected: thumbnail.1"),
    "a thumbnail of photo 00": ({}, {"thumbnail.00": picture(6, 5, 3)}, "unexpected: thumbnail.00"),
    "a thumbnail of photo -1": ({}, {"thumbnail.-1": picture(6, 5, 3)}, "unexpected: thumbnail.-1"),
}


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write_changed(
    path: Path, metadata: dict[str, str | None], tensors: dict[str, Tensor | None]
) -> Path:
    """A good file with entries replaced, added, or (None) left out."""
    identity_file.save(make_identity(make_adapter()), path)
    told, written = read(path)
    told = {name: x for name, x in (told | metadata).items() if x is not None}
    return write_safetensors(
        path, {name: x for name, x in (written | tensors).items() if x is not None}, told
    )


def refuse(path: Path, said: str, spec: MapperSpec = NATIVE) -> None:
    """Refused in words, quickly, in little memory."""
    adapter = make_adapter(spec)
    with Usage() as usage, pytest.raises(FormatError) as caught:
        identity_file.load(path, adapter)
    assert type(caught.value) is FormatError
    assert path.name in str(caught.value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 5000
    assert not any(ord(letter) < 32 and letter != "\n" for letter in str(caught.value))
    assert usage.seconds < MAXIMUM_SECONDS
    assert usage.bytes < MAXIMUM_BYTES


def test_the_file_that_the_cases_change_is_good(tmp_path: Path) -> None:
    path = write_changed(tmp_path / "person.safetensors", {}, {"shares": bad(1.0, 1, 5)})
    assert identity_file.load(path, make_adapter()).shares is not None


@pytest.mark.parametrize("case", CHANGES)
def test_hostile(tmp_path: Path, case: str) -> None:
    metadata, tensors, said = CHANGES[case]
    refuse(write_changed(tmp_path / "person.safetensors", metadata, tensors), said)


Entry = tuple[str, str, list[int], tuple[int, int]]


def small(name: str, begin: int) -> Entry:
    return name, "F32", [1, 5, 8], (begin, begin + 160)


HUGE = 1 << 29
SIDE = 1 << 14
THUMBNAIL = 3 * SIDE * SIDE // 2
DECLARED: dict[str, tuple[list[Entry], int, dict[str, str], str]] = {
    "half a gigabyte of tokens": (
        [("tokens", "F32", [1, HUGE // 32, 8], (0, HUGE)), small("unconditional", HUGE)],
        HUGE + 160,
        {},
        "a file holds 1 to 131072",
    ),
    "half a gigabyte of another width": (
        [("tokens", "F32", [1, 8, HUGE // 32], (0, HUGE)), small("unconditional", HUGE)],
        HUGE + 160,
        {},
        "wrong shape: tokens",
    ),
    "half a gigabyte of thumbnail": (
        [
            ("thumbnail.0", "U8", [SIDE, SIDE // 2, 3], (0, THUMBNAIL)),
            small("tokens", THUMBNAIL),
            small("unconditional", THUMBNAIL + 160),
        ],
        THUMBNAIL + 320,
        {},
        "thumbnail.0 is (16384, 8192, 3)",
    ),
    "half a gigabyte of CLIP states": (
        [
            ("clip", "F32", [1, HUGE // 32, 8], (0, HUGE)),
            ("face", "F32", [1, 8], (HUGE, HUGE + 32)),
            small("tokens", HUGE + 32),
            small("unconditional", HUGE + 192),
        ],
        HUGE + 352,
        {},
        "mapped from 16777216",
    ),
    "a terabyte declared": (
        [("tokens", "F32", [1, 1 << 35, 8], (0, 1 << 40))],
        160,
        {},
        "is damaged or incomplete",
    ),
    "the same bytes twice": (
        [small("tokens", 0), small("unconditional", 0)],
        160,
        {},
        "is damaged or incomplete",
    ),
    "a header of five megabytes": (
        [small("tokens", 0), small("unconditional", 160)],
        320,
        {"more": "x" * (5 << 20)},
        "its header is",
    ),
}


@pytest.mark.parametrize("case", DECLARED)
def test_sizes_are_looked_at_first(tmp_path: Path, case: str) -> None:
    entries, size, metadata, said = DECLARED[case]
    path = write_changed(tmp_path / "person.safetensors", {}, {})
    refuse(write_raw_safetensors(path, entries, size, read(path)[0] | metadata), said)


def test_size_of_a_face_vector_that_the_adapter_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / "person.safetensors"
    identity_file.save(make_identity(make_adapter(PLUS)), path)
    entries: list[Entry] = [
        ("face", "F32", [1, HUGE // 4], (0, HUGE)),
        ("clip", "F32", [1, 3, 8], (HUGE, HUGE + 96)),
        ("tokens", "F32", [1, 3, 8], (HUGE + 96, HUGE + 192)),
        ("unconditional", "F32", [1, 3, 8], (HUGE + 192, HUGE + 288)),
    ]
    write_raw_safetensors(path, entries, HUGE + 288, read(path)[0])
    refuse(path, "wrong shape: face", PLUS)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch, about odd tensors
@pytest.mark.parametrize("case", corrupt_files.CASES)
def test_no_identity_file_at_all(tmp_path: Path, case: str) -> None:
    """Damaged adapters, other models, pickles with code: nothing of them is executed or read."""
    marker = tmp_path / "executed"
    path, _ = corrupt_files.CASES[case](tmp_path, marker)
    refuse(path, "")
    assert not marker.exists()
