"""Who may import whom, how long a module may be, and where the host may be known."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from pack.dev.cache import ROOT

LONGEST = 350
PACKAGES = ("infinite_id", "nodes", "miniature", "bench", "gallery", "dev")
HOST = {"comfy", "comfy_api", "comfy_extras", "comfyui_version", "folder_paths", "server"}
FORBIDDEN = {
    "infinite_id": {"nodes", "miniature", "dev"},
    "nodes": {"miniature", "dev"},
    "miniature": {"nodes", "dev"},
}
"""What each package must not import, at its head or within functions."""
LIBRARY = ("faces", "adapters", "identities", "attention")
"""Rooms of the library that know neither the host nor a command."""


@cache
def list_modules() -> dict[str, Path]:
    """All modules outside tests by dotted name."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {_name(path): path for path in paths if "__pycache__" not in path.parts}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def list_imports(module: str) -> set[str]:
    """The modules of the pack, and the packages outside, that a module imports anywhere in it."""
    path = list_modules()[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _resolve(module, path, node)
            found |= {_longest(f"{base}.{alias.name}", base) for alias in node.names}
    return found - {module}


def _resolve(module: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return (node.module or "").removeprefix("pack.")
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _longest(name: str, base: str) -> str:
    return name if name in list_modules() else base


@pytest.mark.parametrize("package", FORBIDDEN)
def test_nothing_is_imported_from_above(package: str) -> None:
    wrong = {
        f"{module} imports {found}"
        for module in list_modules()
        if module.split(".")[0] == package
        for found in list_imports(module)
        if found.split(".")[0] in FORBIDDEN[package]
    }
    # ComfyUI's own nodes.py has the name of our folder.
    assert {line for line in wrong if not line.endswith("imports nodes")} == set()


def test_the_host_is_known_behind_its_seams_alone() -> None:
    """In `infinite_id`: its folder host, files whose names begin with host, and the launcher."""
    wrong = {
        module
        for module in list_modules()
        if module.split(".")[0] == "infinite_id"
        and not any(part.startswith(("host", "launch")) for part in module.split("."))
        and {found.split(".")[0] for found in list_imports(module)} & HOST
    }
    assert wrong == set()


@pytest.mark.parametrize("room", LIBRARY)
def test_rooms_of_the_library_need_no_host(room: str) -> None:
    wrong = {
        f"{module} imports {found}"
        for module in list_modules()
        if module.startswith(f"infinite_id.{room}")
        for found in list_imports(module)
        if found.startswith(("infinite_id.host", "infinite_id.training"))
    }
    assert wrong == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = set(list_modules())
    graph = {
        module: {  # a package is there before what lies in it
            found for found in list_imports(module) & modules if not module.startswith(f"{found}.")
        }
        for module in modules
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_module_is_read_in_one_sitting() -> None:
    lengths = {
        module: len(path.read_text(encoding="utf-8").splitlines())
        for module, path in list_modules().items()
    }
    assert {module: n for module, n in lengths.items() if n > LONGEST} == {}


def test_every_module_says_what_it_is() -> None:
    for path in list_modules().values():
        text = path.read_text(encoding="utf-8")
        assert not text.strip() or ast.get_docstring(ast.parse(text)), path
