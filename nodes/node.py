"""The base of all nodes: it refuses values out of range, wherever they come from."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from numbers import Integral, Real
from typing import Any

from comfy_api.latest import io
from server import PromptServer


class Node(io.ComfyNode):
    """A node whose `execute` is called only with values that its schema allows.

    The host checks typed values, but lets NaN pass. It does not check values from wires.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        execute = vars(cls).get("execute")
        if execute is not None and not hasattr(execute.__func__, "__wrapped__"):
            checked = classmethod(_check_first(execute.__func__))
            cls.execute = checked  # type: ignore[assignment, method-assign]


def _check_first(execute: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(execute)

    @wraps(execute)
    def checked(cls: type[io.ComfyNode], *values: Any, **named: Any) -> Any:
        _check(cls, signature.bind(cls, *values, **named).arguments)
        return execute(cls, *values, **named)

    return checked


def _check(cls: type[io.ComfyNode], values: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the node, the input and the allowed values."""
    schema = cls.define_schema()
    own = inspect.signature(cls.validate_inputs).parameters  # the node checks these itself
    for entry in schema.inputs:
        value = values.get(entry.id)
        if value is None:
            continue
        given = value if schema.is_input_list else [value]
        if isinstance(entry, io.Combo.Input) and entry.id in own:
            continue
        allowed, is_allowed = _describe(entry)
        wrong = [one for one in given if not is_allowed(one)]
        if wrong:
            raise ValueError(
                f"{schema.display_name}: {entry.id} must be {allowed}; it is "
                f"{str(wrong[0])[:100]}. Correct it there, or in the node that it comes from."
            )


def _describe(entry: io.Input) -> tuple[str, Callable[[Any], bool]]:
    """Say what an input's values must be, and give a function that tells whether one is."""
    if isinstance(entry, io.Int.Input | io.Float.Input):
        is_whole = isinstance(entry, io.Int.Input)
        kind: Any = Integral if is_whole else Real
        least, most = entry.min, entry.max
        allowed = f"a {'whole ' if is_whole else ''}number from {least:g} to {most:g}"
        return allowed, lambda one: isinstance(one, kind) and least <= one <= most  # no NaN either
    if isinstance(entry, io.Combo.Input):
        options = entry.options
        return f"one of: {', '.join(map(str, options)) or 'none here'}", options.__contains__
    if isinstance(entry, io.Boolean.Input):
        return "true or false", (True, False).__contains__
    if isinstance(entry, io.String.Input):
        return "a text", lambda one: isinstance(one, str)
    return "", lambda _: True


def make_tell(cls: type[io.ComfyNode]) -> Callable[[str], None]:
    """Return a function that shows a line on the node later, such as after a sampling."""
    return lambda text: tell(cls, text)


def tell(cls: type[io.ComfyNode], text: str) -> None:
    """Show a line of text on the node in the page. Its schema must ask for `unique_id`."""
    if cls.hidden is not None:  # else it is called by a program, not by a graph
        server: Any = PromptServer  # it has an instance once it has started
        server.instance.send_progress_text(text, cls.hidden.unique_id)
