"""Numbers and choices that no widget gives: a sentence that names the input, before anything runs.

The host checks what is typed in, and lets NaN pass; it checks nothing that comes by a wire.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from typing import Any

import pack.nodes
import pytest
from comfy_api.latest import io
from pack.nodes import folders
from pack.nodes.encoding import read_weights
from pack.nodes.load_preset import UnifiedLoader
from pack.nodes.mixing import BlendIdentities

folders.register()
NODES = asyncio.run(pack.nodes.InfiniteIDExtension().get_node_list())
STRANGE = (math.nan, math.inf, -math.inf, 1e38, -1e38)


def list_inputs(*kinds: type) -> list[Any]:
    return [
        pytest.param(node, entry, id=f"{node.__name__}-{entry.id}")
        for node in NODES
        for entry in node.define_schema().inputs
        if isinstance(entry, kinds)
    ]


def execute(node: Any, name: str, value: Any) -> Any:
    """With defaults for what has some, and None for the rest: nothing else is looked at before."""
    schema = node.define_schema()
    values = {entry.id: getattr(entry, "default", None) for entry in schema.inputs} | {name: value}
    if schema.is_input_list:
        values = {key: [one] for key, one in values.items()}
    wanted = inspect.signature(node.execute).parameters
    return node.execute(**{k: v for k, v in values.items() if k in wanted})


@pytest.mark.parametrize(("node", "entry"), list_inputs(io.Int.Input, io.Float.Input))
def test_every_number_out_of_range_is_refused(node: Any, entry: Any) -> None:
    beyond = entry.max - entry.min
    for value in (*STRANGE, entry.min - beyond, entry.max + beyond):
        with pytest.raises(
            ValueError, match=rf"{entry.id} must be a .*number from .*it is {re.escape(str(value))}"
        ):
            execute(node, entry.id, value)


# What a wire from Grid of Variations gives for such a line.
OF_ANOTHER_KIND = [
    *(("a number", entry, "0,6") for entry in list_inputs(io.Float.Input)),
    *(("a whole number", entry, 1.5) for entry in list_inputs(io.Int.Input)),
    *(("a text", entry, 12) for entry in list_inputs(io.String.Input)),
    *(("true or false", entry, "off") for entry in list_inputs(io.Boolean.Input)),
]


@pytest.mark.parametrize(
    ("node", "entry", "kind", "value"),
    [
        pytest.param(*one.values, kind, value, id=f"{one.id}-{value}")
        for kind, one, value in OF_ANOTHER_KIND
    ],
)
def test_a_value_of_another_kind_is_refused(
    node: Any, entry: Any, kind: str, value: float | str
) -> None:
    with pytest.raises(ValueError, match=rf"{entry.id} must be {kind}.*it is {value}\."):
        execute(node, entry.id, value)


@pytest.mark.parametrize(("node", "entry"), list_inputs(io.Combo.Input))
def test_every_choice_that_is_none_is_refused(node: Any, entry: Any) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=r"nonsense|is not complete"):
        execute(node, entry.id, "nonsense")


def test_limits_themselves_are_allowed() -> None:
    with pytest.raises(AttributeError, match="'object'"):  # no identities, and yet it was called
        BlendIdentities.execute(object(), object(), 64, "linear", 0.0, 1.0)


def test_a_preset_that_is_none_is_refused_before_the_run() -> None:
    assert "no preset 'nonsense'" in str(UnifiedLoader.validate_inputs("nonsense"))


@pytest.mark.parametrize("text", ["1e39, 1", "1e308, 1", "1, 1e-60"])
def test_weights_that_no_float_holds_are_refused(text: str) -> None:
    """As float32 they would be infinite, or leave a photo out without a word."""
    with pytest.raises(ValueError, match="weights must be numbers from 0 on"):
        read_weights(text, 2)
