"""Lists what is on this machine, for a report. Only the headers of model files are read."""

import json
import platform
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from os.path import realpath
from pathlib import Path
from typing import Any

import folder_paths
import nodes as host
import torch
from comfy import model_management
from comfy.supported_models import SDXL
from comfyui_version import __version__ as host_version

from ..infinite_id.adapters import formats
from ..infinite_id.adapters.adapter import FAMILIES, Adapter
from ..infinite_id.adapters.formats import FormatError
from ..infinite_id.adapters.mappers import Crop
from ..infinite_id.faces.providers import find_working_provider
from ..infinite_id.presets import PRESETS
from . import finding, folders
from .finding import CLIP_VISION
from .slow_folders import ask, describe_failure, show

ROOT = Path(__file__).parents[1]
STUB = "1.9999+gpu"
"""The version of the empty `onnxruntime` in requirements/, which keeps the real one away."""

MISSING = "missing"

_ONNXRUNTIMES = (
    "onnxruntime",
    *(f"onnxruntime-{kind}" for kind in ("gpu", "directml", "openvino", "rocm", "silicon")),
)
_NOTES = {"MarkdownNote", "Note"}
_SDXL_PARAMETERS = 2_567_463_684
_LATENT = 4, 128, 128
"""Of a picture of 1024x1024."""
_CLIP_STATES = 257
"""Of CLIP ViT-H/14, for one photo."""


def list_presets() -> Iterator[str]:
    """What each preset of the unified loader lacks, the recommended one first."""
    for name in PRESETS:
        gaps = finding.list_gaps(name)
        yield f"{name} lacks {'; '.join(gaps)}" if gaps else f"{name}: ready"


