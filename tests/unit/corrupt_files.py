"""Files that are no adapters, or no longer, or never meant to be: a table of how to make each.

A case writes a file into a folder and returns it, with a part of what should be said about it.
"""

from __future__ import annotations

import io
import json
import pickle
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from pack.bench import adapter_files
from pack.bench.adapter_files import Tensors, write_raw_safetensors, write_safetensors

Case = Callable[[Path, Path], tuple[Path, str]]

MAXIMUM_SECONDS = 10.0
MAXIMUM_BYTES = 64 << 20

CASES: dict[str, Case] = {}


class Usage:
    """Seconds and, on Linux, the rise of the process's peak memory within a `with` block."""

    def __enter__(self) -> Usage:
        self.seconds, self.bytes = time.monotonic(), 0
        self._before: int | None
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._before = _read_status("VmHWM")
        except OSError:
            self._before = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds = time.monotonic() - self.seconds
        if self._before is not None:
            self.bytes = _read_status("VmHWM") - self._before


def _read_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def add(name: str) -> Callable[[Case], Case]:
    def register(case: Case) -> Case:
        assert name not in CASES
        CASES[name] = case
        return case

    return register


@cache
def make(kind: str = "FaceID", token_width: int = 0, lora_rank: int = 0) -> Tensors:
    """A good adapter, as small as its kind allows."""
    width = token_width or (64 if kind == "FaceID PlusV2" else 8)
    return adapter_files.make(kind, width, lora_rank=lora_rank)


def write_good(folder: Path, **how: Any) -> Path:
    return write_safetensors(folder / "adapter.safetensors", make(**how))


def write_changed(folder: Path, changes: dict[str, Any], **how: Any) -> Path:
    """A good adapter with tensors replaced, added, or (None) left out."""
    tensors = {name: x for name, x in (make(**how) | changes).items() if x is not None}
    return write_safetensors(folder / "adapter.safetensors", tensors)


# --- Damaged .safetensors ------------------------------------------------------------------------

DAMAGED = "is damaged or incomplete"


def _cut(keep: Callable[[int], int], folder: Path, _marker: Path) -> tuple[Path, str]:
    path = write_good(folder)
    with path.open("r+b") as file:
        file.truncate(keep(path.stat().st_size))
    return path, DAMAGED


for _name, _keep in {
    "cut inside the header's length": lambda _: 4,
    "cut after the header's length": lambda _: 8,
    "cut inside the header": lambda _: 1000,
    "cut in half": lambda size: size // 2,
    "cut by one byte": lambda size: size - 1,
    "longer than it says": lambda size: size + 8,
}.items():
    CASES[_name] = partial(_cut, _keep)


def _content(name: str, content: bytes, folder: Path, _marker: Path) -> tuple[Path, str]:
    path = folder / name
    path.write_bytes(content)
    return path, DAMAGED


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
for _suffix in ("safetensors", "bin"):
    for _name, _bytes in {
        "empty": b"",
        "text": b"not an adapter\n" * 100,
        "web page": b"<!DOCTYPE html><html><body>404</body></html>",
        "pointer of git-lfs": LFS,
        "zeros": bytes(1 << 16),
        "header of 8 exabytes": b"\xff" * 7 + b"\x7f{}",
        "header of 90 megabytes that is not there": (90_000_000).to_bytes(8, "little") + b"{}",
        "header that is no JSON": (8).to_bytes(8, "little") + b'{"a": 1,',
        "header that is a list": (8).to_bytes(8, "little") + b"[1, 2]  ",
        "header nested too deep": (1 << 17).to_bytes(8, "little") + b'{"a":' + b"[" * (1 << 17),
    }.items():
        CASES[f"{_name} (.{_suffix})"] = partial(_content, f"adapter.{_suffix}", _bytes)

