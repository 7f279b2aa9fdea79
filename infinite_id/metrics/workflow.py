"""Workflows in ComfyUI's API form, filled in for one picture."""

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from ..errors import UserError

Prompt = dict[str, dict[str, Any]]
_NAME = re.compile(r"\{(\w+)\}")


def read_workflow(path: Path) -> Prompt:
    """Read a file that ComfyUI's *Export (API)* has written.

    Raises:
        UserError: if it is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"The workflow {path} cannot be read ({error}).") from error
    nodes = data.values() if isinstance(data, dict) else []
    if not nodes or not all(map(_is_node, nodes)):
        raise UserError(
            f"{path} is no workflow in API form. In ComfyUI's page choose Workflow, Export (API)."
        )
    return dict(data)


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and {"class_type", "inputs"} <= node.keys()


def fill(workflow: Prompt, inputs: Mapping[str, Any], values: Mapping[str, str | int]) -> Prompt:
    """A copy of a workflow with its inputs set.

    Args:
        inputs: "title.input" or "class.input" -> a value. Text may hold names in braces, such as
            {photo}; a text that is only such a name becomes the value, with its type.
        values: what the names stand for.

    Raises:
        UserError: if the workflow has no such input.
    """
    filled = deepcopy(workflow)
    for place, value in inputs.items():
        owner, _, name = place.rpartition(".")
        nodes = [n for n in filled.values() if owner in _names(n) and name in n["inputs"]]
        if not nodes:
            known = sorted({f"{_names(n)[0]}.{i}" for n in filled.values() for i in n["inputs"]})
            raise UserError(
                f"The workflow has no input '{place}'; it has {', '.join(known)}. Name it by the "
                "node's title or class."
            )
        for node in nodes:
            node["inputs"][name] = _insert(value, values)
    return filled


def _names(node: Mapping[str, Any]) -> tuple[str, str]:
    kind = str(node["class_type"])
    return str(node.get("_meta", {}).get("title", kind)), kind


def _insert(value: Any, values: Mapping[str, str | int]) -> Any:
    """Replace the names in a text by their values. Braces inside a value stay."""
    if not isinstance(value, str):
        return value
    if value[:1] == "{" and value[-1:] == "}" and value[1:-1] in values:
        return values[value[1:-1]]
    return _NAME.sub(lambda found: str(values.get(found[1], found[0])), value)


def list_classes(workflow: Prompt) -> set[str]:
    """The node classes that a server must have to run it."""
    return {str(node["class_type"]) for node in workflow.values()}