def list_versions() -> Iterator[str]:
    """Versions of the pack, the host and the packages that both depend on."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    own = re.findall(r'^version = "(.+)"', project, re.MULTILINE)
    frontend = _find_version("comfyui-frontend-package")
    yield f"Infinite-ID {own[0]}, ComfyUI {host_version}, frontend {frontend}"
    names = ("torch", "insightface", "numpy", "safetensors", "einops")
    packages = ", ".join(f"{name} {_find_version(name)}" for name in names)
    yield f"Python {platform.python_version()} on {platform.platform()}; {packages}"
    packs = {realpath(folder) for folder in folder_paths.get_folder_paths("custom_nodes")}
    loaded = (Path(path) for path in host.LOADED_MODULE_DIRS.values())
    yield f"node packs: {', '.join(sorted(p.name for p in loaded if realpath(p.parent) in packs))}"


def _find_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return MISSING


def list_devices() -> Iterator[str]:
    """Where models run, and how much memory there is."""
    device = model_management.get_torch_device()
    cpu = torch.device("cpu")
    for place in dict.fromkeys((device, cpu)):
        total = model_management.get_total_memory(place) / 1e9
        free = model_management.get_free_memory(place) / 1e9
        name = model_management.get_torch_device_name(place)
        yield f"{name}: {free:.1f} of {total:.1f} GB free"


def list_memory() -> Iterator[str]:
    """What a picture with a person takes on the device, as the host counts it."""
    from ..infinite_id.training.host_count import UNET, make_model

    device = model_management.get_torch_device()
    dtype = model_management.unet_dtype(
        device, model_params=_SDXL_PARAMETERS, supported_dtypes=SDXL.supported_inference_dtypes
    )
    model = make_model(UNET, dtype, torch.device("meta"))
    weights = sum(x.nbytes for x in model.diffusion_model.parameters())
    plain, person = (float(model.memory_required((rows, *_LATENT))) for rows in (2, 4))
    kind = str(dtype).removeprefix("torch.")
    yield f"SDXL's weights as {kind} here: {weights / 1e9:.1f} GB; fp8 and GGUF files take less"
    yield (
        f"a step of one 1024x1024 picture: {plain / 1e9:.1f} GB; with a person in two streams "
        f"{person / 1e9:.1f} GB, as ComfyUI counts it"
    )
    total = model_management.get_total_memory(device)
    if weights + person <= total:
        yield f"both fit into the {total / 1e9:.1f} GB of this device"
        return
    yield (
        f"both do not fit into the {total / 1e9:.1f} GB of this device: ComfyUI then keeps a part "
        "of the weights elsewhere, and steps are slower. Draw smaller pictures, load the model in "
        "fp8 or as a GGUF, or set mixed_attention to off."
    )


def list_face_runtime() -> Iterator[str]:
    """Whether the packages that find faces work, and where their nets can run."""
    found = {name: version for name in _ONNXRUNTIMES if (version := _find_version(name)) != MISSING}
    real = [f"{name} {version}" for name, version in found.items() if version != STUB]
    yield f"onnxruntime: {', '.join(real) or MISSING}"
    again = f"`pip uninstall {' '.join(found)}`, then install requirements.txt again"
    try:
        import insightface.app  # noqa: F401
        import onnxruntime

        yield f"providers: {', '.join(onnxruntime.get_available_providers())}"
        working = find_working_provider()
    except Exception as error:  # an incomplete installation can raise any error
        repair = (
            again if found else "Install `pip install -r requirements.txt` in this pack's folder"
        )
        yield f"PROBLEM: the face nets cannot run ({error!r}). {repair[0].upper()}{repair[1:]}."
        return
    yield f"face nets run on: {working}"
    if len(real) > 1:
        yield (
            f"{' and '.join(real)} share one folder: installing or removing one of them can break "
            f"the other. Where that has happened: {again}."
        )
    if torch.version.cuda and torch.cuda.is_available() and working == "CPU":
        yield (
            "PROBLEM: there is a CUDA GPU, and the face nets run on the CPU. onnxruntime-gpu must "
            "be the only onnxruntime, for the CUDA that PyTorch has, which is "
            f"{torch.version.cuda}: {again}."
        )


def list_folders(names: Iterable[str]) -> Iterator[str]:
    """The folders that are searched for models of these kinds."""
    names = list(names)
    for path in dict.fromkeys(path for name in names for path in folders.roots(name)):
        yield f"{path}{_describe_state(path)}"
    yield from (f"PROBLEM: {problem}" for problem in folders.list_problems(names))


def _describe_state(path: Path) -> str:
    try:
        kind = ask(("state", path), path.stat).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return " (there is no such folder)"
    except OSError as error:
        return f" (it cannot be read: {error.strerror or error})"
    return "" if stat.S_ISDIR(kind) else " (it is a file, not a folder)"


def list_adapters() -> Iterator[str]:
    """Every adapter file and what it was recognised as."""
    for choice in folders.list_adapters():
        yield _describe_file(choice, folders.find_adapter, _describe_adapter)


def _describe_adapter(path: Path) -> str:
    adapter = formats.inspect(path)
    recipe, layers = adapter.config.mapper.recipe, len(adapter.config.layers)
    family = FAMILIES.get((layers, adapter.config.mapper.token_width), "another kind of model")
    parts = [
        f"{recipe.name} for {family}",
        _tell_tokens(adapter),
        f"{layers} layers",
        f"face model: {recipe.face_model or ('none' if recipe.crop is Crop.WHOLE else 'any')}",
        f"CLIP vision: {recipe.clip_model or 'none'}",
        f"keys and values {_count_key_values(adapter) / 1e6:.1f} MB with one photo",
    ]
    return ", ".join([*parts, "with a LoRA"] if adapter.lora else parts)


def _tell_tokens(adapter: Adapter) -> str:
    one, two = (_count_tokens(adapter, states) for states in (1, 2))
    return f"{one} tokens" if one == two else f"{one - 1} tokens and one for each CLIP state"


def _count_key_values(adapter: Adapter) -> int:
    """Return the bytes of keys and values of one photo and of no identity."""
    return 2 * adapter.count_bytes(_count_tokens(adapter, _CLIP_STATES))


def _count_tokens(adapter: Adapter, states: int) -> int:
    """Return the tokens of a photo with so many CLIP states, by the mapper on meta tensors."""
    recipe = adapter.config.mapper.recipe
    face = torch.empty(1, recipe.face_width, device="meta")
    clip = torch.empty(1, states, recipe.clip_width, device="meta")
    return int(adapter.mapper(face, clip).shape[1])


def list_clip_vision() -> Iterator[str]:
    """Every CLIP vision file and which encoder it is."""
    for name in folders.list_files(CLIP_VISION):
        yield _describe_file(name, _find_clip_vision, _describe_clip_vision)


def _find_clip_vision(name: str) -> Path:
    return folders.find_file(CLIP_VISION, name, "CLIP vision model", "Load CLIP Vision")


def _describe_clip_vision(path: Path) -> str:
    stat = path.stat()
    return finding.name_clip_file(path, stat.st_size, stat.st_mtime_ns) or "no CLIP image encoder"


def _describe_file(name: str, find: Callable[[str], Path], describe: Callable[[Path], str]) -> str:
    shown = show(name)
    try:
        path = find(name)
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        return f"{shown} ({size}): {describe(path)}"
    except FormatError as error:
        return f"{shown}: PROBLEM: {str(error).replace(path.name, show(path.name))}"
    except OSError as error:
        reason = error.strerror or (str(error) if "PROBLEM" in str(error) else "it is a dead link")
        return f"{shown}: PROBLEM: it cannot be read ({reason})."


def list_face_packs() -> Iterator[str]:
    """Every InsightFace pack with the files of its nets."""
    for name, folder in folders.list_packs().items():
        try:
            sizes = {p.name: p.stat().st_size for p in sorted(folder.glob("*.onnx"))}
        except OSError as error:
            yield f"{show(name)}: PROBLEM: {describe_failure(folder, error)}"
            continue
        nets = [f"{show(net)} ({size / 1e6:.1f} MB)" for net, size in sizes.items()]
        few = "" if len(nets) > 1 else "; PROBLEM: a detector and a recogniser are two files"
        yield f"{show(name)}: {', '.join(nets)}{few}"


def list_gaps() -> Iterator[str]:
    """Yield what the workflows need and this machine lacks, then the workflows that are ready."""
    gaps: dict[str, list[str]] = {}
    ready = []
    for path in sorted((ROOT / "workflows").glob("*.json")):
        found = dict.fromkeys(_find_gaps(json.loads(path.read_text(encoding="utf-8"))))
        for gap in found:
            gaps.setdefault(gap, []).append(path.stem)
        if not found:
            ready.append(path.stem)
    for gap, workflows in gaps.items():
        yield f"{gap}: {', '.join(workflows)}"
    yield f"nothing is missing: {', '.join(ready) or 'none of them'}"


def _find_gaps(workflow: Mapping[str, Any]) -> Iterator[str]:
    subgraphs = {g["id"]: g for g in workflow.get("definitions", {}).get("subgraphs", ())}
    inside = [node for graph in subgraphs.values() for node in graph["nodes"]]
    for node in [n for n in (*workflow["nodes"], *inside) if n["type"] not in subgraphs]:
        kind = host.NODE_CLASS_MAPPINGS.get(node["type"])
        if kind is None:
            if node["type"] not in _NOTES:
                yield f"no node {node['type']} in this ComfyUI"
            continue
        name = host.NODE_DISPLAY_NAME_MAPPINGS.get(node["type"], node["type"])
        try:
            inputs = _list_inputs(kind)
        except OSError as error:
            yield f"{name}: its list cannot be read ({error.strerror or error})"
            continue
        for value, choices in _list_choices(node, inputs):
            if value not in choices:
                instead = f"choose one of {len(choices)} here" if choices else "none here"
                yield f"{name}, {value} ({instead})"


def _list_inputs(kind: Any) -> dict[str, Any]:
    groups = kind.INPUT_TYPES()
    return {**groups.get("required", {}), **groups.get("optional", {})}


def _list_choices(
    node: Mapping[str, Any], inputs: Mapping[str, Any]
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the chosen value of each list of a node, with the choices that there are."""
    values = iter(node.get("widgets_values", ()))
    for entry in node.get("inputs", ()):
        if "widget" not in entry:
            continue
        value = next(values, None)
        kind, *rest = inputs.get(entry["name"], ("",))
        options = rest[0] if rest else {}
        if options.get("control_after_generate"):
            next(values, None)  # what the page does with a seed after each run
        choices = kind if isinstance(kind, list) else options.get("options")
        if choices is not None and entry.get("link") is None:
            yield str(value), choices
