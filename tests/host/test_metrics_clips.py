"""CLIP-T and CLIP-I beside torchmetrics', by transformers' CLIP with the same random weights.

The weights are tiny, in the layouts of OpenAI's files: open_clip's, and the Hub's that ComfyUI
reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.clip_vision
import comfy.sd
import numpy as np
import open_clip
import pytest
import torch
import torchmetrics
import transformers
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from pack.infinite_id.errors import UserError
from pack.infinite_id.metrics import scores
from pack.infinite_id.metrics.clips import OpenClip
from pack.infinite_id.metrics.host_clip import HostClip
from PIL import Image
from safetensors.torch import save_file

WIDTH, SIDE, PATCH, LAYERS, HEADS = 32, 32, 8, 2, 2
TEXTS = [
    "a photo of a (smiling) woman on the beach",
    r"a charcoal \(drawing\) of a man/\woman",
    "snow",
]
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def reference() -> Any:
    """transformers' CLIP with random weights."""
    common = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": "gelu",
    }
    text = {**common, "vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406}
    vision = {**common, "image_size": SIDE, "patch_size": PATCH}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
        )
        for name, x in net.named_parameters():
            torch.nn.init.normal_(x, 1.0 if "norm.weight" in name else 0.0, 0.2)
    return net.eval()


class Callables:
    """What torchmetrics asks for: a model that gives plain features, and a processor."""

    def __init__(self, net: Any) -> None:
        self.net, self.config = net, net.config
        folder = Path(comfy.sd.__file__).with_name("sd1_tokenizer")
        self._tokenize = transformers.CLIPTokenizer.from_pretrained(folder)
        self._mean, self._std = (
            torch.tensor(x).view(3, 1, 1)
            for x in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
        )

    def to(self, _device: torch.device) -> Callables:
        return self

    def get_image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.net.visual_projection(self.net.vision_model(pixels).pooler_output)

    def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.net.text_projection(self.net.text_model(ids, mask).pooler_output)

    def __call__(self, text: Any = None, images: Any = None, **options: Any) -> dict[str, Any]:
        if text is not None:
            return dict(self._tokenize(text, **options))
        pixels = [(image.float() / 255 - self._mean) / self._std for image in images]
        return {"pixel_values": torch.stack(pixels)}


def clip_score(reference: Any, source: Any, target: Any) -> float:
    own = Callables(reference)
    made: Any = lambda: (own, own)  # noqa: E731
    score = torchmetrics.functional.multimodal.clip_score(source, target, made)
    return float(score)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """BGR, of the size that the net takes."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (len(TEXTS), 4, 4, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(x).resize((SIDE, SIDE))).copy() for x in small]


def to_tensor(photo: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(photo[..., ::-1].copy()).permute(2, 0, 1)


def check(clip: Any, reference: Any, photos: list[np.ndarray]) -> None:
    """Each picture with its text and with its neighbour, on torchmetrics' scale of 100."""
    pictures, texts = clip.see(photos), clip.read(TEXTS)
    # Clip scores hide what lies below 0: the features themselves do not.
    own = Callables(reference)
    words = own(TEXTS, return_tensors="pt", padding=True)
    seen = own(images=[to_tensor(photo) for photo in photos])
    for found, expected in (
        (texts, own.get_text_features(words["input_ids"], words["attention_mask"])),
        (pictures, own.get_image_features(seen["pixel_values"])),
    ):
        close = pytest.approx(scores.unit(expected.numpy()), abs=TOLERANCE)
        assert scores.unit(found) == close
    clip_t = scores.clip_scores(pictures, texts)
    clip_i = scores.clip_scores(pictures, np.roll(pictures, 1, axis=0))
    assert len(set(clip_t.round(3))) == len(TEXTS)
    for n, photo in enumerate(photos):
        t = clip_score(reference, to_tensor(photo), TEXTS[n])
        i = clip_score(reference, to_tensor(photo), to_tensor(photos[n - 1]))
        assert max(clip_t[n], 0) == pytest.approx(t / scores.TORCHMETRICS, abs=TOLERANCE)
        assert max(clip_i[n], 0) == pytest.approx(i / scores.TORCHMETRICS, abs=TOLERANCE)


# --- open_clip --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model config that open_clip is told of, and weights in its layout."""
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": WIDTH,
        "vision_cfg": {
            **{"image_size": SIDE, "patch_size": PATCH, "layers": LAYERS},
            **{"width": WIDTH, "head_width": WIDTH // HEADS},
        },
        "text_cfg": {
            **{"context_length": 77, "vocab_size": 49408, "layers": LAYERS},
            **{"width": WIDTH, "heads": HEADS},
        },
    }
    (folder / "tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny.json")
    save_file(to_open_clip(reference.state_dict()), folder / "tiny.safetensors")
    return folder


