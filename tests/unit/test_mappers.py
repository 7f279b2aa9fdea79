"""Each mapper against the published arithmetic, written out once more in plain torch.

The references read tensors by the published files' names, and know none of the pack's modules.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pack.bench import adapter_files
from pack.bench.adapter_files import FILES, NAMES, POOLED, TOKENS, Tensors
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig, encode
from pack.infinite_id.adapters.formats.ip_adapter import ORDER, recognise
from pack.infinite_id.adapters.mappers import ClipLayer, Crop, FaceVector
from torch import Tensor

TOLERANCE = 1e-5
KINDS = tuple(FILES)
RAW = ("InstantID", "FaceID Portrait unnorm")
WIDTHS = {"narrow": 128, "true": adapter_files.TOKEN_WIDTH}


# --- The published arithmetic ------------------------------------------------------------------


def reference(kind: str, w: Tensors, face: Tensor, clip: Tensor, scale: float = 1.0) -> Tensor:
    """Tokens from a raw face vector `(b, 512)` and penultimate CLIP states `(b, l, 1280)`.

    For the plain IP-Adapter the CLIP states are one, the pooled embedding.
    """
    if kind in POOLED:
        tokens = clip[:, 0] @ w["proj.weight"].T + w["proj.bias"]
        return norm(w, "norm", tokens.reshape(len(clip), 4, -1))
    if kind in RAW:
        return resample(w, "", w["latents"], face[:, None])
    if kind.startswith("Plus"):
        return resample(w, "", w["latents"], clip)
    length = face.pow(2).sum(-1, keepdim=True).sqrt()
    tokens = face_mlp(w, torch.where(length > 0, face / length, 0))
    if kind != "FaceID PlusV2":
        return tokens
    return tokens + scale * resample(w, "perceiver_resampler.", tokens, clip)


def face_mlp(w: Tensors, face: Tensor) -> Tensor:
    hidden = face @ w["proj.0.weight"].T + w["proj.0.bias"]
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    tokens = hidden @ w["proj.2.weight"].T + w["proj.2.bias"]
    width = w["norm.weight"].shape[0]
    return norm(w, "norm", tokens.reshape(len(face), -1, width))


def resample(w: Tensors, prefix: str, latents: Tensor, features: Tensor) -> Tensor:
    """Four layers: latents += attention(latents; features, latents); latents += mlp(latents)."""
    x = features @ w[f"{prefix}proj_in.weight"].T + w[f"{prefix}proj_in.bias"]
    latents = latents.expand(len(features), -1, -1)
    for layer in range(4):
        attention, forward = f"{prefix}layers.{layer}.0", f"{prefix}layers.{layer}.1"
        own = norm(w, f"{attention}.norm2", latents)
        read = torch.cat([norm(w, f"{attention}.norm1", x), own], 1)
        k, v = (read @ w[f"{attention}.to_kv.weight"].T).tensor_split(2, -1)
        out = attend(own @ w[f"{attention}.to_q.weight"].T, k, v)
        latents = latents + out @ w[f"{attention}.to_out.weight"].T
        hidden = norm(w, f"{forward}.0", latents) @ w[f"{forward}.1.weight"].T
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        latents = latents + hidden @ w[f"{forward}.3.weight"].T
    out = latents @ w[f"{prefix}proj_out.weight"].T + w[f"{prefix}proj_out.bias"]
    return norm(w, f"{prefix}norm_out", out)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Head by head, 64 channels each."""
    heads = []
    for qh, kh, vh in zip(q.split(64, -1), k.split(64, -1), v.split(64, -1), strict=True):
        heads.append((qh @ kh.transpose(1, 2) / 8).softmax(-1) @ vh)
    return torch.cat(heads, -1)


