"""IP-Adapter in its forms for SDXL, and InstantID.

`image_proj.*` is the mapper. `ip_adapter.<2n+1>.to_{k,v}_ip.weight` are K', V' of the n-th
cross-attention in the order *down, up, mid*, which is not the order of execution. FaceID files hold
LoRA weights beside them, `ip_adapter.<m>.to_{q,k,v,out}_lora.{down,up}.weight`, of all 140
attentions: they are kept apart, as `FaceLoRA`.

Kinds that have the same tensors are told apart by the user's choice or the file's name:
InstantID and FaceID Portrait unnorm, and Plus Face, Plus and Plus Composition.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...attention.blocks import SDXL, Block
from ...tensor_files import KNOWN, MAX_WIDTH, FormatError, Shapes, TensorFile, check_shapes
from ..adapter import Adapter, AdapterConfig
from ..lora import FaceLoRA
from ..mappers import MapperSpec
from ..mappers.ip_adapter import (
    FaceIDConfig,
    FaceIDPlusConfig,
    Kind,
    PerceiverConfig,
    PlusConfig,
    PooledConfig,
    RawFaceConfig,
)
from ..mappers.resampler import HEAD_WIDTH

ORDER: tuple[Block, ...] = tuple(
    block for stage in ("input", "output", "middle") for block in SDXL if block.stage == stage
)
"""SDXL's cross-attentions as diffusers numbers them: down, up, mid."""

_LORA = re.compile(r"ip_adapter\.(0|[1-9][0-9]{0,3})\.to_(q|k|v|out)_lora\.(down|up)\.weight")
_ARCFACE_WIDTH = 512
_RAW_FACE = (Kind.INSTANT_ID, Kind.PORTRAIT_UNNORM)
_PLUS = (Kind.PLUS_FACE, Kind.PLUS, Kind.COMPOSITION)
_NAMES = {
    Kind.PORTRAIT_UNNORM: "portrait|unnorm",
    Kind.COMPOSITION: "composition",
    Kind.PLUS: "plus(?!.?face)",
}
"""Words in the names of each kind's published files, the rarer words first."""


def matches(names: Mapping[str, object]) -> bool:
    """Whether these are the tensors of an IP-Adapter-like file."""
    return any(name.startswith("image_proj.") for name in names)


def load(file: TensorFile, shortcut_scale: float, kind: Kind | None) -> Adapter:
    """Read an adapter and, if there is one, its LoRA. Weights keep the file's dtype, on the CPU.

    Args:
        kind: the user's choice among kinds with the same tensors.

    Raises:
        FormatError: if the tensors are not those of an SDXL adapter, listing what differs.
    """
    file.check_floats()
    names = {_rename(name): name for name in file.shapes}
    if len(names) != len(file.shapes):
        raise FormatError(
            f"{file.path.name} holds layers twice, as 'ip_adapter' and as 'adapter_modules'."
        )
    shapes = {name: file.shapes[original] for name, original in names.items()}
    config = AdapterConfig(recognise(file.path, shapes, shortcut_scale, kind), SDXL)
    with torch.device("meta"):
        adapter = Adapter(config)
    own = {_to_file_name(key): key for key in adapter.state_dict()}
    lora = {name: shape for name, shape in shapes.items() if _LORA.fullmatch(name)}
    expected = {name: tuple(adapter.state_dict()[key].shape) for name, key in own.items()}
    check_shapes(file.path, {n: s for n, s in shapes.items() if n not in lora}, expected)
    _check_lora(file.path, lora)
    adapter.load_state_dict({own[n]: file.read(names[n]) for n in own}, assign=True)
    adapter.lora = _read_lora(file, {name: names[name] for name in lora})
    return adapter


def recognise(
    path: Path, shapes: Shapes, shortcut_scale: float, kind: Kind | None = None
) -> MapperSpec:
    """Tell the architecture of the mapper from its tensors.

    Raises:
        FormatError: if the architecture is unknown, is for another model than SDXL, or contradicts
            the user's choice.
    """
    count = sum(name.endswith("to_k_ip.weight") for name in shapes)
    if count != len(SDXL):
        raise FormatError(
            f"{path.name} has {count} cross-attention layers; SDXL has {len(SDXL)}. It was made "
            "for another model (16 layers: SD 1.5). Use the adapter's SDXL version."
        )
    try:
        _check_sizes(shapes)
        spec = _recognise_layout(path, shapes, shortcut_scale, kind)
    except (KeyError, ValueError, IndexError) as error:
        raise FormatError(
            f"{path.name} is an IP-Adapter of an unknown kind (its 'image_proj' has other "
            f"tensors). {KNOWN}"
        ) from error
    if kind is not None and getattr(spec, "kind", None) is not kind:
        raise FormatError(
            f"{path.name} is {spec.recipe.name} and cannot be '{kind.value}': it has other "
            "tensors. Set kind to 'auto'."
        )
    return spec