HALF = ("F16", [8, 8], (0, 128))
for _name, _entries, _size in (
    ("overlapping tensors", [HALF, ("F16", [8, 8], (64, 192))], 192),
    ("the same bytes twice", [HALF, HALF], 128),
    ("a gap between tensors", [HALF, ("F16", [8, 8], (256, 384))], 384),
    ("tensors past the end", [HALF, ("F16", [8, 8], (128, 256))], 128),
    ("a terabyte declared", [("F16", [1 << 20, 1 << 19], (0, 1 << 40))], 128),
    ("a shape that its bytes do not fill", [("F16", [1 << 20, 1 << 20], (0, 128))], 128),
    ("a shape beyond 64 bits", [("F16", [1 << 40, 1 << 40], (0, 128))], 128),
    ("a negative shape", [("F16", [-8, 8], (0, 128))], 128),
    ("bytes that end before they begin", [("F16", [8, 8], (128, 0))], 128),
    ("an unknown dtype", [("F17", [8, 8], (0, 128))], 128),
):

    def _raw(
        entries: list[tuple[str, list[int], tuple[int, int]]], size: int, folder: Path, _: Path
    ) -> tuple[Path, str]:
        names = ["image_proj.proj.0.weight", "image_proj.norm.weight"]
        rows = [(name, *entry) for name, entry in zip(names, entries, strict=False)]
        return write_raw_safetensors(folder / "adapter.safetensors", rows, size), DAMAGED

    CASES[_name] = partial(_raw, _entries, _size)


# --- Tensors that are not an adapter's -----------------------------------------------------------

UNQUANTISED = "Use the original, unquantised file"
NORM = "image_proj.norm.weight"
FIRST = "image_proj.proj.0.weight"
SECOND = "image_proj.proj.2.weight"
KEY = "ip_adapter.121.to_k_ip.weight"


def _cast(names: list[str], dtype: torch.dtype, folder: Path, _: Path) -> tuple[Path, str]:
    changes = {name: x.to(dtype) for name, x in make().items() if name in names or not names}
    return write_changed(folder, changes), UNQUANTISED


for _dtype in ("int8", "uint8", "int64", "bool", "float64", "float8_e4m3fn", "float8_e5m2"):
    CASES[f"all {_dtype}"] = partial(_cast, [], getattr(torch, _dtype))
CASES["one int8 layer"] = partial(_cast, [KEY], torch.int8)
CASES["one fp8 norm"] = partial(_cast, [NORM], torch.float8_e4m3fn)


def _change(
    changes: Callable[[], dict[str, Any]], said: str, how: dict[str, Any], folder: Path, _: Path
) -> tuple[Path, str]:
    return write_changed(folder, changes(), **how), said


def half(*size: int) -> torch.Tensor:
    return torch.zeros(size, dtype=torch.float16)


def rename_tensors(**how: Any) -> dict[str, Any]:
    """Every layer a second time, under the other spelling."""
    return {
        name.replace("ip_adapter.", "adapter_modules."): x
        for name, x in make(**how).items()
        if name.startswith("ip_adapter.")
    }