def norm(w: Tensors, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


# --- The pack against it -----------------------------------------------------------------------


def build(kind: str, token_width: int, scale: float = 1.0) -> tuple[Adapter, Tensors]:
    """A mapper recognised by its shapes, and the fp32 weights that it and the reference share."""
    shapes = adapter_files.shape(kind, token_width)
    spec = recognise(Path(FILES[kind]), shapes, scale)
    weights = adapter_files.draw(
        adapter_files.shape_projection(kind, token_width), seed=3, dtype=torch.float32
    )
    with torch.device("meta"):
        adapter = Adapter(AdapterConfig(spec, {}))
    adapter.mapper.load_state_dict(weights, assign=True)
    return adapter, weights


def draw_features(kind: str) -> tuple[Tensor, Tensor]:
    """Two raw face vectors, as long as ArcFace's are, and what the kind reads of CLIP."""
    generator = torch.Generator().manual_seed(4)
    face = torch.randn(2, 512, generator=generator)
    size = (2, 1, POOLED[kind]) if kind in POOLED else (2, 33, 1280)
    return face, torch.randn(size, generator=generator)


def difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens(kind: str, size: str) -> None:
    """Tokens of two faces and of none, at a small width and at the published shapes.

    None: zeros for both.
    """
    adapter, weights = build(kind, WIDTHS[size])
    face, clip = draw_features(kind)
    face = torch.cat([face, torch.zeros_like(face[:1])])
    clip = torch.cat([clip, torch.zeros_like(clip[:1])])
    tokens = encode(adapter, face, clip)
    assert tokens.shape == (3, TOKENS[kind], WIDTHS[size])
    expected = reference(kind, weights, face, clip)
    for ours, theirs in zip(tokens, expected, strict=True):
        assert difference(ours, theirs) <= TOLERANCE
    assert difference(tokens[0], tokens[1]) > 1e-2  # else both could ignore their input


@pytest.mark.parametrize("kind", KINDS)
def test_length_of_the_face_vector(kind: str) -> None:
    """FaceID's mappers see a normed vector whatever they are given, others the raw one."""
    adapter, _ = build(kind, WIDTHS["narrow"])
    face, clip = draw_features(kind)
    changed = difference(encode(adapter, 3 * face, clip), encode(adapter, face, clip))
    raw = adapter.config.mapper.recipe.face_vector is FaceVector.RAW
    assert raw == (kind in RAW)
    if raw:
        assert changed > 1e-2
    else:
        assert changed <= TOLERANCE


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.7])
def test_shortcut_scale(scale: float) -> None:
    """PlusV2's scale weighs what was read in the CLIP states; 0 leaves FaceID's tokens."""
    adapter, weights = build("FaceID PlusV2", WIDTHS["narrow"], scale)
    face, clip = draw_features("FaceID PlusV2")
    tokens = encode(adapter, face, clip)
    expected = reference("FaceID PlusV2", weights, face, clip, scale)
    assert difference(tokens, expected) <= TOLERANCE
    alone = difference(tokens, reference("FaceID", weights, face, clip))
    assert alone <= TOLERANCE if scale == 0 else alone > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_reads_only_what_it_was_trained_on(kind: str) -> None:
    """A change of a feature that the kind does not take changes nothing."""
    adapter, _ = build(kind, WIDTHS["narrow"])
    face, clip = draw_features(kind)
    tokens = encode(adapter, face, clip)
    takes_face = "FaceID" in kind or kind == "InstantID"
    takes_clip = not takes_face or kind == "FaceID PlusV2"
    assert (not torch.equal(encode(adapter, face.flip(1), clip), tokens)) == takes_face
    assert (not torch.equal(encode(adapter, face, clip.flip(2)), tokens)) == takes_clip


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_half_precision_are_computed_in_float32(kind: str) -> None:
    adapter, weights = build(kind, WIDTHS["narrow"])
    adapter.mapper.half()
    rounded = {name: x.half().float() for name, x in weights.items()}
    face, clip = draw_features(kind)
    tokens = encode(adapter, face, clip)
    assert tokens.dtype == torch.float32
    assert difference(tokens, reference(kind, rounded, face, clip)) <= TOLERANCE


N, R = FaceVector.NORMED, FaceVector.RAW
WANTED = {
    "FaceID": (512, N, "buffalo_l", "", Crop.LOOSE),
    "FaceID PlusV2": (512, N, "buffalo_l", "CLIP ViT-H/14", Crop.ARCFACE),
    "FaceID Portrait": (512, N, "buffalo_l", "", Crop.LOOSE),
    "FaceID Portrait unnorm": (512, R, "buffalo_l", "", Crop.LOOSE),
    "IP-Adapter": (0, N, "", "CLIP ViT-bigG/14", Crop.WHOLE),
    "IP-Adapter ViT-H": (0, N, "", "CLIP ViT-H/14", Crop.WHOLE),
    "Plus": (0, N, "", "CLIP ViT-H/14", Crop.WHOLE),
    "Plus Composition": (0, N, "", "CLIP ViT-H/14", Crop.WHOLE),
    "Plus Face": (0, N, "", "CLIP ViT-H/14", Crop.LOOSE),
    "InstantID": (512, R, "antelopev2", "", Crop.LOOSE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_each_kind_wants(kind: str) -> None:
    """Face model, vector, CLIP model and layer, and crop, as upstream trained."""
    r = build(kind, WIDTHS["narrow"])[0].config.mapper.recipe
    assert r.name == NAMES[kind]
    assert (r.face_width, r.face_vector, r.face_model, r.clip_model, r.crop) == WANTED[kind]
    assert r.clip_layer is (ClipLayer.POOLED if kind in POOLED else ClipLayer.PENULTIMATE)
    assert (r.clip_width > 0) == bool(r.clip_model)


def test_order_of_layers() -> None:
    """K', V' are numbered down, up, mid: the n-th is the published table's n-th, for all 70."""
    assert len(ORDER) == 70
    assert [str(block) for block in ORDER] == [block for block, _ in adapter_files.LAYERS]
    numbers = {2 * n + 1: str(block) for n, block in enumerate(ORDER)}
    # The corners of the published table, by hand.
    assert numbers[1] == "input_4_0"
    assert numbers[7] == "input_5_1"
    assert numbers[9] == "input_7_0"
    assert numbers[47] == "input_8_9"
    assert numbers[49] == "output_0_0"
    assert numbers[107] == "output_2_9"
    assert numbers[109] == "output_3_0"
    assert numbers[119] == "output_5_1"
    assert numbers[121] == "middle_0_0"
    assert numbers[139] == "middle_0_9"