def _recognise_layout(
    path: Path, shapes: Shapes, shortcut_scale: float, kind: Kind | None
) -> MapperSpec:
    if "image_proj.latents" in shapes:
        return _recognise_resampler(path, shapes, kind)
    if "image_proj.proj.weight" in shapes:
        return _recognise_pooled(shapes)
    if "image_proj.perceiver_resampler.proj_in.weight" in shapes:
        face = _face_mlp(shapes)
        perceiver = _perceiver(shapes, "image_proj.perceiver_resampler.")
        if perceiver.width != face.token_width:
            raise ValueError(f"{perceiver.width} wide perceiver of {face.token_width} tokens")
        return FaceIDPlusConfig(face, perceiver, shortcut_scale)
    return _face_mlp(shapes)


def _check_sizes(shapes: Shapes) -> None:
    """Raises ValueError if the mapper's tensors are empty or absurdly large."""
    sizes = [n for name, s in shapes.items() if name.startswith("image_proj.") for n in s]
    if not all(0 < n <= MAX_WIDTH for n in sizes):
        raise ValueError(f"sizes out of range: {min(sizes)} to {max(sizes)}")


def _recognise_resampler(path: Path, shapes: Shapes, kind: Kind | None) -> MapperSpec:
    _, tokens, _ = shapes["image_proj.latents"]
    (token_width,) = shapes["image_proj.norm_out.weight"]
    perceiver = _perceiver(shapes, "image_proj.")
    if perceiver.features == _ARCFACE_WIDTH:
        return RawFaceConfig(tokens, perceiver, token_width, _choose(path, _RAW_FACE, kind))
    return PlusConfig(tokens, perceiver, token_width, _choose(path, _PLUS, kind))


def _choose(path: Path, kinds: Sequence[Kind], choice: Kind | None) -> Kind:
    """Choose among kinds with the same tensors: the user's, else the name's, else the first."""
    if choice is not None and choice in kinds:
        return choice
    name = path.name.lower()
    named = (kind for kind, sign in _NAMES.items() if kind in kinds and re.search(sign, name))
    return next(named, kinds[0])


def _recognise_pooled(shapes: Shapes) -> PooledConfig:
    width, clip_width = shapes["image_proj.proj.weight"]
    (token_width,) = shapes["image_proj.norm.weight"]
    return PooledConfig(clip_width, width // token_width, token_width)


def _face_mlp(shapes: Shapes) -> FaceIDConfig:
    hidden, face = shapes["image_proj.proj.0.weight"]
    (token_width,) = shapes["image_proj.norm.weight"]
    tokens = shapes["image_proj.proj.2.weight"][0] // token_width
    return FaceIDConfig(face, hidden, tokens, token_width)


def _perceiver(shapes: Shapes, prefix: str) -> PerceiverConfig:
    width, features = shapes[f"{prefix}proj_in.weight"]
    inner, _ = shapes[f"{prefix}layers.0.0.to_q.weight"]
    hidden, _ = shapes[f"{prefix}layers.0.1.1.weight"]
    if inner % HEAD_WIDTH:
        raise ValueError(f"{inner} is no multiple of a head's width")
    depth = sum(
        bool(re.fullmatch(rf"{re.escape(prefix)}layers\.\d+\.0\.to_q\.weight", n)) for n in shapes
    )
    return PerceiverConfig(width, inner, hidden, depth, features)


def _rename(name: str) -> str:
    """Undo the renaming by converters that write `adapter_modules` for `ip_adapter`."""
    return re.sub(r"^adapter_modules\.", "ip_adapter.", name)


def _to_file_name(key: str) -> str:
    """The file's name for an entry of `Adapter.state_dict()`."""
    if key.startswith("mapper."):
        return key.replace("mapper.", "image_proj.", 1)
    _, block, projection, _ = key.split(".")
    number = 2 * ORDER.index(Block.parse(block)) + 1
    return f"ip_adapter.{number}.{projection}_ip.weight"


def _check_lora(path: Path, shapes: Shapes) -> None:
    """Raises FormatError unless both halves of each layer are there and fit it and each other."""
    for name in shapes:
        match = _LORA.fullmatch(name)
        assert match is not None
        number, projection = int(match[1]), match[2]
        if number >= 2 * len(ORDER):
            raise FormatError(f"{path.name}: there is no attention {number} in SDXL.")
        width = SDXL[ORDER[number // 2]]
        reads_text = number % 2 == 1 and projection in "kv"
        layer = name.rsplit(".", 2)[0]
        down, up = (shapes.get(f"{layer}.{side}.weight", ()) for side in ("down", "up"))
        fits = len(down) == 2 and down[0] > 0 and (reads_text or down[1] == width)
        if not fits or up != (width, down[0]):
            raise FormatError(
                f"{path.name}: its LoRA does not fit SDXL at {layer}, {width} wide: "
                f"down {down or 'missing'}, up {up or 'missing'}."
            )


def _read_lora(file: TensorFile, names: dict[str, str]) -> FaceLoRA | None:
    """`{new name: name in the file}` -> the LoRA with its attentions' addresses."""
    tensors: dict[tuple[Block, str, str, str], Tensor] = {}
    for name, original in names.items():
        match = _LORA.fullmatch(name)
        assert match is not None
        number, projection, side = match.groups()
        attention = "attn2" if int(number) % 2 else "attn1"
        tensors[ORDER[int(number) // 2], attention, projection, side] = file.read(original)
    return FaceLoRA(tensors) if tensors else None
