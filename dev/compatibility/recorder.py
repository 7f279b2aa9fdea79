"""A script that runs pytest and stores the results. It imports pytest and tests, not the pack.

`python recorder.py '{"tests/host/test_x.py": "result.json", ...}'` runs these files; each
result is written when its file is done, so that an interrupted run keeps earlier results.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Found = dict[str, Any]


class Recorder:
    """A pytest plugin."""

    def __init__(self, targets: dict[str, str]) -> None:
        self.targets = targets
        self.found: dict[str, dict[str, Found]] = defaultdict(dict)
        self.titles: dict[str, str] = {}
        self.left: Counter[str] = Counter()

    @pytest.fixture(autouse=True)
    def _keep_messages(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Keep the messages of expected errors."""
        raises = pytest.raises

        @contextmanager
        def keep(*expected: Any, **conditions: Any) -> Iterator[Any]:
            with raises(*expected, **conditions) as caught:
                yield caught
            request.node.user_properties.append(("message", str(caught.value)))

        monkeypatch.setattr(pytest, "raises", keep)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            file = _file(item.nodeid)
            self.left[file] += 1
            self.titles[file] = _title(item)
            self.found[file][item.nodeid] = {
                "outcome": "passed",
                "said": [],
                "seconds": 0.0,
                "parameters": _parameters(item),
            }

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file without tests, which cannot be imported or skips itself, as one test."""
        if report.passed or report.nodeid not in self.targets:
            return
        found = {"outcome": "passed", "said": [], "seconds": 0.0, "parameters": {}}
        self.found[report.nodeid] = {report.nodeid: found}
        _note(found, report)
        self._write(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = _file(report.nodeid)
        found = self.found[file][report.nodeid]
        found["seconds"] += report.duration
        _note(found, report)
        if report.when == "teardown":
            said = [text for name, text in report.user_properties if name == "message"]
            found["said"] = said or report.capstdout.strip().splitlines()[:1]
            self.left[file] -= 1
            if not self.left[file]:
                self._write(file)

    def _write(self, file: str) -> None:
        target = Path(self.targets[file])
        partial = target.with_suffix(".partial")
        content = {"title": self.titles.get(file, file), "tests": self.found[file]}
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        partial.replace(target)


def _title(item: pytest.Item) -> str:
    module = item.getparent(pytest.Module)
    assert module is not None
    return (module.obj.__doc__ or module.name).strip().splitlines()[0]


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _parameters(item: pytest.Item) -> dict[str, str]:
    """Return each parameter as a word for a table."""
    call = getattr(item, "callspec", None)
    return {} if call is None else {name: _name(value) for name, value in call.params.items()}


def _name(value: Any) -> str:
    if isinstance(value, Path):
        return value.stem
    return getattr(value, "__name__", str(value)).replace("_", " ")


def _note(found: Found, report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        lines = (crash.message if crash else str(report.longrepr)).strip().splitlines()
        # Without a crash site it is a traceback, whose last line is the error.
        reason = lines[0] if crash else lines[-1].removeprefix("E").strip()
        found |= {"outcome": "failed", "reason": reason[:200]}
    elif report.skipped and found["outcome"] == "passed":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "expected to fail"
        found |= {"outcome": "skipped", "reason": reason.removeprefix("Skipped: ")}


if __name__ == "__main__":
    recorder = Recorder(json.loads(sys.argv[1]))
    arguments = ["-q", "--tb=short", "--continue-on-collection-errors"]
    sys.exit(pytest.main([*recorder.targets, *arguments], plugins=[recorder]))