def to_open_clip(hub: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The Hub's names -> OpenAI's: q, k, v in one, projections transposed."""
    own = {
        "logit_scale": hub["logit_scale"],
        "token_embedding.weight": hub["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": hub["text_model.embeddings.position_embedding.weight"],
        "text_projection": hub["text_projection.weight"].T,
        "visual.class_embedding": hub["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": hub["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": hub["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": hub["visual_projection.weight"].T,
    }
    for end in ("weight", "bias"):
        own[f"ln_final.{end}"] = hub[f"text_model.final_layer_norm.{end}"]
        own[f"visual.ln_pre.{end}"] = hub[f"vision_model.pre_layrnorm.{end}"]
        own[f"visual.ln_post.{end}"] = hub[f"vision_model.post_layernorm.{end}"]
        for theirs, ours in (("text_model", ""), ("vision_model", "visual.")):
            for n in range(LAYERS):
                old, new = f"{theirs}.encoder.layers.{n}", f"{ours}transformer.resblocks.{n}"
                qkv = [hub[f"{old}.self_attn.{x}_proj.{end}"] for x in "qkv"]
                own[f"{new}.attn.in_proj_{end}"] = torch.cat(qkv)
                for a, b in (
                    ("self_attn.out_proj", "attn.out_proj"),
                    ("layer_norm1", "ln_1"),
                    ("layer_norm2", "ln_2"),
                    ("mlp.fc1", "mlp.c_fc"),
                    ("mlp.fc2", "mlp.c_proj"),
                ):
                    own[f"{new}.{b}.{end}"] = hub[f"{old}.{a}.{end}"]
    return {name: x.contiguous() for name, x in own.items()}


def test_open_clip_agrees_with_torchmetrics(
    files: Path, reference: Any, photos: list[np.ndarray]
) -> None:
    clip = OpenClip("tiny", files / "tiny.safetensors", "cpu")
    check(clip, reference, photos)
    assert "bicubic" in clip.preprocessing
    assert "tiny" in clip.name


def test_open_clips_mistakes_are_explained(files: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model of open_clip"):
        OpenClip("nothing", files / "tiny.safetensors", "cpu")
    with pytest.raises(UserError, match=r"no \.safetensors file"):
        OpenClip("tiny", tmp_path / "weights.pt", "cpu")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not fit tiny"):
        OpenClip("tiny", tmp_path / "other.safetensors", "cpu")


# --- ComfyUI ----------------------------------------------------------------------------------


def host_clip(folder: Path, hub: dict[str, torch.Tensor], projection: int = WIDTH) -> HostClip:
    config = {
        **{"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "hidden_act": "gelu"},
        **{"num_hidden_layers": LAYERS, "num_attention_heads": HEADS},
    }
    text = {name: x.clone() for name, x in hub.items() if name.startswith("text_")}
    target = SimpleNamespace(params={}, clip=SD1ClipModel, tokenizer=SD1Tokenizer)
    options = {"clip_l_model_config": config, "dtype": torch.float32}
    clip = comfy.sd.CLIP(target, state_dict=[text], model_options=options)
    for_pictures = {
        **{**config, "image_size": SIDE, "patch_size": PATCH, "num_channels": 3},
        **{"projection_dim": projection, "model_type": "clip_vision_model", "layer_norm_eps": 1e-5},
    }
    (folder / "vision.json").write_text(json.dumps(for_pictures))  # older hosts take no dict
    vision = comfy.clip_vision.ClipVisionModel(str(folder / "vision.json"))
    pictures = {name: x.clone() for name, x in hub.items() if name.startswith("vis")}
    pictures["visual_projection.weight"] = pictures["visual_projection.weight"][:projection]
    vision.model.float()  # ComfyUI stores half precision
    vision.load_sd(pictures)
    return HostClip(clip, vision)


def test_the_hosts_clip_agrees_with_torchmetrics(
    reference: Any, photos: list[np.ndarray], tmp_path: Path
) -> None:
    check(host_clip(tmp_path, reference.state_dict()), reference, photos)


def test_text_and_picture_of_two_clips_are_refused(reference: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gives 32 numbers and the CLIP vision 16"):
        host_clip(tmp_path, reference.state_dict(), projection=16)


def test_a_text_encoder_without_its_projection_is_refused(tmp_path: Path, reference: Any) -> None:
    names = {n: x for n, x in reference.state_dict().items() if n.startswith("text_model")}
    save_file(names, tmp_path / "clip_l.safetensors")
    with pytest.raises(UserError, match="lacks the projection"):
        HostClip.load(tmp_path / "clip_l.safetensors", tmp_path / "vision.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(UserError, match=r"no \.safetensors file"):
        HostClip.load(tmp_path / "text.safetensors", tmp_path / "vision.safetensors")
