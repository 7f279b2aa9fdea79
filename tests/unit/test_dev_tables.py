"""What `python -m dev compatibility` and `soak` conclude from what they saw."""

from __future__ import annotations

import ast
import random
from fnmatch import fnmatchcase
from functools import cache
from math import sin

import pytest
from pack.bench.soak.report import TOLERANCE, WARM_UP, find_trend, judge
from pack.dev.cache import ROOT, SetUpError
from pack.dev.compatibility.document import check_rows
from pack.dev.compatibility.features import LIMITS, REFUSALS, SECTIONS
from pack.dev.compatibility.results import Feature, Host, Result, describe
from pack.dev.compatibility.run import FOLDERS, list_sources
from pack.dev.compatibility.run import test_files as list_files

FEATURES = [
    *(feature for section in SECTIONS for feature in section.features),
    *REFUSALS,
    *(limit.feature for limit in LIMITS),
]
GUIDERS = "tests/host/test_layers.py::test_guiders"


@cache
def list_tests(file: str) -> dict[str, list[str]]:
    """The names of a file's tests, with those of their parameters."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {
        node.name: [argument.arg for argument in node.args.args]
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_kept_results_depend_on_all_that_the_tests_import(folder: str) -> None:
    known = set(list_sources(ROOT / folder))
    for path in (path for path in list_files() if path.parent == ROOT / folder):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pack."):
                module = ROOT.joinpath(*(node.module or "").split(".")[1:])
                files = [module.with_suffix(".py"), module / "__init__.py"]
                own = module.parent == path.parent
                assert own or not any(file.is_file() and file not in known for file in files), (
                    f"{path.name} imports {node.module}"
                )


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.checks[0])
def test_every_row_has_tests_and_they_its_parameter(feature: Feature) -> None:
    for check in feature.checks:
        file, _, pattern = check.partition("::")
        tests = {n: args for n, args in list_tests(file).items() if fnmatchcase(n, pattern)}
        assert tests
        assert all(feature.by in args for args in tests.values() if feature.by)


def ran(make: str, outcome: str = "passed", reason: str = "") -> Result:
    return Result(f"{GUIDERS}[{make}-off]", "Layers.", outcome, 1.0, [], reason, {"make": make})


def test_a_cell_works_only_where_all_tests_passed() -> None:
    assert describe([]) == "not run"
    assert describe([ran("a"), ran("b")]) == "works (2)"
    assert describe([ran("a"), ran("b", "failed", "no")]) == "**fails** (1 of 2): no"
    assert describe([ran("a", "skipped", "too old")]) == "skipped: too old"
    assert describe([ran("a"), ran("b", "skipped", "old")]) == "works (1, 1 skipped: old)"


def test_a_parameter_makes_rows() -> None:
    tests = [ran("plain"), ran("dual")]
    rows = Feature("guider: {}", ["host/test_layers.py::test_guiders"], by="make").split(tests)
    assert [row.name for row in rows] == ["guider: plain", "guider: dual"]
    assert [[test for test in tests if row.covers(test)] for row in rows] == [[t] for t in tests]


def test_a_row_that_matches_nothing_is_an_error() -> None:
    """Where its file ran: here only one test of the file is left, and that is not the row's."""
    with pytest.raises(SetUpError, match=r"no test is .*test_layers\.py::"):
        check_rows([Host("0.0", [ran("plain")])])


def test_a_trend_that_noise_allows_is_not_claimed() -> None:
    """Memory wanders by hundreds of megabytes: neither flat nor growing can be said."""
    rng = random.Random(0)
    wandering = [1600 + 250 * rng.random() + 150 * sin(n / 40) for n in range(300)]
    judged = judge(wandering)
    assert judged is not None
    assert not judged.is_flat
    assert not judged.grows


def test_the_interval_of_a_trend_holds_the_truth() -> None:
    """Nineteen times of twenty, for independent noise."""
    rng = random.Random(1)
    hits = 0
    for _ in range(400):
        slope, margin = find_trend([0.3 * n + rng.gauss(0, 40) for n in range(240)])
        hits += abs(slope - 0.3) <= margin
    assert 0.9 <= hits / 400 <= 0.99


@pytest.mark.parametrize("leak", [0.0, 0.5])
def test_a_leak_is_not_flat(leak: float) -> None:
    """Half a megabyte a prompt; without it memory goes up and down by twenty."""
    memory = [1000 + (0 if n < WARM_UP else leak * n) + 20 * (n % 2) for n in range(300)]
    judged = judge(memory)
    assert judged is not None
    assert judged.is_flat == (leak == 0)
    assert judged.grows == (leak > 0)
    assert judged.trend == pytest.approx(100 * leak, abs=1)
    assert (judged.growth > TOLERANCE) == (leak > 0)


def test_few_prompts_say_nothing_about_memory() -> None:
    assert judge([1000.0] * (WARM_UP + 7)) is None
    assert judge([1000.0] * 9, every=20) is None


def test_a_trend_is_told_per_hundred_prompts_however_often_memory_is_looked_at() -> None:
    often = judge([1000 + 0.5 * n for n in range(1000)])
    seldom = judge([1000 + 0.5 * n for n in range(0, 1000, 20)], every=20)
    assert often is not None
    assert seldom is not None
    assert often.trend == pytest.approx(50)
    assert seldom.trend == pytest.approx(50)
