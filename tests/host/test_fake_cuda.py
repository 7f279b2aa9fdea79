"""The true-size SDXL UNet on a CUDA device that need not be there; what it costs: test_counts.py.

Whatever mixes devices or dtypes, or waits for a value (`.item()`, a branch on data), raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from pack.bench.modes import FAITHFUL
from pack.bench.true_size import (
    IDENTITY_TOKENS,
    fake_cuda,
    make_identity,
    make_options,
    make_sdxl,
    run_with,
)
from pack.infinite_id.application import Application
from pack.infinite_id.attention.blocks import SDXL, list_layers
from pack.infinite_id.attention.mixed import Mixing, Style
from pack.infinite_id.host import image_attention
from pack.infinite_id.host.deep import Step
from pack.infinite_id.host.keys import EVALUATION, RUN
from pack.infinite_id.host.memory import HostMemory
from pack.infinite_id.identities.identity import Identity
from pack.infinite_id.savings import Savings
from pack.tests.host.world import by_day
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

MIXINGS_AND_STYLES = list(product(Mixing, Style))


pytestmark = pytest.mark.usefixtures("fake")


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeTensorMode]:
    with fake_cuda() as mode:
        yield mode


@torch.inference_mode()
def run(dtype: torch.dtype, people: list[Application], latent: int = 64) -> Tensor:
    """One forward at guidance > 1, as the host calls it; without people, the host's own."""
    model = make_sdxl(dtype)
    noise = torch.zeros(1, 4, latent, latent)
    options = make_options(model, people, noise) if people else {}
    return run_with(model, options, latent, latent)


def make_people(mixing: Mixing, style: Style) -> list[Application]:
    """Two people on one model: with and without a mask, and style in cross-attention or not."""
    mask = torch.ones(1, 512, 512)
    common: dict[str, Any] = {"mixing": mixing, "style": style}
    return [
        Application(make_identity(), mask=mask, **common),
        Application(make_identity(), style_in_cross_attention=True, **common),
    ]


def test_the_model_is_sdxl() -> None:
    unet = make_sdxl(torch.float16).diffusion_model
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(2.567e9, rel=1e-3)
    assert list_layers(unet) == SDXL
    assert all(p.device.type == "cuda" for p in unet.parameters())


@pytest.mark.parametrize(
    "dtype", by_day([torch.float16, torch.bfloat16], [torch.bfloat16]), ids=str
)
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


@torch.inference_mode()
@pytest.mark.parametrize("savings", [Savings(), Savings(shared=True)], ids=["own", "shared"])
def test_text_rows_once_for_both_prompts(savings: Savings) -> None:
    """They are chosen and dealt out again without a clash or a sync, too."""
    model, people = make_sdxl(torch.float16), make_people(Mixing.MIXED, Style.ADAIN_MEAN)
    options = make_options(model, people, torch.zeros(1, 4, 64, 64), savings)
    options[EVALUATION] = replace(options[EVALUATION], is_alike=True)
    rows: list[int] = []
    unet = model.diffusion_model
    with unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0]))):
        out = run_with(model, options, 64, 64)
    assert rows == [3]
    assert out.shape == (2 if savings.shared else 4, 4, 64, 64)
    assert out.device.type == "cuda"


Change = Callable[[Tensor], Tensor]


def spoil(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Changes what every layer is given as K', V'."""
    select = image_attention._select_key_values
    monkeypatch.setattr(
        image_attention, "_select_key_values", lambda *args: tuple(change(x) for x in select(*args))
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
    options = make_options(make_sdxl(torch.float16), [application], torch.zeros(1, 4, 64, 64))
    (person,) = options[RUN].people
    pairs = [*person.key_values.values(), *person.unconditional.values()]
    return sum(x.nbytes for pair in pairs for x in pair if x.device.type == "cuda")


def test_memory() -> None:
    """258 tokens take less than 200 MB of the device, those of no identity among them."""
    found = count_resident(Application(make_identity()))
    widths = sum(SDXL.values())
    print(f"{IDENTITY_TOKENS} tokens: {found / 1e6:.1f} MB on the device")
    assert found == 2 * 2 * 2 * IDENTITY_TOKENS * widths  # K and V, two bytes each, both kinds
    assert found < 200e6


def test_memory_that_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the unconditional ones are brought as needed."""
    pinned: list[Tensor] = []
    monkeypatch.setattr(HostMemory, "has_room", lambda *_: False)
    monkeypatch.setattr(HostMemory, "pin", lambda _, tensors, __: pinned.extend(tensors))
    tokens = torch.zeros(1, IDENTITY_TOKENS, 2048)
    identity = Identity(tokens, tokens.clone(), make_identity().adapter)
    for _ in range(2):
        found = count_resident(Application(identity))
        assert found == 2 * 2 * IDENTITY_TOKENS * sum(SDXL.values())
        assert len(pinned) == 2 * len(SDXL)  # once, not once a run
    assert all(x.device.type == "cpu" for x in pinned)
    run(torch.float16, [Application(identity)])


def test_no_identity_is_on_the_device_once_for_all_people() -> None:
    tokens = torch.zeros(1, 4, 2048)
    adapter = make_identity().adapter
    people = [Application(Identity(tokens + i, tokens, adapter)) for i in range(3)]
    options = make_options(make_sdxl(torch.float16), people, torch.zeros(1, 4, 64, 64))
    first, *others = (person.unconditional for person in options[RUN].people)
    assert all(nothing[block][0] is first[block][0] for nothing in others for block in first)


def test_deep_features_on_a_device() -> None:
    """Kept, found again and joined without a clash or a sync: 4 rows of 640 channels."""
    latent = 64
    model, people = make_sdxl(torch.float16), [FAITHFUL.apply_to(make_identity())]
    options = make_options(model, people, torch.zeros(1, 4, latent, latent), Savings(deep=2))
    whole = options[EVALUATION]
    for is_full in (True, False):
        options[EVALUATION] = replace(whole, step=Step(0, is_full), calls=Counter())
        out = run_with(model, options, latent, latent)
        assert out.shape == (4, 4, latent, latent)
        assert out.device.type == "cuda"
    assert options[RUN].deep.nbytes == 4 * 640 * latent**2 * 2


@pytest.mark.parametrize(("pixels", "gigabytes"), [(512, 0.21), (1024, 0.84)])
def test_what_is_kept_of_the_text_stream(pixels: int, gigabytes: float) -> None:
    """Its keys and values, for the steps that have no text rows."""
    latent = pixels // 8
    model, people = make_sdxl(torch.float16), [FAITHFUL.apply_to(make_identity())]
    noise = torch.zeros(1, 4, latent, latent)
    options = make_options(model, people, noise, Savings(every=2))
    run_with(model, options, latent, latent)
    bytes_kept = options[RUN].text.memory.nbytes
    print(f"{pixels} px: {bytes_kept / 1e9:.2f} GB kept")
    assert bytes_kept / 1e9 == pytest.approx(gigabytes, rel=0.02)
