"""Names and tooltips in other languages. The page takes English, and gaps, from the nodes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pack.dev.server_api import Server

IN_LANGUAGE = {
    "ja": re.compile(r".*[\u3041-\u30ff\u4e00-\u9fff]"),
    "zh": re.compile(r"(?!.*[\u3041-\u30ff]).*[\u4e00-\u9fff]"),
}
"""By its script a translation is told from English, and Chinese, without kana, from Japanese."""
QUOTED = re.compile(r"(?<!\w)'([^']+)'(?!\w)", re.ASCII)
ENGLISH_SENTENCE = re.compile(r"[A-Za-z]+(?: [a-z]+){3}")
PLACEHOLDER_OR_PATH = re.compile(r"%\w+%|\w+/[\w/-]*|(?<!\w)\.\w+", re.ASCII)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
MESSAGE_SYNTAX = re.compile(r"[@{}|]")
"""The page's translation library (vue-i18n) takes these as links, places and plurals."""

Path = tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """One text of a node: where it stands, its English, and its translation."""

    path: Path
    english: str
    translation: str

    @property
    def node(self) -> str:
        return self.path[0]


@dataclass(frozen=True)
class Locale:
    """A language's texts, and everything that the server says about the nodes."""

    language: str
    info: dict[str, Any]
    translated: dict[Path, str]

    @property
    def english(self) -> dict[Path, str]:
        return dict(flatten({node: in_english(info) for node, info in self.info.items()}))

    @property
    def texts(self) -> list[Text]:
        both = self.english.keys() & self.translated.keys()
        assert both
        return [Text(path, self.english[path], self.translated[path]) for path in sorted(both)]


@pytest.fixture(params=sorted(IN_LANGUAGE))
def locale(server: Server, request: pytest.FixtureRequest) -> Locale:
    nodes = server.object_info().items()
    return Locale(
        request.param,
        {node: info for node, info in nodes if node.startswith("InfiniteID")},
        dict(flatten(server.get("/i18n")[request.param]["nodeDefs"])),
    )


def in_english(info: dict[str, Any]) -> dict[str, Any]:
    """A node's texts in the shape of nodeDefs.json, in which the page looks for translations."""
    inputs = {}
    for name, (kind, options) in all_inputs(info).items():
        inputs[name] = {"name": name, "tooltip": options["tooltip"]}
        if kind == "COMFY_AUTOGROW_V3":
            # Only the tooltip: the page labels these with their own names in every language.
            ((_, slot),) = options["template"]["input"]["required"].values()
            for number in options["template"]["names"]:
                inputs[f"{name}_{number}"] = {"tooltip": slot["tooltip"]}
    outputs = zip(info["output_name"], info["output_tooltips"] or [], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": inputs,
        "outputs": {str(i): {"name": n, "tooltip": t} for i, (n, t) in enumerate(outputs)},
    }


def all_inputs(info: dict[str, Any]) -> dict[str, Any]:
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def flatten(tree: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, (*path, key))
        else:
            yield (*path, key), value


def test_every_text_has_its_entry_and_no_entry_is_stale(locale: Locale) -> None:
    assert locale.translated.keys() - locale.english.keys() == set(), "stale"
    assert locale.english.keys() - locale.translated.keys() == set(), "missing"


def test_texts_are_translated(locale: Locale) -> None:
    names = {info["display_name"] for info in locale.info.values()}
    for text in locale.texts:
        assert IN_LANGUAGE[locale.language].match(text.translation), text
        assert not ENGLISH_SENTENCE.search(QUOTED.sub("", text.translation)), text
        assert not [name for name in names if name in text.translation], text


def test_texts_survive_the_translation_library(locale: Locale) -> None:
    for text in locale.texts:
        assert not MESSAGE_SYNTAX.search(text.translation), text


def test_options_numbers_and_paths_stay(locale: Locale) -> None:
    """Options are not translated, so a tooltip quotes them as they stand in the list."""
    found = 0
    for text in locale.texts:
        inputs = all_inputs(locale.info[text.node]).values()
        options = {o for _, settings in inputs for o in settings.get("options", [])}
        quoted = set(QUOTED.findall(text.translation))
        wanted = options & set(QUOTED.findall(text.english))
        assert wanted <= quoted, text
        assert quoted <= options | set(QUOTED.findall(text.english)), text
        for literal in (PLACEHOLDER_OR_PATH, NUMBER):
            lost = set(literal.findall(text.english)) - set(literal.findall(text.translation))
            assert not lost, text
        found += len(wanted)
    assert found


def test_texts_name_nodes_and_inputs_as_the_page_does(locale: Locale) -> None:
    nodes = {info["display_name"]: node for node, info in locale.info.items()}
    found = 0
    for text in locale.texts:
        sentence = text.english if text.path[-1] in ("description", "tooltip") else ""
        mentioned = [(nodes[name], "display_name") for name in nodes if name in sentence]
        for name in all_inputs(locale.info[text.node]):
            if f"'{name}'" in sentence or ("_" in name and name in sentence):
                mentioned.append((text.node, "inputs", name, "name"))
        for path in mentioned:
            assert locale.translated[path] in text.translation, (text, path)
        found += len(mentioned)
    assert found
