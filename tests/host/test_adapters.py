"""Adapters that users already have, on the real host: from the file to the UNet's output.

The miniature with SDXL's 70 layers is narrower than SDXL, so that files of its widths are read by
telling the reader of files those widths; names, numbering and structure are the published ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.lora
import folder_paths
import pytest
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from pack.bench import adapter_files
from pack.bench.adapter_files import FILES, NAMES, POOLED, Tensors
from pack.bench.unet_adapters import list_attentions, make_file
from pack.infinite_id.adapters import formats
from pack.infinite_id.adapters.adapter import Adapter
from pack.infinite_id.adapters.formats import Kind, ip_adapter
from pack.infinite_id.application import Application
from pack.infinite_id.attention.blocks import list_layers
from pack.infinite_id.attention.mixed import Mixing
from pack.infinite_id.faces.face import Face
from pack.infinite_id.host.encode import encode_identities
from pack.infinite_id.host.patch import apply
from pack.infinite_id.identities.identity import Identity, Source
from pack.miniature.host import register
from pack.miniature.random_weights import write
from pack.nodes import folders
from pack.nodes.load import LoadInfiniteIDModel, describe
from pack.nodes.lora import ApplyFaceIDLoRA
from pack.tests.host.world import World, difference
from pack.tests.unit.test_mappers import reference
from torch import Tensor, nn

TOLERANCE = 1e-5
LATER = 1e-4  # after a step: guidance enlarges what the first forward rounded
KINDS = tuple(FILES)
TOKEN_WIDTH = 128  # the miniature's context
CLIP_WIDTH = 64
POOLED_WIDTH = 48
WEIGHT = 0.8
STEPS = 2


# --- Files of the miniature's widths -----------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A file's tensors, and what the pack read from it."""

    kind: str
    tensors: Tensors
    adapter: Adapter


