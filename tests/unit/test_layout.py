"""What each folder needs to run, and when it imports what is heavy."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    *("insightface", "onnxruntime", "onnx", "cv2", "skimage"),
    *("accelerate", "tensorboard", "ray", "webdataset", "jinja2"),
    *("open_clip", "torchmetrics", "dlib", "face_recognition_models", "aiohttp", "transformers"),
}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Absolute module names that a file imports; relative ones start with their dots."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


COMMANDS = [
    "launch",
    *(f"{folder}/{name}" for folder in ("training", "metrics") for name in ("__main__", "command")),
]


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_start_on_a_bare_python(name: str) -> None:
    """`--help` works where neither torch nor a host is."""
    found = imports(ROOT / "infinite_id" / f"{name}.py", top_level_only=True)
    roots = {n.partition(".")[0] for n in found if not n.startswith(".")}
    assert roots <= {*sys.stdlib_module_names, "infinite_id"}


@pytest.mark.parametrize("path", sources("infinite_id") + sources("nodes"))
def test_heavy_packages_are_imported_when_used(path: Path) -> None:
    """One missing package must not hide every node, nor slow the host's start."""
    roots = {name.partition(".")[0] for name in imports(path, top_level_only=True)}
    assert not roots & HEAVY


@pytest.mark.parametrize("name", ["command", "cache", "comfyui", "environment"])
def test_set_up_starts_on_a_bare_python(name: str) -> None:
    found = imports(ROOT / "dev" / f"{name}.py", top_level_only=True)
    assert {n.partition(".")[0] for n in found if not n.startswith(".")} <= sys.stdlib_module_names


def test_every_node_has_a_help_page() -> None:
    pages = {path.stem for path in (ROOT / "nodes" / "help" / "docs").glob("*.md")}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources("nodes")]
    keywords = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    ids = {ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg == "node_id"}
    assert ids
    assert ids == pages
