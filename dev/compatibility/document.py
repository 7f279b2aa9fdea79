"""Writes `docs/compatibility.md` from the results of the tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..cache import ROOT, SetUpError, cache_root
from .features import LIMITS, REFUSALS, SECTIONS, Limit, Section
from .results import Feature, Host, Result, describe

TRACEBACK = re.compile(r'\s+File ".*')
"""The traceback that the server sends after a message."""
DOCUMENT = ROOT / "docs" / "compatibility.md"
BY_HAND = ROOT / "tests" / "interop" / "combined.md"
BY_HAND_HEAD = """Checkouts of other packs, beside the pack in one process: the head of
`tests/interop/combine_peers.py` has the command, and says what the columns are.

"""
HEAD = """# Compatibility

Written by `python -m dev compatibility`: the tests of `tests/host` and `tests/server` on real
hosts, on a CPU. A cell says *works* only where all of the row's tests passed on that ComfyUI; in
brackets is their number. Behind each row is the test that checks it; run one by
`INFINITE_ID_HOST=0.16.3 python -m dev test tests/host/test_layers.py -k test_guiders`.
"""


def write_document(hosts: Sequence[Host]) -> None:
    """Write the document. Raises SetUpError if a row has no test any more."""
    check_rows(hosts)
    tests = _unite(hosts)
    parts = [HEAD]
    for section in (*SECTIONS, _list_rest(tests)):
        rows = [row for feature in section.features for row in feature.split(tests)]
        if not rows:
            continue
        parts.append(_heading(section.title))
        parts.append(_table(_header("feature", hosts), (_cells(row, hosts) for row in rows)))
    parts.append(_heading("Refused"))
    parts.append("Each mistake is told at its node, before anything samples, in these words.\n")
    parts.append(_table(("mistake", "message", "check"), _refusals(tests)))
    parts.append(_heading("Known not to work"))
    limits = (_limit_cells(limit, hosts) for limit in LIMITS)
    parts.append(_table(_header("what", hosts, "what happens", "message"), limits))
    if BY_HAND.exists():
        parts.append(_heading("Real packs, by hand"))
        parts.append(BY_HAND_HEAD + BY_HAND.read_text(encoding="utf-8"))
    DOCUMENT.write_text("\n".join(parts), encoding="utf-8")
    print(f"Wrote {DOCUMENT.relative_to(ROOT)}")


def check_rows(hosts: Sequence[Host]) -> None:
    """Raise SetUpError if a row has no tests in the files that were run."""
    tests = _unite(hosts)
    run = {test.file for test in tests}
    for feature in _all_features():
        for check in feature.checks:
            file = f"tests/{check.partition('::')[0]}"
            there = [test for test in tests if Feature("", (check,)).covers(test)]
            if not (ROOT / file).exists() or (file in run and not there):
                raise SetUpError(f"dev/compatibility/features.py: no test is {check}.")
        if not any(map(feature.covers, tests)) and run.issuperset(_files(feature)):
            raise SetUpError(f"dev/compatibility/features.py: no test has '{feature.only}'.")


def _all_features() -> list[Feature]:
    rows = [feature for section in SECTIONS for feature in section.features]
    return [*rows, *REFUSALS, *(limit.feature for limit in LIMITS)]


def _files(feature: Feature) -> set[str]:
    return {f"tests/{check.partition('::')[0]}" for check in feature.checks}


def _unite(hosts: Sequence[Host]) -> list[Result]:
    """Return each test once, with the result of the newest host that ran it."""
    found = {test.nodeid: test for host in hosts for test in host.tests}
    return list(found.values())


def _list_rest(tests: Sequence[Result]) -> Section:
    """List the tests without a row, by the titles of their files."""
    features = _all_features()
    rest: dict[str, dict[str, None]] = {}
    for test in tests:
        if not any(feature.covers(test) for feature in features):
            rest.setdefault(test.title, {})[test.check.removeprefix("tests/")] = None
    return Section(
        "All other tests, by their files",
        tuple(Feature(title.rstrip("."), tuple(checks)) for title, checks in rest.items()),
    )


def _header(first: str, hosts: Sequence[Host], *more: str) -> tuple[str, ...]:
    return (first, *more, *(host.version for host in hosts), "check")


def _cells(row: Feature, hosts: Sequence[Host]) -> tuple[str, ...]:
    cells = (describe(host.find(row)) for host in hosts)
    return (row.name, *cells, _name_checks(row.checks))


def _limit_cells(limit: Limit, hosts: Sequence[Host]) -> tuple[str, ...]:
    cells = (describe(host.find(limit.feature), "shown") for host in hosts)
    said = (_say(test) for test in filter(limit.feature.covers, _unite(hosts)))
    message = next(filter(None, said), "none")
    return (limit.what, limit.why, message, *cells, _name_checks(limit.feature.checks))


def _say(test: Result) -> str:
    """Return the messages of the errors that a test expects."""
    return " / ".join(TRACEBACK.sub("", text) for text in test.said)


def _name_checks(checks: Sequence[str]) -> str:
    """Name tests briefly: many tests of one file are named by the file."""
    files = dict.fromkeys(check.partition("::")[0] for check in checks)
    names = checks if len(checks) <= 3 else list(files)
    return ", ".join(f"`{name.removesuffix('::*')}`" for name in names)


def _refusals(tests: Sequence[Result]) -> Iterable[tuple[str, ...]]:
    for feature in REFUSALS:
        for row in feature.split(tests):
            for test in filter(row.covers, tests):
                if test.said:
                    check = test.nodeid.removeprefix("tests/")
                    yield row.name or _humanise(test), _say(test), f"`{check}`"


def _humanise(test: Result) -> str:
    """test_sd15_model[x] -> sd15 model: x."""
    name, _, parameters = test.nodeid.rpartition("::test_")[2].partition("[")
    chosen = parameters.removesuffix("]").strip("-")
    return name.replace("_", " ") + (f": {chosen}" if chosen else "")


def _heading(title: str) -> str:
    return f"\n## {title}\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(map(_escape, line))} |" for line in lines)


def _escape(cell: str) -> str:
    """Escape a cell for a table, and remove the folders of this machine."""
    for folder in (ROOT, cache_root()):
        cell = cell.replace(str(folder), folder.name)
    return cell.replace("|", "\\|").replace("\n", "<br>")