UNKNOWN_KIND = "is an IP-Adapter of an unknown kind"
COUNT = "cross-attention layers; SDXL has 70"
PERCEIVER = "image_proj.perceiver_resampler."
for _name, _changes, _said, _how in (
    ("a K' missing", lambda: {KEY: None}, COUNT, {}),
    ("a V' missing", lambda: {KEY.replace("_k_", "_v_"): None}, "missing: ", {}),
    ("a norm missing", lambda: {NORM: None}, UNKNOWN_KIND, {}),
    ("a bias missing", lambda: {"image_proj.norm.bias": None}, "missing: image_proj.norm", {}),
    ("an extra tensor", lambda: {"image_proj.more": half(3)}, "unexpected: image_proj.more", {}),
    ("an extra layer", lambda: {"ip_adapter.141.to_k_ip.weight": half(1280, 8)}, COUNT, {}),
    (
        "a layer under another number",
        lambda: {KEY: None, "ip_adapter.120.to_k_ip.weight": half(1280, 8)},
        "unexpected: ip_adapter.120",
        {},
    ),
    ("every layer twice", rename_tensors, "twice", {}),
    ("K' transposed", lambda: {KEY: half(8, 1280)}, "wrong shape: ip_adapter.121", {}),
    ("K' of another width", lambda: {KEY: half(640, 8)}, "expected (1280, 8)", {}),
    ("K' for other tokens", lambda: {KEY: half(1280, 16)}, "expected (1280, 8)", {}),
    ("K' without a shape", lambda: {KEY: half()}, "wrong shape", {}),
    ("K' empty", lambda: {KEY: half(1280, 0)}, "wrong shape", {}),
    ("no whole number of tokens", lambda: {SECOND: half(33, 1024)}, "wrong shape", {}),
    ("no tokens", lambda: {SECOND: half(0, 1024), SECOND[:-6] + "bias": half(0)}, UNKNOWN_KIND, {}),
    ("tokens of no width", lambda: {NORM: half(0)}, UNKNOWN_KIND, {}),
    ("a projection without a shape", lambda: {SECOND: half()}, UNKNOWN_KIND, {}),
    ("a projection with three sides", lambda: {FIRST: half(1, 2, 3)}, UNKNOWN_KIND, {}),
    ("latents with two sides", lambda: {"image_proj.latents": half(16, 96)}, UNKNOWN_KIND, {}),
    (
        "latents without number",
        lambda: {"image_proj.latents": half(1, 0, 96)},
        UNKNOWN_KIND,
        {"kind": "InstantID"},
    ),
    (
        "a resampler's layer missing",
        lambda: {n: None for n in make("InstantID") if ".layers.1." in n},
        "missing: image_proj.layers.1",
        {"kind": "InstantID"},
    ),
    (
        "a resampler without layers",
        lambda: {n: None for n in make("InstantID") if ".layers." in n},
        UNKNOWN_KIND,
        {"kind": "InstantID"},
    ),
    (
        "heads of a broken width",
        lambda: {f"image_proj.layers.{n}.0.to_q.weight": half(100, 96) for n in range(4)},
        UNKNOWN_KIND,
        {"kind": "InstantID"},
    ),
    (
        "no heads",
        lambda: {f"image_proj.layers.{n}.0.to_q.weight": half(0, 96) for n in range(4)},
        UNKNOWN_KIND,
        {"kind": "InstantID"},
    ),
    (
        "a perceiver that does not fit the tokens",
        lambda: {
            PERCEIVER + name: half(*size)
            for name, size in adapter_files.Resampler(128, 1, 1280, 64).shapes().items()
        },
        UNKNOWN_KIND,
        {"kind": "FaceID PlusV2"},
    ),
    (
        "a perceiver missing half",
        lambda: {n: None for n in make("FaceID PlusV2") if "perceiver_resampler.proj_out" in n},
        "missing: ",
        {"kind": "FaceID PlusV2"},
    ),
):
    CASES[_name] = partial(_change, _changes, _said, _how)

LORA = "ip_adapter.3.to_q_lora.{}.weight"
WITH_LORA = {"lora_rank": 1}
for _name, _changes, _said in (
    ("LoRA without its other half", lambda: {LORA.format("up"): None}, "LoRA"),
    ("LoRA of another width", lambda: {LORA.format("up"): half(641, 1)}, "LoRA"),
    ("LoRA of two ranks", lambda: {LORA.format("up"): half(640, 2)}, "LoRA"),
    ("LoRA with three sides", lambda: {LORA.format("up"): half(640, 1, 1)}, "LoRA"),
    ("LoRA of no rank", lambda: {LORA.format(s): half(640, 0) for s in ("up", "down")}, "LoRA"),
    (
        "LoRA of an attention that SDXL has not",
        lambda: {"ip_adapter.140.to_q_lora.up.weight": half(640, 1)},
        "no attention 140",
    ),
    (
        "LoRA of attention number 10 ** 5000",
        lambda: {f"ip_adapter.1{'0' * 5000}.to_q_lora.up.weight": half(640, 1)},
        "unexpected: ip_adapter.1",
    ),
    (
        "LoRA of one attention twice",
        lambda: {LORA.format("up").replace(".3.", ".003."): half(640, 1)},
        "unexpected: ip_adapter.003",
    ),
    ("LoRA in int8", lambda: {LORA.format("up"): torch.zeros(640, 1).char()}, UNQUANTISED),
):
    CASES[_name] = partial(_change, _changes, _said, WITH_LORA)


