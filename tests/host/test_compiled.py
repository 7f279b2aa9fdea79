"""Compiled models draw the person, however they were compiled, and nobody else notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_torch_compile import TorchCompileModel
from pack.infinite_id.host.compiled import as_written
from pack.tests.host.world import World, by_day, difference
from torch import Tensor, nn

ROUNDING = 1e-4
BLOCK = "diffusion_model.middle_block.1.transformer_blocks.0"


def by_node(model: ModelPatcher) -> ModelPatcher:
    """Traced as for the node's own backends, and then run without one."""
    return TorchCompileModel.execute(model, "eager").result[0]


def by_object_patch(*names: str) -> Callable[[ModelPatcher], ModelPatcher]:
    """As packs do that compile the whole UNet, or only its blocks; some before a LoRA is loaded."""

    def compile_(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        for name in names:
            part = model.get_model_object(name)
            model.add_object_patch(name, torch.compile(part, backend="eager"))
        return model

    return compile_


def by_forward(model: ModelPatcher) -> ModelPatcher:
    model = model.clone()
    forward = model.get_model_object(BLOCK).forward
    model.add_object_patch(f"{BLOCK}.forward", torch.compile(forward, backend="eager"))
    return model


WAYS = {
    "node": by_node,
    "UNet": by_object_patch("diffusion_model"),
    "block": by_object_patch(BLOCK),
    "blocks": by_object_patch(BLOCK, f"{BLOCK}.attn1", f"{BLOCK}.ff"),
    "forward": by_forward,
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("way", by_day(list(WAYS), ["node", "blocks"]))
def test_the_person_is_drawn(least: World, way: str, first: bool) -> None:
    """Also where the model has drawn without the person before, so was compiled without hooks."""
    changes = {"start": 0.3, "end": 0.8}
    expected = least.sample(least.patch(1.0, **changes))
    plain = least.sample(least.model)
    assert difference(expected, plain) > 1e-2
    if first:
        compiled = WAYS[way](least.model)
        assert difference(least.sample(compiled), plain) < ROUNDING
        compiled = replace(least, model=compiled).patch(1.0, **changes)
    else:
        compiled = WAYS[way](least.patch(1.0, **changes))
    for _ in range(2):
        assert difference(least.sample(compiled), expected) < ROUNDING
    assert difference(least.sample(least.model), plain) == 0


@pytest.mark.parametrize("way", WAYS)
def test_the_rest_of_the_process_stays_compiled(least: World, way: str) -> None:
    """While a forward of ours runs, another thread's compiled function runs compiled."""
    ran = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            ran.append(len(args))
            return graph.forward(*args)

        return run

    double = torch.compile(lambda x: 2 * x, backend=backend)
    calls = []

    def overlap(*_: Any) -> None:
        thread = Thread(target=lambda: calls.append(double(torch.ones(3))))
        thread.start()
        thread.join()

    hook = least.unet.register_forward_pre_hook(overlap)
    try:
        least.sample(WAYS[way](least.patch(1.0)))
    finally:
        hook.remove()
    assert len(ran) == len(calls) > 0


def test_a_copy_has_no_compiled_part_and_the_same_parameters() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))

    plain = make()
    assert as_written(plain) is plain
    model = make()
    model[0] = torch.compile(model[0], backend="eager")
    model[1][0].compile(backend="eager")
    model[1][1].forward = torch.compile(model[1][1].forward, backend="eager")
    whole = torch.compile(model, backend="eager")
    before = {name: dict(part.__dict__) for name, part in model.named_modules()}
    written = as_written(whole)
    for part in written.modules():
        assert "_orig_mod" not in part._modules
        assert part._compiled_call_impl is None
        assert not hasattr(part.forward, "_torchdynamo_orig_callable")
    owned = {id(x) for x in model.parameters()}
    assert {id(x) for x in written.parameters()} == owned
    x = torch.randn(4, 2)
    assert torch.equal(written(x), model(x))
    assert {name: dict(part.__dict__) for name, part in model.named_modules()} == before
