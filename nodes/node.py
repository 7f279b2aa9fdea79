"""The base of all nodes: it refuses values out of range, wherever they come from."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
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
        if isinstance(entry, io.Int.Input | io.Float.Input):
            wrong = [one for one in given if not entry.min <= one <= entry.max]  # and NaN
            allowed = f"from {entry.min:g} to {entry.max:g}"
        elif isinstance(entry, io.Combo.Input) and entry.id not in own:
            wrong = [one for one in given if one not in entry.options]
            allowed = f"one of: {', '.join(map(str, entry.options)) or 'none here'}"
        else:
            continue
        if wrong:
            raise ValueError(
                f"{schema.display_name}: {entry.id} must be {allowed}; it is "
                f"{str(wrong[0])[:100]}. Correct it there, or in the node that it comes from."
            )


def make_tell(cls: type[io.ComfyNode]) -> Callable[[str], None]:
    """Return a function that shows a line on the node later, such as after a sampling."""
    return lambda text: tell(cls, text)


def tell(cls: type[io.ComfyNode], text: str) -> None:
    """Show a line of text on the node in the page. Its schema must ask for `unique_id`."""
    if cls.hidden is not None:  # else it is called by a program, not by a graph
        server: Any = PromptServer  # it has an instance once it has started
        server.instance.send_progress_text(text, cls.hidden.unique_id)
