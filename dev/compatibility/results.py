"""The results of tests on a host, and their summary in a row of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Result:
    """The result of one test."""

    nodeid: str
    title: str  # of its file
    outcome: str  # "passed", "skipped" or "failed"
    seconds: float
    said: list[str] = field(default_factory=list)  # the errors that it expects, or what it prints
    reason: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def check(self) -> str:
        """The test without its parameters."""
        return self.nodeid.partition("[")[0]

    @property
    def file(self) -> str:
        return self.nodeid.partition("::")[0]


@dataclass(frozen=True)
class Host:
    """A version of ComfyUI and the results of the tests on it."""

    version: str
    tests: list[Result]

    def find(self, feature: Feature) -> list[Result]:
        return [test for test in self.tests if feature.covers(test)]


@dataclass(frozen=True)
class Feature:
    """A row of the table, or one for each value of a parameter, and the checks behind it."""

    name: str  # with {} for the parameter's value
    checks: Sequence[str]  # such as "host/test_layers.py::test_guiders"; `*` stands for anything
    by: str = ""  # the parameter whose values make rows of their own
    value: str = ""  # of that parameter
    only: str = ""  # the parameters in a test's id must contain this

    def covers(self, test: Result) -> bool:
        parameters = test.nodeid.removeprefix(test.check)
        return (
            any(fnmatchcase(test.check, f"tests/{check}") for check in self.checks)
            and self.only in parameters
            and self.value in ("", test.parameters.get(self.by))
        )

    def split(self, tests: Sequence[Result]) -> list[Feature]:
        """Return the rows, in the order of the tests."""
        if not self.by:
            return [self]
        values = dict.fromkeys(test.parameters[self.by] for test in tests if self.covers(test))
        return [replace(self, name=self.name.format(value), value=value) for value in values]


def describe(tests: Sequence[Result], good: str = "works") -> str:
    """Return a cell: the results of the tests of one feature on one host."""
    if not tests:
        return "not run"
    outcomes = Counter(test.outcome for test in tests)
    if outcomes["failed"]:
        reason = next(test.reason for test in tests if test.outcome == "failed")
        return f"**fails** ({outcomes['failed']} of {len(tests)}): {reason}"
    reasons = "; ".join(dict.fromkeys(test.reason for test in tests if test.outcome == "skipped"))
    if not outcomes["passed"]:
        return f"skipped: {reasons}"
    skipped = f", {outcomes['skipped']} skipped: {reasons}" if outcomes["skipped"] else ""
    return f"{good} ({outcomes['passed']}{skipped})"
