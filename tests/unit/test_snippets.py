"""What documents give to type or to copy: commands that parse, files that can be read."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tomllib
from _pytest.mark import ParameterSet
from pack.infinite_id.metrics.plan import read_plan
from pack.tests.unit.test_documents import DOCUMENTS, ROOT, identify

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
MODULE = re.compile(r"(?:python3?|accelerate launch)(?: -\S+)*? -m (\S+)(.*)")
FILE = re.compile(r"python3? -P (\S+\.py)|pip install -r (\S+)")
HERE = "ComfyUI/custom_nodes/ComfyUI-Infinite-ID/"
"""Where the README puts the repository."""
ELSEWHERE = re.compile(r"git clone REPOSITORY \S+")
ELSEWHERE_DEFINED = {
    "miniature.train": "miniature.training.command",
    "miniature.refining": "miniature.ablation.refining",
}
"""Commands whose `main` is not in the `command` module of the package that `-m` names."""
READERS: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "python": ast.parse,
    "toml": tomllib.loads,
    "text": str,
}


class Parsed(Exception):  # noqa: N818 - it ends a command that is right, before it does anything
    """The arguments are right."""


def blocks() -> Iterator[tuple[Path, str, str]]:
    for path in DOCUMENTS:
        for language, text in BLOCK.findall(path.read_text(encoding="utf-8")):
            yield path, language, text


def typed() -> Iterator[ParameterSet]:
    """Each command line of the blocks that are to be typed."""
    for path, language, text in blocks():
        if language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                yield pytest.param(line, id=f"{identify(path)}: {line}")


def mentioned() -> Iterator[ParameterSet]:
    """Each command within a sentence, which may leave out what it always needs."""
    for path in DOCUMENTS:
        prose = BLOCK.sub("", path.read_text(encoding="utf-8"))
        for span in SPAN.findall(prose):
            command = " ".join(span.split())
            if MODULE.search(command) or FILE.search(command):
                yield pytest.param(command, id=f"{identify(path)}: {command}")


def check(command: str, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail unless the command's own parser takes it, or the file that it names is there."""
    if found := FILE.search(command):
        path = found[1] or found[2]
        assert (ROOT / path.removeprefix(HERE)).is_file()
    elif found := MODULE.search(command):
        words = shlex.split(found[2].partition(">")[0])
        if words[-1:] == ["..."]:
            words, whole = words[:-1], False
        _check_module(found[1], words, whole, monkeypatch)
    else:
        assert ELSEWHERE.fullmatch(command)


def _check_module(
    module: str, words: list[str], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module == "dev" and words[:1] == ["test"]:
        paths = [word for word in words if word.startswith("tests/")]
        assert [path for path in paths if not (ROOT / path).exists()] == []
    elif module == "dev" and words[:1] == ["bench"]:
        _parse("bench.command", words[1:], whole, monkeypatch)
    _parse(ELSEWHERE_DEFINED.get(module, f"{module}.command"), words, whole, monkeypatch)


def _parse(module: str, words: list[str], whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the command's `main` its words, and end it where it has understood them."""
    understand = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> None:
        if not whole:
            _ask_for_nothing(parser)
        understand(parser, arguments)
        raise Parsed

    main = import_module(f"pack.{module}").main
    arguments = [words] if inspect.signature(main).parameters else []
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", [module, *words])
        with pytest.raises(Parsed):
            main(*arguments)


def _ask_for_nothing(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        action.required = False
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _ask_for_nothing(verb)


@pytest.mark.parametrize("command", typed())
def test_commands_to_type(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(command, True, monkeypatch)


@pytest.mark.parametrize("command", mentioned())
def test_commands_in_sentences(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(command, False, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "python -m infinite_id.training prepair people",
        "python -m infinite_id.training export runs/first --to mine.safetensors",
        "python -m infinite_id.training export runs/first",
        "python -m dev test tests/unit/test_gone.py",
        "python -m dev bench --only nothing",
        "python -m miniature.train --stage nothing",
        "pip install -r requirements/gone.txt",
        "conda install infinite-id",
    ],
)
def test_wrong_commands_are_found(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, SystemExit)):
        check(command, True, monkeypatch)


def test_blocks_say_their_language_and_can_be_read() -> None:
    for path, language, text in blocks():
        if language != "sh":
            assert language in READERS, f"{identify(path)}: a block in '{language}'"
            READERS[language](text)


def test_every_fence_is_read() -> None:
    """None is indented or left open, and so passed over."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        assert text.count("```") == 2 * len(BLOCK.findall(text)), identify(path)


def test_the_metrics_plan_is_one(tmp_path: Path) -> None:
    (text,) = [text for path, kind, text in blocks() if (path.stem, kind) == ("metrics", "json")]
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    plan = read_plan(tmp_path / "plan.json")
    assert {*plan.methods} == {"infinite-id", "instantid"}
