"""Who may import whom, how long a module may be, and where the host may be known."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from pack.dev.cache import ROOT

LONGEST = 350
PACKAGES = ("infinite_id", "nodes", "miniature", "bench", "gallery", "dev")
HOST = {
    *("comfy", "comfy_api", "comfy_extras", "comfyui_version"),
    *("folder_paths", "server", "nodes"),
}
ALLOWED = {
    "infinite_id": set(),
    "nodes": {"infinite_id"},
    "miniature": {"infinite_id"},
    "gallery": {"infinite_id", "miniature", "dev"},
    "bench": {"infinite_id", "miniature", "gallery", "dev"},
    "dev": {"infinite_id", "miniature", "gallery", "bench"},
}
"""What of ours each package may import, at its head or within functions: never tests."""
COMMANDS = {"dev.command", "dev.demo", "dev.serve"}
"""The modules of dev that call gallery and bench; these in turn import the other ones."""
LAUNCHERS = {
    *("dev.__main__", "miniature.train", "miniature.refining", "miniature.ablation.__main__"),
    *(f"infinite_id.{room}.__main__" for room in ("training", "metrics")),
    *(f"infinite_id.{room}.__main__" for room in ("stable_identity", "staged_identity")),
}
"""What `python -m` runs: it names the package that all else in it imports by relative names."""
LIBRARY = ("faces", "adapters", "identities", "attention", "photos")
"""Rooms of the library that know neither the host nor a command."""
SHARED_BY_LEARNERS = {"infinite_id.metrics.scores", "infinite_id.metrics.statistics"}
"""What the trainer may import of the metrics, which import nothing of it."""


@cache
def list_modules() -> dict[str, Path]:
    """All modules outside tests by dotted name."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {_name(path): path for path in paths if "__pycache__" not in path.parts}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _parse(module: str) -> ast.Module:
    return ast.parse(list_modules()[module].read_text(encoding="utf-8"))


@cache
def list_imports(module: str) -> set[str]:
    """The modules of the pack, and the packages outside, that a module imports anywhere in it."""
    path = list_modules()[module]
    found: set[str] = set()
    for node in ast.walk(_parse(module)):
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


@cache
def list_pairs() -> set[tuple[str, str]]:
    """Each module with each module of ours that it imports, ComfyUI's own `nodes` not counted."""
    ours = {*ALLOWED, "tests"}
    return {
        (module, found)
        for module in list_modules()
        for found in list_imports(module)
        if found.split(".")[0] in ours and found != "nodes"
    }


def show(pairs: Iterable[tuple[str, str]]) -> set[str]:
    return {f"{module} imports {found}" for module, found in pairs}


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_what_they_may(package: str) -> None:
    may = {package, *ALLOWED[package]}
    wrong = (
        (module, found)
        for module, found in list_pairs()
        if module.split(".")[0] == package and found.split(".")[0] not in may
    )
    assert show(wrong) == set()


def test_dev_calls_gallery_and_bench_by_its_commands_alone() -> None:
    rooms = {"gallery", "bench"}
    wrong = (
        (module, found)
        for module, found in list_pairs()
        if (
            (module.split(".")[0] == "dev" and found.split(".")[0] in rooms)
            and module not in COMMANDS
        )
        or (module.split(".")[0] in rooms and found in COMMANDS)
    )
    assert show(wrong) == set()


def test_trainer_and_metrics_share_rooms_but_not_each_others() -> None:
    trainer, metrics = "infinite_id.training", "infinite_id.metrics"
    wrong = (
        (module, found)
        for module, found in list_pairs()
        if (
            (module.startswith(trainer) and found.startswith(metrics))
            and found not in SHARED_BY_LEARNERS
        )
        or (module.startswith(metrics) and found.startswith(trainer))
    )
    assert show(wrong) == set()


def test_own_modules_are_imported_by_relative_names() -> None:
    """By an absolute name one would be there twice: `infinite_id.x` and `pack.infinite_id.x`."""
    ours = {*ALLOWED, "tests", "pack"} - {"nodes"}  # ComfyUI has a nodes.py of its own
    absolute = {
        f"{module} imports {name}"
        for module in list_modules().keys() - LAUNCHERS
        for name in _list_absolute(module)
        if name.split(".")[0] in ours
    }
    assert absolute == set()


def _list_absolute(module: str) -> Iterator[str]:
    for node in ast.walk(_parse(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def is_seam(module: str) -> bool:
    """In `infinite_id`: its folder host, learners' files that begin with host, the launcher."""
    _, room, *rest = module.split(".")
    return room in ("host", "launch") or (len(rest) > 0 and rest[-1].startswith("host"))


def test_the_host_is_known_behind_its_seams_alone() -> None:
    wrong = {
        module
        for module in list_modules()
        if module.startswith("infinite_id.")
        and not is_seam(module)
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


METHODS = ("stable_identity", "staged_identity")
"""Rooms of methods beside Infinite-ID. What they share with it is in the library or in training."""


@pytest.mark.parametrize("room", METHODS)
def test_methods_stand_apart(room: str) -> None:
    """Nothing of the library imports a method; its maths knows no seam to the host."""
    own = f"infinite_id.{room}"
    wrong = set()
    for module in list_modules():
        inside = module.startswith(own)
        is_maths = inside and not module.split(".")[-1].startswith("host")
        for found in list_imports(module):
            other = found.split(".")[1] if found.startswith("infinite_id.") else ""
            into = found.startswith(own) and not inside and module.startswith("infinite_id.")
            seam = any(part.startswith("host") for part in found.split(".")[1:])
            strange = inside and other in METHODS and not found.startswith(own)
            if into or strange or (is_maths and seam and not module.endswith(".command")):
                wrong.add(f"{module} imports {found}")
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
