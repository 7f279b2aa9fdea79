"""Mistakes in the graph are refused at the node that holds them, in words that help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import comfy.clip_vision
import comfy.model_base
import comfy.supported_models
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.attention.blocks import SDXL
from pack.infinite_id.faces.face import Face
from pack.infinite_id.faces.photo import read_photo
from pack.infinite_id.host.encode import encode_identities
from pack.infinite_id.host.patch import read_unet, save_time
from pack.infinite_id.identities.identity import Identity, Source
from pack.infinite_id.identities.mixing import stack
from pack.infinite_id.savings import Savings
from pack.miniature.host import register
from pack.miniature.random_weights import write
from pack.nodes.apply import ApplyInfiniteID
from pack.nodes.identity import EncodeIdentity
from pack.tests.host.stable_worlds import SMALL_UNET

if TYPE_CHECKING:
    from pack.tests.host.world import World

SETTINGS: dict[str, Any] = {
    "weight": 1.0,
    "style": "photo",
    "mixed_attention": "mixed",
    "start_percent": 0.0,
    "end_percent": 1.0,
    "style_in_cross_attention": False,
}


def apply(model: ModelPatcher, identity: Identity, **changes: Any) -> Any:
    return ApplyInfiniteID.execute(model, identity, **{**SETTINGS, **changes})


def patcher(network: Any) -> ModelPatcher:
    return ModelPatcher(network, torch.device("cpu"), torch.device("cpu"))


def test_sd15_model(tiny: World) -> None:
    config = comfy.supported_models.SD15({**SMALL_UNET, "context_dim": 768})
    model = patcher(comfy.model_base.BaseModel(config, device=torch.device("cpu")))
    with pytest.raises(ValueError, match=r"does not fit this model.*768 wide context.*SDXL"):
        apply(model, tiny.identity)


SD3 = {"depth": 1, "in_channels": 4, "patch_size": 2, "num_patches": 64, "adm_in_channels": 8}
FLUX = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 8,
    "context_in_dim": 16,
    "hidden_size": 48,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [8, 8, 8],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
WITHOUT_UNET = {
    "SD3": (comfy.supported_models.SD3, comfy.model_base.SD3, SD3),
    "Flux": (comfy.supported_models.Flux, comfy.model_base.Flux, FLUX),
}


@pytest.mark.parametrize("name", WITHOUT_UNET)
def test_model_without_a_unet(tiny: World, name: str) -> None:
    configure, make, shape = WITHOUT_UNET[name]
    model = patcher(make(configure(shape), device=torch.device("cpu")))
    with pytest.raises(ValueError, match=f"works on SDXL models; this model is {name}"):
        apply(model, tiny.identity)


def test_identity_of_an_adapter_for_another_model(tiny: World, deep: World) -> None:
    with pytest.raises(ValueError, match=r"70 cross-attention layers.*Model: 11 layers"):
        apply(tiny.model, deep.identity)


def test_adapter_with_wrong_widths(deep: World) -> None:
    own = deep.identity.adapter.config
    wider = AdapterConfig(own.mapper, {block: 2 * width for block, width in own.layers.items()})
    identity = Identity(deep.identity.tokens, deep.identity.tokens, Adapter(wider))
    with pytest.raises(
        ValueError, match=r"Layer widths differ, 70 in all, first input_4_0: 128 != 64"
    ):
        apply(deep.model, identity)


def test_identities_of_different_adapters(tiny: World, deep: World) -> None:
    with pytest.raises(ValueError, match="different adapters cannot be mixed"):
        stack([tiny.identity, deep.identity])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_mask_that_is_no_number(tiny: World, bad: float) -> None:
    mask = torch.ones(1, 64, 64)
    mask[0, 3, 5] = bad
    with pytest.raises(ValueError, match="mask holds values that are not numbers"):
        apply(tiny.model, tiny.identity, mask=mask)


def test_range_that_never_acts(tiny: World) -> None:
    with pytest.raises(
        ValueError, match=r"start_percent \(0.6\) must be below end_percent \(0.4\)"
    ):
        apply(tiny.model, tiny.identity, start_percent=0.6, end_percent=0.4)


@pytest.fixture(scope="module")
def clip_vision(tmp_path_factory: pytest.TempPathFactory) -> Any:
    register()
    folder: Path = tmp_path_factory.mktemp("clip")
    return comfy.clip_vision.load(str(write(folder, "tiny")["clip_vision"]))


CROP, SOURCE = torch.zeros(1, 224, 224, 3), [Source("drawn", "")]


def some_face(width: int = 512) -> Face:
    box = torch.tensor([0.0, 0.0, 64.0, 64.0]).numpy()
    return Face(box, box[:4].reshape(2, 2), 0.9, torch.ones(width).numpy())


def test_wrong_clip_vision_model(clip_vision: Any) -> None:
    adapter = Adapter(AdapterConfig(MapperConfig(), dict(list(SDXL.items())[:1])))
    with pytest.raises(ValueError, match=r"gives 64 wide features.*1280 wide.*load CLIP ViT-H/14"):
        encode_identities(adapter, clip_vision, [some_face()], CROP, SOURCE)


def test_wrong_face_model(clip_vision: Any) -> None:
    mapper = MapperConfig(clip_width=64, token_width=128)
    adapter = Adapter(AdapterConfig(mapper, dict(list(SDXL.items())[:1])))
    with pytest.raises(ValueError, match=r"gives 128 numbers.*trained on 512"):
        encode_identities(adapter, clip_vision, [some_face(128)], CROP, SOURCE)


def test_image_that_is_no_photo(tiny: World, clip_vision: Any) -> None:
    image = torch.rand(2, 64, 48, 3)
    image[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"cannot use photo 2 of 2 \(48x64\): .*NaN"):
        EncodeIdentity.execute(tiny.identity.adapter, None, image, clip_vision)
    with pytest.raises(ValueError, match="2 channels; expected 1, 3 or 4"):
        read_photo(torch.rand(8, 8, 2))


class TrTUnet:
    """Stands where the TensorRT pack puts its engine: no module, and no blocks."""

    dtype = torch.float16


class Quantised(torch.nn.Module):
    """A wrapper that keeps the blocks where they were."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.input_blocks, self.middle_block = unet.input_blocks, unet.middle_block
        self.output_blocks = unet.output_blocks