@pytest.fixture(params=KINDS)
def case(
    request: pytest.FixtureRequest, deep: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Case:
    return read(request.param, deep, tmp_path, monkeypatch)


def read(kind: str, deep: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(ip_adapter, "SDXL", list_layers(deep.unet))
    width = POOLED_WIDTH if kind in POOLED else CLIP_WIDTH
    tensors = make_file(deep.unet, kind, TOKEN_WIDTH, width)
    name = Path(FILES[kind]).with_suffix(".safetensors")
    adapter = formats.load(adapter_files.write_safetensors(folder / name, tensors))
    assert adapter.config.mapper.recipe.name == NAMES[kind]
    return Case(kind, tensors, adapter)


# --- Tokens ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    register()
    folder = tmp_path_factory.mktemp("clip")
    return comfy.clip_vision.load(str(write(folder, "tiny")["clip_vision"]))


def draw_face() -> Face:
    generator = torch.Generator().manual_seed(6)
    box = torch.tensor([0.0, 0.0, 64.0, 64.0]).numpy()
    return Face(box, box.reshape(2, 2), 0.9, torch.randn(512, generator=generator).numpy())


def draw_crop() -> Tensor:
    return torch.rand(1, 224, 224, 3, generator=torch.Generator().manual_seed(7))


def expect_tokens(case: Case, clip: Any) -> tuple[Tensor, Tensor]:
    """Tokens and unconditional tokens, by the published arithmetic on the host's CLIP states."""
    start = "image_proj."
    weights = {n.removeprefix(start): x for n, x in case.tensors.items() if n.startswith(start)}
    face = torch.from_numpy(draw_face().embedding)[None]
    hidden = clip.encode_image(draw_crop())["penultimate_hidden_states"]
    nothing = clip.model(pixel_values=torch.zeros(1, 3, 224, 224), intermediate_output=-2)[1]
    if case.kind in POOLED:
        hidden = clip.encode_image(draw_crop())["image_embeds"][:, None]
        nothing = torch.zeros_like(hidden)
    with torch.inference_mode():
        tokens = reference(case.kind, weights, face, hidden)
        return tokens, reference(case.kind, weights, torch.zeros_like(face), nothing)


def encode(case: Case, clip: Any) -> Identity:
    source = Source("drawn", "")
    (identity,) = encode_identities(case.adapter, clip, [draw_face()], draw_crop(), [source])
    return identity


def test_tokens(case: Case, clip: Any) -> None:
    """Both sides, from a face and a crop, with the host's CLIP encoder."""
    identity = encode(case, clip)
    tokens, unconditional = expect_tokens(case, clip)
    assert difference(identity.tokens, tokens) <= TOLERANCE
    assert difference(identity.unconditional, unconditional) <= TOLERANCE
    assert difference(identity.tokens, identity.unconditional) > 1e-2


@torch.inference_mode()
def test_nothing_is_the_mean_colour(clip: Any) -> None:
    """The picture that is zero in normalised pixels is one of CLIP's mean colour, not a black one.

    The host rounds pictures to 8 bits: hence the tolerance.
    """
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).expand(1, 224, 224, 3)
    nothing = clip.model(pixel_values=torch.zeros(1, 3, 224, 224), intermediate_output=-2)[1]
    hidden = "penultimate_hidden_states"
    grey = difference(nothing, clip.encode_image(mean)[hidden])
    black = difference(nothing, clip.encode_image(torch.zeros_like(mean))[hidden])
    assert grey < 0.05 < black
    assert grey < black / 5


# --- The UNet's output -------------------------------------------------------------------------


@contextmanager
def reference_hooks(unet: Any, tensors: Tensors, tokens: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Every attn2 of the UNet, computed anew: text attention plus WEIGHT times image attention.

    Weights come by the file's numbers; `tokens` are for rows of the positive and the negative.
    """
    handles = []
    for number, (_, attention) in enumerate(list_attentions(unet)):
        if number % 2:
            k, v = (tensors[f"ip_adapter.{number}.to_{x}_ip.weight"] for x in "kv")
            hook = make_reference_hook(k, v, tokens)
            handles.append(attention.register_forward_hook(hook, with_kwargs=True))
    assert len(handles) == 70
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def make_reference_hook(to_k: Tensor, to_v: Tensor, tokens: tuple[Tensor, Tensor]) -> Any:
    def hook(attention: Any, args: Any, kwargs: Any, _output: Tensor) -> Tensor:
        (x,), text = args, kwargs["context"]
        conds = kwargs["transformer_options"]["cond_or_uncond"]
        rows = len(x) // len(conds)
        identity = torch.cat([tokens[cond].expand(rows, -1, -1) for cond in conds])
        q = attention.to_q(x)
        out = attend(q, attention.to_k(text), attention.to_v(text), attention.heads)
        image = attend(q, identity @ to_k.T, identity @ to_v.T, attention.heads)
        return attention.to_out(out + WEIGHT * image)

    return hook


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    parts = zip(*(x.chunk(heads, -1) for x in (q, k, v)), strict=True)
    scale = (q.shape[-1] // heads) ** -0.5
    return torch.cat([(q @ k.mT * scale).softmax(-1) @ v for q, k, v in parts], -1)


def run(world: World, model: ModelPatcher, cfg: float = 5.0) -> list[Tensor]:
    """What the UNet gave at each step, and the samples."""
    outputs: list[Tensor] = []

    def keep(_module: Any, _args: Any, output: Tensor) -> None:
        outputs.append(output.clone())

    handle = world.unet.register_forward_hook(keep)
    try:
        samples = world.sample(model, steps=STEPS, cfg=cfg)
    finally:
        handle.remove()
    assert len(outputs) == STEPS
    return [*outputs, samples]


def test_unet_output(case: Case, clip: Any, deep: World) -> None:
    """Identity attention only: file, face and crop -> UNet, all 70 layers, both conds."""
    identity = encode(case, clip)
    application = Application(identity, weight=WEIGHT, mixing=Mixing.OFF)
    ours = run(deep, apply(deep.model, application))
    with reference_hooks(deep.unet, case.tensors, expect_tokens(case, clip)):
        theirs = run(deep, deep.model)
    found = [difference(a, b) for a, b in zip(ours, theirs, strict=True)]
    print(case.adapter.config.mapper.recipe.name, *(f"{x:.1e}" for x in found))
    assert found[0] <= TOLERANCE
    assert max(found) <= LATER
    assert difference(ours[0], run(deep, deep.model)[0]) > 1e-2


# --- FaceID's LoRA -----------------------------------------------------------------------------


@pytest.fixture
def face_id(deep: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    return read("FaceID", deep, tmp_path, monkeypatch)


def apply_lora(model: ModelPatcher, adapter: Adapter, strength: float) -> ModelPatcher:
    return ApplyFaceIDLoRA.execute(model, adapter, strength).result[0]


@dataclass(frozen=True)
class Layer:
    """One linear layer that the LoRA changes."""

    name: str
    linear: nn.Linear
    change: Tensor


def list_lora(unet: Any, tensors: Tensors) -> list[Layer]:
    """`up @ down` of every layer, by the file's numbers."""
    layers = []
    for number, (name, attention) in enumerate(list_attentions(unet)):
        for x in ("q", "k", "v", "out"):
            part = "to_out.0" if x == "out" else f"to_{x}"
            start = f"ip_adapter.{number}.to_{x}_lora"
            change = tensors[f"{start}.up.weight"] @ tensors[f"{start}.down.weight"]
            layers.append(Layer(f"{name}.{part}", attention.get_submodule(part), change))
    return layers


@pytest.mark.parametrize("strength", [1.0, 0.6, -0.5])
def test_lora_changes_every_attention(deep: World, face_id: Case, strength: float) -> None:
    """W + strength * up @ down, for q, k, v and out of all 140 attentions and nothing else."""
    patches = apply_lora(deep.model, face_id.adapter, strength).patches
    layers = list_lora(deep.unet, face_id.tensors)
    assert len(layers) == 560
    assert patches.keys() == {f"diffusion_model.{layer.name}.weight" for layer in layers}
    for layer in layers:
        key = f"diffusion_model.{layer.name}.weight"
        weight = layer.linear.weight.detach()
        patched = comfy.lora.calculate_weight(patches[key], weight.clone(), key)
        assert difference(patched - weight, strength * layer.change) <= TOLERANCE
    assert deep.model.patches == {}


def test_lora_in_the_unet_output(deep: World, face_id: Case) -> None:
    """The host's result is that of a UNet whose weights were changed by hand; later, of none."""
    before = run(deep, deep.model)
    ours = run(deep, apply_lora(deep.model, face_id.adapter, 0.6))
    after = run(deep, deep.model)
    layers = list_lora(deep.unet, face_id.tensors)
    originals = [layer.linear.weight.detach().clone() for layer in layers]
    with torch.no_grad():
        for layer in layers:
            layer.linear.weight += 0.6 * layer.change
        theirs = run(deep, deep.model)
        for layer, original in zip(layers, originals, strict=True):
            layer.linear.weight.copy_(original)
    assert difference(ours[0], theirs[0]) <= TOLERANCE
    assert difference(ours[-1], theirs[-1]) <= LATER
    assert difference(ours[0], before[0]) > 1e-2
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_lora_of_strength_zero(deep: World, face_id: Case) -> None:
    ours = run(deep, apply_lora(deep.model, face_id.adapter, 0.0))
    assert all(torch.equal(a, b) for a, b in zip(ours, run(deep, deep.model), strict=True))


def test_lora_with_the_identity(deep: World, face_id: Case, clip: Any) -> None:
    """As FaceID was trained: LoRA and image attention at once, in either order of the nodes."""
    application = Application(encode(face_id, clip), weight=WEIGHT, mixing=Mixing.OFF)
    one = run(deep, apply_lora(apply(deep.model, application), face_id.adapter, 1.0))
    two = run(deep, apply(apply_lora(deep.model, face_id.adapter, 1.0), application))
    with reference_hooks(deep.unet, face_id.tensors, expect_tokens(face_id, clip)):
        theirs = run(deep, apply_lora(deep.model, face_id.adapter, 1.0))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert difference(one[0], theirs[0]) <= TOLERANCE
    assert difference(one[-1], theirs[-1]) <= LATER


@pytest.mark.parametrize("kind", ["InstantID", "Plus Face"])
def test_adapter_without_lora(
    kind: str, deep: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = read(kind, deep, tmp_path, monkeypatch).adapter
    with pytest.raises(ValueError, match="holds no LoRA; only FaceID adapters do"):
        apply_lora(deep.model, adapter, 1.0)


def test_lora_for_another_model(tiny: World, face_id: Case) -> None:
    with pytest.raises(ValueError, match=r"does not fit this model.*Model: 11 layers"):
        apply_lora(tiny.model, face_id.adapter, 1.0)


# --- Memory modes of the host --------------------------------------------------------------------


@contextmanager
def memory_mode(share: float | None) -> Iterator[None]:
    """Have the host keep this share of a model's weights on its device and bring the rest as used.

    None: as it likes. The device is the CPU all the same: what is used is the host's own partial
    loading, with weights cast, and LoRAs added, in each layer's forward.
    """
    load = model_management.LoadedModel.model_load

    def load_part(self: Any, lowvram_model_memory: float = 0, **how: Any) -> Any:
        if share is not None:
            lowvram_model_memory = max(1.0, share * self.model.model_size())
        return load(self, lowvram_model_memory, **how)

    model_management.unload_all_models()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_management.LoadedModel, "model_load", load_part)
        yield
    model_management.unload_all_models()


@pytest.mark.parametrize("share", [0.5, 0.0], ids=["low VRAM", "no VRAM"])
def test_memory_modes(deep: World, face_id: Case, clip: Any, share: float) -> None:
    """Identity and LoRA: the same picture, however little of the model lies on the device."""
    application = Application(encode(face_id, clip), weight=WEIGHT)
    model = apply(apply_lora(deep.model, face_id.adapter, 0.6), application)
    with memory_mode(None):
        whole = run(deep, model)
        assert model.loaded_size() >= 0.99 * model.model_size()
    with memory_mode(share):
        parts = run(deep, model)
        assert model.loaded_size() <= (share + 0.05) * model.model_size()
    assert difference(parts[0], whole[0]) <= TOLERANCE
    assert difference(parts[-1], whole[-1]) <= LATER


# --- The loader node ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "rank", "told"),
    [
        (
            "FaceID",
            2,
            "IP-Adapter FaceID; wants face model buffalo_l, no CLIP vision, with a LoRA: see Apply "
            "FaceID LoRA",
        ),
        (
            "FaceID PlusV2",
            0,
            "IP-Adapter FaceID PlusV2; wants face model buffalo_l, CLIP vision CLIP ViT-H/14",
        ),
        (
            "Plus Face",
            0,
            "IP-Adapter Plus Face; wants a face model to find faces, CLIP vision CLIP ViT-H/14",
        ),
        ("InstantID", 0, "InstantID; wants face model antelopev2, no CLIP vision"),
        (
            "IP-Adapter",
            0,
            "IP-Adapter; wants no face model, CLIP vision CLIP ViT-bigG/14",
        ),
    ],
)
@pytest.mark.parametrize("folder", ["ipadapter", "instantid"])
def test_loader_node_tells_what_it_found(
    kind: str, rank: int, told: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another pack's folder, as `.bin`, under a name that says something else."""
    folders.register()
    known = folder_paths.folder_names_and_paths[folder]
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, folder, ([str(tmp_path)], set(known[1]))
    )
    tensors = adapter_files.make(kind, 64 if "V2" in kind else 8, lora_rank=rank)
    adapter_files.write_bin(tmp_path / "sd15.bin", tensors)
    choice = f"{folder}/sd15.bin"
    assert choice in folders.list_adapters()
    adapter, info = LoadInfiniteIDModel.execute(choice, 0.5).result
    assert info == describe(adapter) == f"sd15.bin is {told}"
    assert getattr(adapter.config.mapper, "scale", 0.5) == 0.5
    if kind == "Plus Face":
        adapter, info = LoadInfiniteIDModel.execute(choice, 1.0, Kind.COMPOSITION.value).result
        assert "IP-Adapter Plus Composition; wants no face model" in info