# --- Files for something else --------------------------------------------------------------------


def _other(
    shapes: dict[str, tuple[int, ...]], said: str, folder: Path, _: Path
) -> tuple[Path, str]:
    tensors = {name: half(*size) for name, size in shapes.items()}
    return write_safetensors(folder / "adapter.safetensors", tensors), said


_KEY_VALUES = {f"ip_adapter.{n}": s for n, s in adapter_files.shape_key_values(8).items()}
_FACE = {f"image_proj.{n}": s for n, s in adapter_files.shape_face_mlp(8).items()}
UNKNOWN = "is no adapter that this pack knows"
for _name, _shapes, _said in (
    (
        "FaceID for SD 1.5",
        _FACE
        | {f"ip_adapter.{2 * n + 1}.to_{x}_ip.weight": (320, 8) for n in range(16) for x in "kv"},
        "has 16 cross-attention layers",
    ),
    (
        "IP-Adapter whose norm does not fit",
        _KEY_VALUES
        | {"image_proj.proj.weight": (33, 1024), "image_proj.proj.bias": (33,)}
        | {"image_proj.norm.weight": (8,), "image_proj.norm.bias": (8,)},
        "wrong shape: image_proj.proj.weight is (33, 1024), expected (32, 1024)",
    ),
    (
        "full IP-Adapter",
        _KEY_VALUES
        | {"image_proj.proj.0.weight": (64, 1280), "image_proj.proj.0.bias": (64,)}
        | {"image_proj.proj.2.weight": (8, 64), "image_proj.proj.2.bias": (8,)}
        | {"image_proj.proj.3.weight": (8,), "image_proj.proj.3.bias": (8,)},
        UNKNOWN_KIND,
    ),
    (
        "PuLID",
        {"id_adapter.proj_out": (1024, 2048), "id_adapter_attn_layers.0.id_to_k.weight": (640, 8)},
        "is a PuLID adapter",
    ),
    (
        "PuLID v1 in IP-Adapter's form",
        _KEY_VALUES
        | {"image_proj.body.0.weight": (1024, 1280)}
        | {"image_proj.mapping_0.0.weight": (1024, 1024)},
        "is a PuLID adapter. It needs EVA-CLIP",
    ),
    (
        "PuLID v1.1 in IP-Adapter's form",
        _KEY_VALUES
        | {"image_proj.latents": (1, 32, 1024), "image_proj.proj_out": (1024, 2048)}
        | {"image_proj.id_embedding_mapping.0.weight": (1024, 1280)},
        "is a PuLID adapter. It needs EVA-CLIP",
    ),
    (
        "PhotoMaker V1",
        {"id_encoder.visual_projection_2.weight": (1280, 1024), "lora_weights.x": (4, 4)},
        "is PhotoMaker V1. It changes the prompt's words and has no image attention: put it into "
        "models/photomaker",
    ),
    (
        "PhotoMaker V2",
        {
            "id_encoder.visual_projection_2.weight": (1280, 1024),
            "id_encoder.qformer_perceiver.token_proj.2.weight": (4096, 2048),
        },
        "is PhotoMaker V2",
    ),
    (
        "Kolors' Plus",
        _KEY_VALUES
        | {"image_proj.latents": (1, 16, 2048), "image_proj.norm_out.weight": (2048,)}
        | {"image_proj.layers.0.0.to_out.weight": (2048, 768)},
        "is Kolors' IP-Adapter Plus. It was trained for Kolors",
    ),
    (
        "Kolors' FaceID Plus",
        _FACE | {"image_proj.perceiver_resampler.layers.0.0.to_out.weight": (4096, 64)},
        "is Kolors' IP-Adapter FaceID Plus. It was trained for Kolors",
    ),
    (
        "ConsistentID",
        {"image_proj_model.norm.weight": (2048,), "FacialEncoder.proj.weight": (8, 8)}
        | {"adapter_modules.1.to_k_ip.weight": (640, 8)},
        "is ConsistentID. It needs a face parser",
    ),
    (
        "HyperLoRA",
        {"0.to_q.id_down_basis": (128, 64, 8), "0.to_q.id_up_basis": (128, 8, 64)},
        "is HyperLoRA. It makes a LoRA of a face",
    ),
    (
        "Arc2Face's encoder",
        {"text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768)},
        "such as Arc2Face's. Arc2Face is for SD 1.5",
    ),
    (
        "Arc2Face's UNet",
        {"down_blocks.0.attentions.0.proj_in.weight": (320, 320, 1, 1)},
        "such as Arc2Face's. Arc2Face is for SD 1.5",
    ),
    ("PuLID's layers alone", {"id_adapter_attn_layers.0.id_to_k.weight": (640, 8)}, "PuLID"),
    ("K', V' alone", _KEY_VALUES, UNKNOWN),
    (
        "a checkpoint",
        {
            "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
            "first_stage_model.x": (4,),
        },
        UNKNOWN,
    ),
    (
        "a LoRA",
        {
            "lora_unet_input_blocks_4_1_proj_in.lora_up.weight": (640, 4),
            "lora_unet_input_blocks_4_1_proj_in.alpha": (),
        },
        UNKNOWN,
    ),
    ("a ControlNet", {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)}, UNKNOWN),
    ("no tensor at all", {}, UNKNOWN),
):
    CASES[_name] = partial(_other, _shapes, _said)


