"""UNets whose weights are no ordinary tensors: GGUF's kind, the host's fp8 and its scaled fp8.

Pictures are those of the same numbers in float32. What trains refuses weights that it cannot copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.ops
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.errors import UserError
from pack.infinite_id.host.patch import save_time
from pack.infinite_id.savings import Savings
from pack.infinite_id.training.host_load import digest_model, load_for_training, load_with_text
from pack.tests.host.world import SETTINGS, World, by_day, difference
from torch import Tensor

Weights = dict[str, Tensor]
FP8 = torch.float8_e4m3fn


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round().to(torch.int8), scale


class Packed(comfy.ops.manual_cast):  # type: ignore[misc]
    """The host's layers, but for linear ones: bytes in a row, made into a matrix at each call."""

    class Linear(comfy.ops.manual_cast.Linear):  # type: ignore[misc]
        def _load_from_state_dict(self, state: Weights, prefix: str, *_: Any) -> None:
            codes, self.scale = quantise(state[f"{prefix}weight"])
            self.weight = torch.nn.Parameter(codes.reshape(-1, 1), requires_grad=False)
            bias = state.get(f"{prefix}bias")
            kept = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
            self.register_parameter("bias", kept)

        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:
            weight = self.weight.view(self.out_features, self.in_features) * self.scale
            bias = None if self.bias is None else self.bias.to(input)
            return torch.nn.functional.linear(input, weight.to(input), bias)


def is_matrix(name: str, weight: Tensor) -> bool:
    return name.endswith("weight") and weight.ndim == 2


@torch.inference_mode()  # as nodes run
def load(weights: Weights, **options: Any) -> ModelPatcher:
    model: ModelPatcher = comfy.sd.load_diffusion_model_state_dict(
        dict(weights), model_options=options
    )
    return model


def pack(weights: Weights) -> tuple[ModelPatcher, Weights]:
    same = {n: (q := quantise(x))[0] * q[1] if is_matrix(n, x) else x for n, x in weights.items()}
    return load(weights, custom_operations=Packed), same


def store_in_fp8(weights: Weights) -> tuple[ModelPatcher, Weights]:
    """As the host's loader does for `fp8_e4m3fn`."""
    same = {name: x.to(FP8).float() for name, x in weights.items()}
    return load(weights, dtype=FP8), same


def scale_to_fp8(weights: Weights) -> tuple[ModelPatcher, Weights]:
    """A file of fp8 numbers with a scale for each layer, which the host keeps as they are."""
    stored, same = {"scaled_fp8": torch.zeros(2, dtype=FP8)}, {}
    for name, x in weights.items():
        stored[name] = same[name] = x
        if is_matrix(name, x):
            scale = x.abs().max() / 448
            stored[name] = (x / scale).to(FP8)
            stored[name.replace(".weight", ".scale_weight")] = scale
            same[name] = stored[name].float() * scale
    return load(stored), same


STORED: dict[str, Callable[[Weights], tuple[ModelPatcher, Weights]]] = {
    "packed": pack,
    "fp8": store_in_fp8,
    "scaled fp8": scale_to_fp8,
}


@pytest.fixture(params=STORED)
def both(request: pytest.FixtureRequest, tiny: World) -> tuple[World, World]:
    """The tiny world with a quantised UNet, and with the same numbers as ordinary weights."""
    weights = {name: x.float() for name, x in tiny.unet.state_dict().items()}
    quantised, same = STORED[request.param](weights)
    return replace(tiny, model=quantised), replace(tiny, model=load(same))


@pytest.mark.parametrize("setting", by_day(list(SETTINGS), ["AdaIN-mean"]))
def test_pictures_are_those_of_the_same_numbers(both: tuple[World, World], setting: str) -> None:
    quantised, plain = both
    without = quantised.sample(quantised.model)
    near = 2 * difference(without, plain.sample(plain.model)) + 1e-4
    assert near < 0.02
    drawn = quantised.sample(quantised.patch(setting=setting))
    assert difference(drawn, plain.sample(plain.patch(setting=setting))) < near
    assert difference(drawn, without) > 0.1
    nothing = quantised.sample(quantised.patch(0.0, setting))
    assert difference(nothing, without) < 1e-4


def test_savings_with_quantised_weights(both: tuple[World, World]) -> None:
    quantised, plain = both
    savings = Savings(every=2, deep=2)
    drawn, expected = (
        world.sample(save_time(world.patch(), savings), steps=8) for world in (quantised, plain)
    )
    assert difference(drawn, expected) < 0.02


def test_training_on_packed_weights_is_refused(tiny: World) -> None:
    model = pack({name: x.float() for name, x in tiny.unet.state_dict().items()})[0]
    clip: Any = None
    for refuse in (digest_model, load_for_training, lambda one: load_with_text(one, clip)):
        with pytest.raises(UserError, match=r"weights are quantised.*Load an ordinary checkpoint"):
            refuse(model)


def test_training_on_the_hosts_scaled_fp8_is_refused(tiny: World) -> None:
    model = scale_to_fp8({name: x.float() for name, x in tiny.unet.state_dict().items()})[0]
    with pytest.raises(UserError, match="weights are quantised"):
        load_for_training(model)


def test_training_copies_fp8_in_more_bits(tiny: World) -> None:
    model = store_in_fp8({name: x.float() for name, x in tiny.unet.state_dict().items()})[0]
    digest_model(model)
    copied = load_for_training(model).model.diffusion_model
    assert all(x.dtype in (torch.float32, torch.bfloat16) for x in copied.parameters())
