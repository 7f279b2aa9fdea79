"""What the Comfy Registry and the manager read and demand: metadata, pictures, and safe code."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from shutil import copyfile

import pytest
import tomllib
import yaml
from pathspec import PathSpec
from PIL import Image

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {"subprocess", "pip", "ensurepip", "marshal", "base64", "runpy", "pty", "ctypes"}
FUNCTIONS = {"eval", "exec", "compile", "__import__"}
SYSTEM = re.compile("system|popen|startfile|posix_spawn.*|exec[lv].*|spawn[lv].*")


def published() -> list[str]:
    """Paths in the archive that comfy-cli makes of what git has, but for `.comfyignore`."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    ignored = PathSpec.from_lines("gitignore", [*lines, ".git", "__pycache__", ".*_cache"])
    skipped = PathSpec.from_lines("gitignore", (ROOT / ".gitignore").read_text().splitlines())
    return sorted(path for path in (ignored + skipped).match_tree_files(ROOT, negate=True))


def forbidden(source: str) -> Iterator[str]:
    """What the registry's standards forbid, and loading that runs a file's code, line by line."""
    for node in ast.walk(ast.parse(source)):
        found = None
        if isinstance(node, ast.Import):
            found = MODULES & {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {alias.name for alias in node.names}
            found = MODULES & {(node.module or "").partition(".")[0]}
            if node.module == "os":
                found |= {name for name in names if SYSTEM.fullmatch(name)}
        elif isinstance(node, ast.Call):
            found = _forbidden_call(node)
        if found and isinstance(node, ast.stmt | ast.expr):
            yield f"{node.lineno}: {', '.join(sorted(found))}"


def _forbidden_call(node: ast.Call) -> set[str]:
    name = ast.unparse(node.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    module, _, function = name.rpartition(".")
    bad = (
        name in FUNCTIONS
        or (module == "os" and SYSTEM.fullmatch(function))
        or (module == "builtins" and function in FUNCTIONS)
        or (module == "pickle" and function in {"load", "loads", "Unpickler"})
        or (name == "torch.load" and keywords.get("weights_only") != "True")
        or keywords.get("allow_pickle", "False") != "False"
    )
    return {name} if bad else set()


@pytest.mark.parametrize("path", [path for path in published() if path.endswith(".py")])
def test_published_code_keeps_to_the_standards(path: str) -> None:
    assert list(forbidden((ROOT / path).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "import builtins; builtins.exec('1')",
        "from subprocess import run",
        "import os; os.system('ls')",
        "from os import popen",
        "import os; os.execvp('ls', [])",
        "import pip._internal",
        "import torch; torch.load(path)",
        "import torch; torch.load(path, weights_only=False)",
        "import pickle; pickle.loads(data)",
        "import numpy; numpy.load(path, allow_pickle=True)",
    ],
)
def test_forbidden_code_is_found(line: str) -> None:
    assert len(list(forbidden(line))) == 1


def test_the_archive_holds_what_a_user_needs_and_no_more() -> None:
    paths = published()
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    assert folders <= {
        "docs",
        "infinite_id",
        "locales",
        "nodes",
        "requirements",
        "subgraphs",
        "workflows",
    }
    assert {"__init__.py", "LICENSE", "README.md", "pyproject.toml", "requirements.txt"} <= {*paths}
    assert "nodes/help/docs/InfiniteIDApply.md" in paths
    assert "workflows/photo.json" in paths
    assert any(path.startswith("requirements/onnxruntime-1.9999") for path in paths)
    assert sum((ROOT / path).stat().st_size for path in paths) < 5e6


@pytest.mark.parametrize("path", [path for path in published() if path.endswith(".py")])
def test_published_code_imports_only_what_is_published(path: str) -> None:
    paths = published()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = PurePosixPath(path).parents[node.level - 1]
            module = str(folder / (node.module or "").replace(".", "/"))
            assert module == "." or any(
                found == f"{module}.py" or found.startswith(f"{module}/") for found in paths
            ), f"{path}:{node.lineno}"


def test_name_and_versions_have_the_registrys_form() -> None:
    assert re.fullmatch(r"[a-z]+([-_.][a-z0-9]+)*", PROJECT["name"])
    assert not PROJECT["name"].startswith("comfy")
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["version"])


def test_no_machine_is_kept_out() -> None:
    """A list of accelerators counts as all that work, and the CPU has no entry in it."""
    assert "Operating System :: OS Independent" in PROJECT["classifiers"]
    assert not any(line.startswith("Environment ::") for line in PROJECT["classifiers"])


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert first is not None
    assert first[1] == PROJECT["version"]


def test_dependencies_are_those_of_the_requirements() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert PROJECT["dependencies"] == [line for line in lines if line and line[0] not in "#-"]


@pytest.mark.parametrize(("name", "size"), [("icon", (400, 400)), ("banner", (1260, 540))])
def test_pictures_have_the_registrys_sizes(name: str, size: tuple[int, int]) -> None:
    """The icon is square and at most 400 pixels wide, the banner is 21:9."""
    with Image.open(ROOT / "assets" / f"{name}.png") as picture:
        assert picture.size == size


def steps() -> dict[str, dict[str, str]]:
    """The publishing job's scripts, by the steps' names."""
    text = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["publish"]
    assert job["needs"] == "test"
    return {step["name"]: step for step in job["steps"] if "run" in step}


def run(step: str, folder: Path, **environment: str) -> None:
    """Run a step as GitHub does, in a folder with copies of the files that it reads."""
    for name in ("pyproject.toml", "CHANGELOG.md"):
        copyfile(ROOT / name, folder / name)
    script = steps()[step]["run"]
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    subprocess.run(command, check=True, cwd=folder, env=os.environ | environment)


on_github = pytest.mark.skipif(sys.platform == "win32", reason="the steps run in Linux's bash")


@on_github
def test_publishing_adds_what_the_repository_cannot_know(tmp_path: Path) -> None:
    """As the host's own reader sees it: `comfy_config`, from which comfy-cli's was made."""
    parser = pytest.importorskip("comfy_config.config_parser", reason="set COMFYUI_PATH")
    home, pictures = "https://example.org/me/pack", "https://example.org/raw/me/pack/v1/assets"
    step = "Add what depends on where this repository lives"
    assert set(steps()[step]["env"]) == {"PUBLISHER", "HOME_PAGE", "PICTURES"}
    run(step, tmp_path, PUBLISHER="me", HOME_PAGE=home, PICTURES=pictures)
    found = parser.extract_node_configuration(str(tmp_path))
    assert found.tool_comfy.publisher_id == "me"
    assert found.tool_comfy.display_name == "Infinite-ID"
    assert found.tool_comfy.icon == f"{pictures}/icon.png"
    assert found.project.name == PROJECT["name"]
    assert found.project.urls.repository == home
    assert found.project.urls.issues == f"{home}/issues"
    assert found.project.license.file == "LICENSE"
    assert found.project.supported_os == ["OS Independent"]
    assert found.project.supported_comfyui_version == ">=0.16.3"
    text = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["tool"]["comfy"]["Banner"] == f"{pictures}/banner.png"


@on_github
def test_publishing_stops_without_a_publisher(tmp_path: Path) -> None:
    step = "Add what depends on where this repository lives"
    with pytest.raises(subprocess.CalledProcessError):
        run(step, tmp_path, PUBLISHER="", HOME_PAGE="", PICTURES="")


@on_github
def test_publishing_takes_only_the_tag_of_this_version(tmp_path: Path) -> None:
    step = "Compare the tag with the version"
    run(step, tmp_path, GITHUB_REF_NAME=f"v{PROJECT['version']}")
    with pytest.raises(subprocess.CalledProcessError):
        run(step, tmp_path, GITHUB_REF_NAME="v9.9.9")


@on_github
def test_publishing_takes_this_versions_changelog(tmp_path: Path) -> None:
    variables = tmp_path / "variables"
    run(
        "Take this version's part of the changelog",
        tmp_path,
        GITHUB_REF_NAME=f"v{PROJECT['version']}",
        GITHUB_ENV=str(variables),
    )
    first, *changes, last = variables.read_text(encoding="utf-8").splitlines()
    assert (first, last) == ("COMFY_NODE_CHANGELOG<<END", "END")
    assert "### Added" in changes
    assert not any(line.startswith("## ") for line in changes)