# --- Metadata of native files --------------------------------------------------------------------

MAPPER = {
    "face_width": 8,
    "face_hidden": 8,
    "face_tokens": 4,
    "clip_width": 8,
    "clip_hidden": 8,
    "token_width": 8,
}
NATIVE = {
    "format": "infinite-id",
    "version": "1",
    "mapper": json.dumps(MAPPER),
    "layers": json.dumps({"input_4_0": 8}),
}
METADATA = "metadata cannot be read"


def native_tensors() -> Tensors:
    shapes = {f"mapper.face.{n}": s for n, s in adapter_files.shape_face_mlp(8, hidden=8).items()}
    shapes["mapper.face.proj.0.weight"] = (8, 8)
    shapes |= {f"mapper.clip.proj.{n}.weight": (8, 8) for n in (0, 2)}
    shapes |= {f"mapper.clip.proj.{n}.bias": (8,) for n in (0, 2, 3)}
    shapes |= {"mapper.clip.proj.3.weight": (8,)}
    shapes |= {f"layers.input_4_0.to_{x}.weight": (8, 8) for x in "kv"}
    return {name: half(*size) for name, size in shapes.items()}


def write_native(folder: Path, metadata: dict[str, Any], tensors: dict[str, Any]) -> Path:
    """A good native adapter with changes; None leaves out."""
    written = {n: x for n, x in (native_tensors() | tensors).items() if x is not None}
    told = {n: x for n, x in (NATIVE | metadata).items() if x is not None}
    return write_safetensors(folder / "adapter.safetensors", written, told)


def _native(
    metadata: dict[str, Any], tensors: dict[str, Any], said: str, folder: Path, _: Path
) -> tuple[Path, str]:
    return write_native(folder, metadata, tensors), said


