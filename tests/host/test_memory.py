"""The host is asked before memory is taken or pinned, and what is alike is made once."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from comfy import model_management
from comfy.model_management import VRAMState
from pack.infinite_id.adapters.adapter import Adapter
from pack.infinite_id.adapters.mappers import ClipLayer
from pack.infinite_id.host import clip, image_attention
from pack.infinite_id.host.memory import HostMemory
from pack.infinite_id.identities.projections import Projections
from torch import Tensor, nn

if TYPE_CHECKING:
    from pack.tests.host.world import World

CUDA = torch.device("cuda")
CPU = torch.device("cpu")


def test_room_is_beside_the_whole_model(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 86_000_000
    needed = tiny.model.model_size() + model_management.minimum_inference_memory() + size
    memory = HostMemory(tiny.model)
    monkeypatch.setattr(model_management, "vram_state", VRAMState.NORMAL_VRAM)
    for total, expected in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(model_management, "get_total_memory", lambda _, total=total: total)
        assert memory.has_room(CUDA, size) is expected
    assert memory.has_room(CPU, 1 << 60)


@pytest.mark.parametrize("state", [VRAMState.LOW_VRAM, VRAMState.NO_VRAM])
def test_no_room_where_the_user_says_so(
    tiny: World, monkeypatch: pytest.MonkeyPatch, state: VRAMState
) -> None:
    monkeypatch.setattr(model_management, "get_total_memory", lambda _: 1 << 60)
    monkeypatch.setattr(model_management, "vram_state", state)
    assert not HostMemory(tiny.model).has_room(CUDA, 1)


def test_pinned_until_the_owner_is_gone(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the host's own functions, which keep account; a pin that fails leaves the tensor as is."""
    held: list[int] = []

    def pin(x: Tensor) -> bool:
        if len(x) == 2:
            return False
        held.append(x.data_ptr())
        return True

    monkeypatch.setattr(model_management, "pin_memory", pin)
    monkeypatch.setattr(model_management, "unpin_memory", lambda x: held.remove(x.data_ptr()))
    owner = nn.Identity()
    tensors = [torch.zeros(n) for n in (1, 2, 3)]
    HostMemory(tiny.model).pin(tensors, owner)
    assert held == [tensors[0].data_ptr(), tensors[2].data_ptr()]
    del owner
    gc.collect()
    assert held == []


def test_the_host_pins_nothing_on_a_cpu(tiny: World) -> None:
    """Nor with --disable-pinned-memory: its limit is the same."""
    x = torch.zeros(4)
    HostMemory(tiny.model).pin([x], nn.Identity())
    assert not x.is_pinned()


@pytest.mark.parametrize("supported", [True, False])
def test_the_host_says_whether_copies_may_overlap(
    tiny: World, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    asked: list[bool] = []
    to = Tensor.to

    def note(x: Tensor, *args: Any, **options: Any) -> Tensor:
        if "non_blocking" in options and args and isinstance(args[0], Tensor):
            asked.append(options["non_blocking"])
        return to(x, *args, **options)

    monkeypatch.setattr(image_attention, "device_supports_non_blocking", lambda _: supported)
    monkeypatch.setattr(Tensor, "to", note)
    tiny.sample(tiny.patch(), steps=1)
    assert asked
    assert set(asked) == {supported}


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, pixel_values: Tensor, intermediate_output: int) -> tuple[Tensor, ...]:
        assert intermediate_output == -2
        self.calls += 1
        zeros, ones = pixel_values.new_zeros(1, 2, 3), pixel_values.new_ones(1, 2, 3)
        return zeros, ones, ones[:, 0]


class Vision:
    """Load CLIP Vision's object, as far as `encode_nothing` reads it."""

    def __init__(self, model: Encoder) -> None:
        self.model, self.patcher, self.image_size, self.load_device = model, None, 4, CPU


def test_nothing_is_encoded_once_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_management, "load_model_gpu", lambda _: None)
    model = Encoder()
    for _ in range(3):
        for layer in ClipLayer:
            found = clip.encode_nothing(Vision(model), layer)  # type: ignore[arg-type]
            assert float(found.mean()) == (layer is ClipLayer.PENULTIMATE)
    assert model.calls == len(ClipLayer)
    clip.encode_nothing(Vision(Encoder()), ClipLayer.LAST)  # type: ignore[arg-type]
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_equal_tokens_are_one_tensor_while_somebody_has_it(tiny: World) -> None:
    adapter = Adapter(tiny.identity.adapter.config)
    first, second = adapter.share(torch.zeros(1, 2, 3)), adapter.share(torch.zeros(1, 2, 3))
    assert first is second
    assert adapter.share(torch.ones(1, 2, 3)) is not first
    assert adapter.share(torch.zeros(1, 2, 4)) is not first
    gone = weakref.ref(first)
    del first, second
    assert gone() is None


def test_shared_tokens_are_projected_once_while_somebody_needs_them(tiny: World) -> None:
    adapter, tokens = tiny.identity.adapter, tiny.identity.unconditional.clone()
    first = adapter.share_projections(tokens)
    assert adapter.share_projections(tokens) is first
    again = replace(tiny.identity, unconditional=tokens)
    assert again.unconditional_projections is first
    assert adapter.share_projections(tokens.clone()) is not first
    gone = weakref.ref(first)
    del first, again
    assert gone() is None


def test_projections_on_a_device_go_with_their_last_user(tiny: World) -> None:
    projections = Projections(tiny.identity.adapter.project, tiny.identity.tokens)
    first = projections.on(CPU, torch.float32)
    assert projections.on(CPU, torch.float32) is first
    gone = weakref.ref(first)
    del first
    assert gone() is None
