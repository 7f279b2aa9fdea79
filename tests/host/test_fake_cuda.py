"""The true-size SDXL UNet, 2.57 billion weights, on a CUDA device that need not be there.

Fake tensors have a device, a dtype and a shape but no storage: whatever mixes devices or dtypes, or
waits for a value (`.item()`, a branch on data), raises. FLOPs are counted exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import comfy.model_base
import comfy.supported_models
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from pack.infinite_id import identity
from pack.infinite_id.adapter import Adapter, AdapterConfig
from pack.infinite_id.application import Application
from pack.infinite_id.attention.blocks import SDXL, list_layers
from pack.infinite_id.attention.mixed import Mixing, Style
from pack.infinite_id.economy import Economy
from pack.infinite_id.host import forward, state
from pack.infinite_id.host.forward import apply_model
from pack.infinite_id.host.sampling import KEY
from pack.infinite_id.host.text_stream import Part
from pack.infinite_id.identity import Identity
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

CUDA = torch.device("cuda")
IDENTITY_TOKENS = 258  # the CLIP tokens and one face token, as in the figures of the host's notes
CONFIG = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "use_linear_in_transformer": True,
    "use_spatial_transformer": True,
    "context_dim": 2048,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
    "num_heads": -1,
    "num_head_channels": 64,
    "use_temporal_attention": False,
    "legacy": False,
}
MIXINGS_AND_STYLES = list(product(Mixing, Style))


pytestmark = pytest.mark.usefixtures("fake")


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeTensorMode]:
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode() as mode:
        patch.setattr(identity, "pin", lambda values: values)  # there is no memory to be pinned
        yield mode


@cache
def make_model(dtype: torch.dtype) -> comfy.model_base.SDXL:
    config = comfy.supported_models.SDXL({**CONFIG, "dtype": dtype})
    config.set_inference_dtype(dtype, None)
    return comfy.model_base.SDXL(config, device=CUDA)


@cache
def make_identity() -> Identity:
    """On the CPU in float32, as Encode Identity makes it, and the adapter likewise."""
    adapter = Adapter(AdapterConfig.sdxl()).requires_grad_(False)
    tokens = torch.zeros(1, IDENTITY_TOKENS, 2048)
    return Identity(tokens, tokens, adapter)


def make_options(
    model: comfy.model_base.SDXL, people: list[Application], noise: Tensor, every: int = 1
) -> dict[str, Any]:
    """The transformer options of a guided forward, made by the pack's own preparation."""
    patcher = SimpleNamespace(
        load_device=CUDA, model=model, get_model_object=lambda name: getattr(model, name)
    )
    chosen = {state.APPLICATIONS: tuple(people), state.ECONOMY: Economy(every=every)}
    guider = SimpleNamespace(model_patcher=patcher, model_options={"transformer_options": chosen})
    run = state.prepare(guider, noise)
    return {
        state.RUN: run,
        state.STEP: state.Step(
            frozenset({0}), {}, [state.Acting(person, 1.0) for person in run.people], run.streams
        ),
        "cond_or_uncond": [1, 0],
        "uuids": [1, 2],
        "wrappers": {WrappersMP.APPLY_MODEL: {KEY: [apply_model]}},
    }


@torch.inference_mode()
def run(
    dtype: torch.dtype, people: list[Application], latent: int = 64, text_device: Any = CUDA
) -> Tensor:
    """One forward at guidance > 1, as the host calls it; without people, the host's own."""
    model = make_model(dtype)
    noise = torch.zeros(1, 4, latent, latent)
    options = make_options(model, people, noise) if people else {}
    return run_with(model, options, latent, text_device)


@torch.inference_mode()
def run_with(
    model: comfy.model_base.SDXL, options: dict[str, Any], latent: int, text_device: Any = CUDA
) -> Tensor:
    rows = 2 * (options[state.STEP].streams.rows if options else 1)
    return model.apply_model(
        torch.zeros(rows, 4, latent, latent, device=CUDA),
        torch.ones(rows, device=CUDA),
        c_crossattn=torch.zeros(rows, 77, 2048, device=text_device),
        y=torch.zeros(rows, 2816, device=CUDA),
        transformer_options=options,
    )


def make_people(mixing: Mixing, style: Style) -> list[Application]:
    """Two people on one model: with and without a mask, and style in cross-attention or not."""
    mask = torch.ones(1, 512, 512)
    common: dict[str, Any] = {"mixing": mixing, "style": style}
    return [
        Application(make_identity(), mask=mask, **common),
        Application(make_identity(), style_in_cross_attention=True, **common),
    ]


def test_the_model_is_sdxl() -> None:
    unet = make_model(torch.float16).diffusion_model
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(2.567e9, rel=1e-3)
    assert list_layers(unet) == SDXL
    assert all(p.device.type == "cuda" for p in unet.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("mixing", "style"), MIXINGS_AND_STYLES, ids=lambda value: value.name.lower()
)
def test_no_clash_and_no_sync(dtype: torch.dtype, mixing: Mixing, style: Style) -> None:
    """Every mixing and style, with and without mask and style in cross-attention, runs on CUDA."""
    people = make_people(mixing, style)
    out = run(dtype, people)
    rows = 2 if (mixing, style) == (Mixing.OFF, Style.PHOTO) else 4
    assert out.shape == (rows, 4, 64, 64)
    assert out.device.type == "cuda"
    assert out.dtype == torch.float32  # the host's latents