for _name, _metadata, _said in (
    ("native: of version 2", {"version": "2"}, "format version 2"),
    ("native: of no version", {"version": None}, "format version None"),
    ("native: no mapper", {"mapper": None}, METADATA),
    ("native: no layers", {"layers": None}, METADATA),
    ("native: JSON cut", {"mapper": NATIVE["mapper"][:20]}, METADATA),
    ("native: JSON nested too deep", {"mapper": "[" * 100_000}, METADATA),
    ("native: layers nested too deep", {"layers": '{"a":' * 100_000}, METADATA),
    ("native: a list of layers", {"layers": '["input_4_0"]'}, METADATA),
    ("native: mapper is null", {"mapper": "null"}, METADATA),
    ("native: layers are null", {"layers": "null"}, METADATA),
    ("native: unknown stage", {"layers": '{"inner_4_0": 8}'}, METADATA),
    ("native: address of two parts", {"layers": '{"input_4": 8}'}, METADATA),
    ("native: address of letters", {"layers": '{"input_a_b": 8}'}, METADATA),
    ("native: one layer twice", {"layers": '{"input_4_0": 8, "input_04_0": 8}'}, METADATA),
    ("native: another layer", {"layers": '{"input_4_1": 8}'}, "missing: layers.input_4_1"),
    ("native: no layer", {"layers": "{}"}, "unexpected: layers.input_4_0"),
    ("native: width of a million", {"layers": '{"input_4_0": 1000000}'}, METADATA),
    ("native: width 0", {"layers": '{"input_4_0": 0}'}, METADATA),
    ("native: width -8", {"layers": '{"input_4_0": -8}'}, METADATA),
    ("native: width of 5000 digits", {"layers": f'{{"input_4_0": 1{"0" * 5000}}}'}, METADATA),
    ("native: width infinite", {"layers": '{"input_4_0": Infinity}'}, METADATA),
    ("native: width true", {"layers": '{"input_4_0": true}'}, METADATA),
    ("native: width a string", {"layers": '{"input_4_0": "8"}'}, METADATA),
    ("native: width 8.0", {"layers": '{"input_4_0": 8.0}'}, METADATA),
    ("native: field missing", {"mapper": json.dumps({**MAPPER, "clip_width": None})}, METADATA),
    ("native: field too many", {"mapper": json.dumps({**MAPPER, "depth": 4})}, METADATA),
    ("native: huge mapper", {"mapper": json.dumps({**MAPPER, "token_width": 1 << 40})}, METADATA),
    (
        "native: the largest mapper",
        {"mapper": json.dumps(dict.fromkeys(MAPPER, 1 << 16))},
        "wrong shape: mapper.face.proj.2.weight",
    ),
    (
        "native: a hundred thousand layers",
        {"layers": json.dumps({f"input_{n}_0": 8 for n in range(100_000)})},
        METADATA,
    ),
):
    CASES[_name] = partial(_native, _metadata, {}, _said)

for _name, _tensors, _said in (
    ("native: extra tensor", {"layers.input_4_0.to_q.weight": half(8, 8)}, "unexpected: layers."),
    ("native: missing tensor", {"layers.input_4_0.to_v.weight": None}, "missing: layers.input_4_0"),
    ("native: int8 tensor", {"layers.input_4_0.to_v.weight": half(8, 8).char()}, UNQUANTISED),
):
    CASES[_name] = partial(_native, {}, _tensors, _said)


# --- .bin ----------------------------------------------------------------------------------------

CODE = "such a file can run any"


