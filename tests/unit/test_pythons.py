"""What is said of Python versions is what is tested: the pack's oldest, and the developers'."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml
from pack.dev import environment
from pack.dev.cache import ROOT, SetUpError
from pack.tests.unit.test_architecture import HOST, list_imports, list_modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = ROOT / ".github" / "workflows"
OF_DEVELOPERS = ".".join(map(str, environment.OLDEST_PYTHON))


def read_jobs(name: str) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))["jobs"]
    return jobs


def without_host() -> dict[str, Any]:
    job: dict[str, Any] = read_jobs("test.yml")["without-host"]
    return job


def test_the_oldest_python_is_tested_and_code_is_checked_for_it() -> None:
    oldest, *_ = without_host()["strategy"]["matrix"]["python"]
    tools = PROJECT["tool"]
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    assert tools["mypy"]["python_version"] == oldest
    assert tools["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_the_tests_without_a_host_need_neither_host_nor_set_up() -> None:
    """The set-up needs a newer Python than the pack."""
    commands = " ".join(step.get("run", "") for step in without_host()["steps"])
    tests = [ROOT / word for word in commands.split() if word.startswith("tests/")]
    reached = reach(tests)
    assert "infinite_id.streams" in reached
    wrong = {name for name in reached if name.split(".")[0] in HOST - {"nodes"} | {"dev"}}
    assert wrong == set()


def reach(tests: list[Path]) -> set[str]:
    """All modules that tests import, at whatever distance."""
    modules = list_modules()
    found: set[str] = set()
    ahead = {
        name.removeprefix("pack.")
        for path in tests
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
        for name in (node.module, f"{node.module}.{node.names[0].name}")
    }
    while ahead:
        name = ahead.pop()
        found.add(name)
        if name in modules:
            ahead |= list_imports(name) - found
    return found


@pytest.mark.parametrize("name", ["test.yml", "nightly.yml", "docs.yml"])
def test_developers_python_is_the_one_that_is_told(name: str) -> None:
    versions = {
        step["with"]["python-version"]
        for job, told in read_jobs(name).items()
        for step in told["steps"]
        if job != "without-host" and "python-version" in step.get("with", ())
    }
    assert versions == {OF_DEVELOPERS}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "dev/__main__.py"])
def test_documents_tell_the_developers_python(name: str) -> None:
    told = re.findall(r"Python (?:from )?(3\.\d+)", (ROOT / name).read_text(encoding="utf-8"))
    assert {*told} == {OF_DEVELOPERS}


def test_an_older_python_is_refused_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    for prepare in (environment.prepare, environment.prepare_for_nets):
        with pytest.raises(SetUpError, match=r"needs Python 3\.11 or newer; this is 3\."):
            prepare()