def test_an_engine_in_the_unets_place() -> None:
    network = comfy.model_base.SDXL.__new__(comfy.model_base.SDXL)
    torch.nn.Module.__init__(network)
    network.diffusion_model = TrTUnet()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"a TrTUnet runs in its place.*ordinary checkpoint"):
        read_unet(SimpleNamespace(model=network))  # type: ignore[arg-type]


def test_a_wrapper_that_keeps_the_blocks(tiny: World) -> None:
    wrapped = SimpleNamespace(diffusion_model=Quantised(tiny.unet))
    assert read_unet(SimpleNamespace(model=wrapped)) == read_unet(tiny.model)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["tokens", "unconditional", "shares"])
def test_an_identity_of_nan_is_refused_at_apply(least: World, name: str, value: float) -> None:
    identity = replace(least.identity, sources=(Source("photo 1 of 2", "00"),))
    broken = torch.ones(1, identity.tokens.shape[1]) if name == "shares" else identity.tokens
    broken = broken.clone()
    broken[0, -1] = value
    with pytest.raises(ValueError, match=r"not numbers \(NaN\).* made of: photo 1 of 2"):
        apply(least.model, replace(identity, **{name: broken}))


@pytest.mark.parametrize("savings", [Savings(), Savings(deep=2), Savings(shared=True)])
@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (1, 4, 0, 8), (1, 16, 8, 8), (1, 4, 3, 8, 8)])
def test_latents_of_no_picture_or_of_another_kind_of_model(
    least: World, shape: tuple[int, ...], savings: Savings
) -> None:
    """The host's own words for them are those of a layer."""
    for model in (least.patch(), least.patch(setting="off")):
        told = (
            r"the latent is of shape .* \(pictures, 4, height, width\), .*Take Empty Latent Image"
        )
        with pytest.raises(ValueError, match=told):
            least.sample(save_time(model, savings), latent={"samples": torch.ones(shape)})