class Code:
    """Pickled as a call that makes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._marker,)


class Instance:
    """A class that an unpickler would have to import."""

    def __init__(self) -> None:
        self.weight = half(2)


def save(folder: Path, content: Any) -> Path:
    path = folder / "adapter.bin"
    torch.save(content, path)
    return path


@add("pickle with code")
def _(folder: Path, marker: Path) -> tuple[Path, str]:
    return save(folder, Code(marker)), CODE


@add("pickle with code inside a dictionary")
def _(folder: Path, marker: Path) -> tuple[Path, str]:
    return save(folder, replace_one(NORM, Code(marker))), CODE


@add("bare pickle with code")
def _(folder: Path, marker: Path) -> tuple[Path, str]:
    path = folder / "adapter.bin"
    path.write_bytes(pickle.dumps(Code(marker)))
    return path, DAMAGED


@add("pickle with code named .safetensors")
def _(folder: Path, marker: Path) -> tuple[Path, str]:
    return save(folder, Code(marker)).rename(folder / "adapter.safetensors"), DAMAGED


@add("pickle of a class's instance")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    return save(folder, {"image_proj": Instance()}), CODE


@add("safetensors named .bin")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    return write_good(folder).rename(folder / "adapter.bin"), DAMAGED


@add("zip named .safetensors")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    path = adapter_files.write_bin(folder / "adapter.bin", make())
    return path.rename(folder / "adapter.safetensors"), DAMAGED


@add("old PyTorch file")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    return adapter_files.write_bin(folder / "adapter.bin", make(), legacy=True), "adapter.bin"


def _cut_bin(keep: Callable[[int], int], folder: Path, _: Path) -> tuple[Path, str]:
    path = adapter_files.write_bin(folder / "adapter.bin", make())
    with path.open("r+b") as file:
        file.truncate(keep(path.stat().st_size))
    return path, DAMAGED


for _name, _keep in {
    "zip cut in half": lambda size: size // 2,
    "zip cut at its directory": lambda size: size - 1000,
    "zip cut by one byte": lambda size: size - 1,
}.items():
    CASES[_name] = partial(_cut_bin, _keep)


def _pickled(make_content: Callable[[], Any], said: str, folder: Path, _: Path) -> tuple[Path, str]:
    return save(folder, make_content()), said


def nest_in(depth: int, content: Any) -> Any:
    for _ in range(depth):
        content = {"a": content}
    return content


def contain_itself() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["image_proj"] = content
    return content


def share(levels: int, ways: int = 10) -> Any:
    """Ten ways to each of ten ways ...: small in the file, huge when followed."""
    content: Any = {str(n): half(2) for n in range(ways)}
    for _ in range(levels):
        content = {str(n): content for n in range(ways)}
    return content


def replace_one(name: str, value: Any) -> Any:
    return adapter_files.nest({n: x.contiguous() for n, x in make().items()} | {name: value})


def expand_all() -> Any:
    """A consistent adapter a million wide, of a few numbers."""
    wide = 1 << 20
    shapes = adapter_files.shape("FaceID", 8)
    return adapter_files.nest(
        {
            name: torch.zeros((), dtype=torch.float16).expand(
                [wide if n == 8 else 4 * wide if n == 32 else n for n in size]
            )
            for name, size in shapes.items()
        }
    )


NO_TENSOR = "not a tensor"
NO_DICTIONARY = "not a dictionary of tensors"
NO_NUMBERS = f"'{KEY}' is no ordinary tensor"
for _name, _make, _said in (
    ("pickle of nested lists", lambda: [[half(2)], [[half(2)]]], NO_DICTIONARY),
    ("pickle of a list inside", lambda: replace_one(NORM, [1.0] * 8), NO_TENSOR),
    ("pickle of a number", lambda: 3, NO_DICTIONARY),
    ("pickle of nothing", lambda: None, NO_DICTIONARY),
    ("pickle of a bare tensor", lambda: half(2, 2), NO_DICTIONARY),
    ("pickle with a text", lambda: replace_one(NORM, "weight"), NO_TENSOR),
    (
        "pickle with a sparse tensor",
        lambda: replace_one(KEY, half(1280, 8).to_sparse()),
        NO_NUMBERS,
    ),
    (
        "pickle with a compressed tensor",
        lambda: replace_one(KEY, half(1280, 8).to_sparse_csr()),
        NO_NUMBERS,
    ),
    (
        "pickle with a tensor without contents",
        lambda: replace_one(KEY, half(1280, 8).to("meta")),
        NO_NUMBERS,
    ),
    (
        "pickle with a quantised tensor",
        lambda: replace_one(
            KEY, torch.quantize_per_tensor(torch.zeros(1280, 8), 0.1, 0, torch.qint8)
        ),
        NO_NUMBERS,
    ),
    ("pickle in complex numbers", lambda: replace_one(NORM, half(8).to(torch.cfloat)), UNQUANTISED),
    (
        "pickle with an expanded tensor",
        lambda: replace_one(KEY, half(1).expand(1280, 8)),
        NO_NUMBERS,
    ),
    ("pickle a million wide", expand_all, "is no ordinary tensor"),
    ("pickle that contains itself", contain_itself, NO_TENSOR),
    ("pickle nested too deep", lambda: nest_in(300, {}), NO_TENSOR),
    ("pickle that unfolds", lambda: share(9), NO_TENSOR),
    ("pickle that unfolds at once", lambda: share(1, 1000), "more than 10000 tensors"),
    ("pickle of empty dictionaries", lambda: {"image_proj": {}, "ip_adapter": {}}, UNKNOWN),
):
    CASES[_name] = partial(_pickled, _make, _said)


def write_zip(folder: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "adapter.bin"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(f"archive/{name}", content)
    return path


VERSION = {"version": b"3\n", "byteorder": b"little"}


@add("zip without a pickle")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    return write_zip(folder, {**VERSION, "data/0": bytes(64)}), DAMAGED


@add("zip of something else")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    return write_zip(folder, {"readme.txt": b"hello"}), DAMAGED


@add("zip without a file")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    return write_zip(folder, {}), DAMAGED


@add("zip that inflates to 256 megabytes")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    path = folder / "adapter.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data.pkl", "w") as file:
            for _ in range(256):
                file.write(bytes(1 << 20))
        archive.writestr("archive/version", "3\n")
    return path, DAMAGED


@add("pickle of a chain of 100000")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    chain = b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 100_000 + b"}" + b"s" * 100_000 + b"."
    return write_zip(folder, {"data.pkl": chain, **VERSION}), "adapter"


@add("pickle that asks for 100 gigabytes")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    asks = pickle.dumps(_Call(bytearray, 10**11), protocol=2)
    return write_zip(folder, {"data.pkl": asks, **VERSION}), "adapter"


@add("pickle with a string of 4 gigabytes declared")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    return write_zip(folder, {"data.pkl": b"\x80\x02X\xff\xff\xff\xffa.", **VERSION}), "adapter"


@add("pickle cut")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    return write_zip(folder, {"data.pkl": b"\x80\x02}q\x00", **VERSION}), "adapter"


@add("storage of a terabyte declared")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    content = _pickle_tensor(numel=1 << 39, size=(1 << 19, 1 << 20))
    return write_zip(folder, {"data.pkl": content, "data/0": bytes(64), **VERSION}), "adapter"


@add("tensor beyond its storage")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    content = _pickle_tensor(numel=32, size=(1 << 14, 1 << 14))
    return write_zip(folder, {"data.pkl": content, "data/0": bytes(64), **VERSION}), DAMAGED


@add("storage that is not there")
def _(folder: Path, _marker: Path) -> tuple[Path, str]:
    return write_zip(folder, {"data.pkl": _pickle_tensor(32, (4, 8)), **VERSION}), DAMAGED


class _Call:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


class _Storage:
    def __init__(self, numel: int) -> None:
        self.numel = numel


def _pickle_tensor(numel: int, size: tuple[int, int]) -> bytes:
    """`{"image_proj": {"norm.weight": tensor}}` with a storage of `numel` halves, true or not."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if isinstance(obj, _Storage):
                return "storage", torch.HalfStorage, "0", "cpu", obj.numel
            return None

    rebuild = torch._utils._rebuild_tensor_v2
    tensor = _Call(rebuild, _Storage(numel), 0, size, (size[1], 1), False, OrderedDict())
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"image_proj": {"norm.weight": tensor}})
    return buffer.getvalue()
