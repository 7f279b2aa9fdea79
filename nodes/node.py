"""What all nodes of the pack share: values out of range are refused, wherever they come from."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from comfy_api.latest import io
from server import PromptServer


class Node(io.ComfyNode):
    """A node whose `execute` gets values that its schema allows, or is not called.

    The host checks what is typed in, and lets NaN pass; what comes by a wire it does not check.
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
    """Raises ValueError naming the node, the input and what it may be."""
    schema = cls.define_schema()
    own = inspect.signature(cls.validate_inputs).parameters  # as the host does: left to the node
    for entry in schema.inputs:
        value = values.get(entry.id)
        if value is None:
            continue
        if isinstance(entry, io.Int.Input | io.Float.Input):
            fits = entry.min <= value <= entry.max  # also not where it is NaN
            allowed = f"from {entry.min:g} to {entry.max:g}"
        elif isinstance(entry, io.Combo.Input) and entry.id not in own:
            fits = value in entry.options
            allowed = f"one of: {', '.join(map(str, entry.options)) or 'none here'}"
        else:
            continue
        if not fits:
            raise ValueError(
                f"{schema.display_name}: {entry.id} must be {allowed}; it is {str(value)[:100]}. "
                "Correct it there, or in the node that it comes from."
            )


def tell(cls: type[io.ComfyNode], text: str) -> None:
    """Show a line of text on the node in the page. Its schema asks for `unique_id`."""
    if cls.hidden is not None:  # else it is called by a program, not by a graph
        server: Any = PromptServer  # which learns of its instance as it starts
        server.instance.send_progress_text(text, cls.hidden.unique_id)