Change = Callable[[Tensor], Tensor]


def spoil(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Changes what every layer is given as K', V'."""
    select = forward._select_key_values
    monkeypatch.setattr(
        forward, "_select_key_values", lambda *args: tuple(change(x) for x in select(*args))
    )


def test_a_tensor_on_the_cpu_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: keys left on the CPU raise."""
    spoil(monkeypatch, Tensor.cpu)
    with pytest.raises((RuntimeError, NotImplementedError), match="device"):
        run(torch.float16, make_people(Mixing.MIXED, Style.PHOTO))


def test_another_dtype_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: keys of another dtype raise."""
    spoil(monkeypatch, Tensor.float)
    with pytest.raises(RuntimeError, match="dtype"):
        run(torch.float16, make_people(Mixing.MIXED, Style.PHOTO))


def test_a_sync_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: reading a value raises."""
    spoil(monkeypatch, lambda x: x * float(x.sum()))
    with pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        run(torch.float16, make_people(Mixing.MIXED, Style.PHOTO))


def count_resident(application: Application) -> int:
    """Bytes of the device that a person's K', V' take while sampling."""
    options = make_options(make_model(torch.float16), [application], torch.zeros(1, 4, 64, 64))
    (person,) = options[state.RUN].people
    pairs = [*person.identity.values(), *person.nothing.values()]
    return sum(x.nbytes for pair in pairs for x in pair if x.device.type == "cuda")


def test_memory() -> None:
    """258 tokens stay below 100 MB of the device: the unconditional ones are brought as needed."""
    found = count_resident(Application(make_identity()))
    widths = sum(SDXL.values())
    print(f"{IDENTITY_TOKENS} tokens: {found / 1e6:.1f} MB on the device")
    assert found == 2 * 2 * IDENTITY_TOKENS * widths  # K and V, two bytes each
    assert found < 100e6


def test_few_tokens_stay_on_the_device_altogether() -> None:
    tokens = torch.zeros(1, 4, 2048)
    adapter = make_identity().adapter
    found = count_resident(Application(Identity(tokens, tokens, adapter)))
    assert found == 2 * 2 * 2 * 4 * sum(SDXL.values())


def test_a_sweep_costs_one_text_stream() -> None:
    """Eight times what an identity costs beside the plain text stream, which runs once."""
    tokens = torch.zeros(8, IDENTITY_TOKENS, 2048)
    nothing = torch.zeros(1, IDENTITY_TOKENS, 2048)
    sweep = Application(Identity(tokens, nothing, make_identity().adapter))
    run(torch.float16, [sweep])  # projects K', V', once for all runs
    found = count_flops([sweep], 64) / count_plain_flops(64)
    print(f"a sweep of 8: {found:.3f} times the plain forward, {found / 8:.3f} a picture")
    assert found == pytest.approx(1 + 8 * (2.047 - 1), rel=2e-3)


def count_flops(people: list[Application], latent: int) -> int:
    """FLOPs of one guided forward."""
    with FlopCounterMode(display=False) as counter:
        run(torch.float16, people, latent)
    return counter.get_total_flops()


@cache
def count_plain_flops(latent: int) -> int:
    return count_flops([], latent)


@pytest.mark.parametrize(
    ("pixels", "mixing", "ratio"),
    [(512, Mixing.OFF, 1.017), (512, Mixing.MIXED, 2.047), (1024, Mixing.MIXED, 2.127)],
    ids=["identity-512", "mixed-512", "mixed-1024"],
)
def test_cost(pixels: int, mixing: Mixing, ratio: float) -> None:
    """FLOPs of a forward against the unpatched model's, as the method makes them, no more."""
    people = [Application(make_identity(), mixing=mixing)]
    found = count_flops(people, pixels // 8) / count_plain_flops(pixels // 8)
    print(f"{pixels} px, {mixing.value}: {found:.4f} times the plain forward")
    assert found == pytest.approx(ratio, abs=0.002)


@pytest.mark.parametrize(("pixels", "gigabytes"), [(512, 0.21), (1024, 0.84)])
def test_cost_of_recalling_the_text_stream(pixels: int, gigabytes: float) -> None:
    """Every second step has no text rows; their keys and values are kept meanwhile."""
    latent = pixels // 8
    model, people = make_model(torch.float16), [Application(make_identity())]
    options = make_options(model, people, torch.zeros(1, 4, latent, latent), every=2)
    run_with(model, options, latent)
    kept = options[state.RUN].text.memory._stored.values()
    bytes_kept = sum(x.nbytes for pair in kept for x in pair)
    step = options[state.STEP]
    streams = step.streams.without_text()
    options[state.STEP] = replace(step, streams=streams, part=Part.RECALLED)
    with FlopCounterMode(display=False) as counter:
        run_with(model, options, latent)
    recalled = counter.get_total_flops() / count_plain_flops(latent)
    full = count_flops(people, latent) / count_plain_flops(latent)
    print(
        f"{pixels} px: {full:.3f} and {recalled:.3f} times the plain forward, in the mean "
        f"{(full + recalled) / 2:.3f}; {bytes_kept / 1e9:.2f} GB kept"
    )
    assert recalled == pytest.approx(full - 1, abs=0.002)
    assert bytes_kept / 1e9 == pytest.approx(gigabytes, rel=0.02)
