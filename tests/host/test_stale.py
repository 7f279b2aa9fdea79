"""Caches of others within the UNet: rows of an earlier forward are refused in words."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from comfy.ldm.modules.diffusionmodules import openaimodel
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.host.patch import save_time
from pack.infinite_id.savings import Savings
from pack.tests.host.world import World, difference
from torch import Tensor

ROUNDING = 1e-5
BLOCKS = {"input_block_patch": ("input", 1), "output_block_patch": ("output", 1)}
Place = Callable[[ModelPatcher], None]


def keep_first() -> Callable[[Tensor], Tensor]:
    """A careless cache: what came first stands for all that comes later."""
    kept: list[Tensor] = []

    def cached(x: Tensor) -> Tensor:
        kept.append(x.clone())
        return kept[0]

    return cached


def replace_attention(name: str) -> Place:
    def put(model: ModelPatcher) -> None:
        cached = keep_first()
        getattr(model, f"set_model_{name}_replace")(lambda q, *_: cached(q), "middle", 0, 0)

    return put


def patch_layer(name: str) -> Place:
    """A patch that is called in each transformer, or behind each block."""

    def put(model: ModelPatcher) -> None:
        cached, block = keep_first(), BLOCKS.get(name, ("middle", 0))

        def patch(x: Tensor, *rest: Any) -> Any:
            kept = cached(x) if rest[-1]["block"] == block else x
            return kept if len(rest) == 1 else (kept, rest[0])

        model.set_model_patch(patch, name)

    return put


def patch_embedding(model: ModelPatcher) -> None:
    cached = keep_first()
    model.set_model_emb_patch(lambda emb, *_: cached(emb))


def patch_middle_block(model: ModelPatcher) -> None:
    cached = keep_first()
    model.set_model_patch(
        lambda given: {**given, "h": cached(given["h"])}, "middle_block_after_patch"
    )


PLACES: dict[str, Place] = {
    "attn2": replace_attention("attn2"),
    "emb_patch": patch_embedding,
    "middle_block_after_patch": patch_middle_block,
    **{
        name: patch_layer(name)
        for name in (
            "attn1_output_patch",
            "middle_patch",
            "attn2_output_patch",
            "input_block_patch",
            "output_block_patch",
        )
    },
}


@pytest.mark.parametrize("cfg", [1.0, 5.0])
@pytest.mark.parametrize(
    ("changes", "savings"),
    [({"end": 0.5}, Savings()), ({}, Savings(until=0.5)), ({}, Savings(every=2))],
    ids=["end", "until", "every"],
)
@pytest.mark.parametrize("place", PLACES)
def test_rows_of_an_earlier_forward_are_refused(
    least: World, place: str, changes: dict[str, float], savings: Savings, cfg: float
) -> None:
    """Whoever has left, and whatever was saved: no raw error, and no row for two."""
    if place == "middle_block_after_patch" and place not in inspect.getsource(openaimodel):
        pytest.skip("this host calls no patch behind the middle block")
    model = save_time(least.patch(**changes), savings)
    PLACES[place](model)
    with pytest.raises(ValueError, match=r"rows where there are .* end_percent in Apply"):
        least.sample(model, cfg=cfg)


@pytest.mark.parametrize("place", PLACES)
def test_a_cache_of_the_same_rows_is_left_alone(least: World, place: str) -> None:
    """Weight 0 is the unpatched model with that cache, since both streams keep their rows."""
    ours, plain = least.patch(0.0), least.model.clone()
    for model in (ours, plain):
        PLACES[place](model)
    assert difference(least.sample(ours), least.sample(plain)) < ROUNDING
