"""What users read: links and anchors lead somewhere, help pages and README leave nothing out."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pack.infinite_id.presets import CLIP_MODELS, FACE_PACKS, PLUS_V2, PRESETS, SEARCH_WORDS

ROOT = Path(__file__).parents[2]
HELP = ROOT / "nodes" / "help" / "docs"
PAGES = sorted(HELP.glob("*.md"))
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "miniature").rglob("*.md")),
    *PAGES,
]
NODES: dict[str, Any] = json.loads(
    (Path(__file__).with_name("nodes_snapshot.json")).read_text(encoding="utf-8")
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LARGEST_PICTURE = 40_000
"""Bytes: of one in a help page, which is fetched as the panel opens."""


def identify(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives a file's headings."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


def broken_links(path: Path, text: str) -> list[str]:
    """Links within the repository that lead nowhere, and such to the web without TLS."""
    found = []
    for link in LINK.findall(CODE.sub("", text)):
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if "://" in link:
            good = link.startswith("https://")
        else:
            good = target.is_relative_to(ROOT) and target.exists()
            good = good and (not anchor or anchor in anchors(target))
        if not good:
            found.append(link)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=identify)
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "link", ["gone.md", "#gone", "docs/recipes.md#gone", "../outside.md", "http://example.org"]
)
def test_broken_links_are_found(link: str) -> None:
    assert broken_links(ROOT / "README.md", f"[a link]({link})") == [link]


@pytest.mark.parametrize("path", DOCUMENTS, ids=identify)
def test_paths_of_tests_and_modules_are_there(path: Path) -> None:
    """Commands and tables name files; a renamed one must not leave its name behind."""
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.])(?:tests|dev|nodes|infinite_id)/[\w/.]+\.py\b", text)
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_node_has_a_page_and_every_page_a_node() -> None:
    assert {path.stem for path in PAGES} == NODES.keys()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_help_names_every_input_and_output(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    explained = set(re.findall(r"\*\*(.+?)\*\*", text))
    node = NODES[path.stem]
    assert {*node["inputs"], *node["outputs"]} - explained == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_help_has_a_small_picture_with_a_description(path: Path) -> None:
    pictures = PICTURE.findall(path.read_text(encoding="utf-8"))
    assert pictures
    for description, place in pictures:
        assert description
        assert (HELP / place).stat().st_size <= LARGEST_PICTURE


def test_the_docs_name_every_workflow_and_every_node() -> None:
    text = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    workflows = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    assert {name for name in workflows if f"`{name}`" not in text} == set()
    text = (ROOT / "docs" / "nodes.md").read_text(encoding="utf-8")
    names = {ast.literal_eval(schema["display_name"]) for schema in schemas()}
    assert len(names) == len(NODES)
    assert {name for name in names if f"**{name}**" not in text} == set()


def test_the_search_finds_nodes_by_other_words() -> None:
    for schema in schemas():
        name = ast.literal_eval(schema["display_name"])
        aliases = read_aliases(schema)
        assert len(aliases) == len({*aliases} - {name.lower()}) > 1, name


def test_words_that_people_search_find_a_node() -> None:
    (loader,) = [s for s in schemas() if "UnifiedLoader" in ast.unparse(s["node_id"])]
    words = "face portrait identity ipadapter instantid faceid pulid character"
    wanted = {*words.split(), "face swap", "photo to person"}
    assert wanted <= {*read_aliases(loader)}


def read_aliases(schema: dict[str, ast.expr]) -> list[str]:
    """A node's search words, of which some stand in the library."""
    listed = schema["search_aliases"]
    assert isinstance(listed, ast.List)
    return [
        word
        for entry in listed.elts
        for word in (SEARCH_WORDS if isinstance(entry, ast.Starred) else [ast.literal_eval(entry)])
    ]


def schemas() -> list[dict[str, ast.expr]]:
    """What each node says about itself, by the schema's keywords."""
    paths = sorted((ROOT / "nodes").glob("*.py"))
    return [
        {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "io.Schema"
    ]


@cache
def messages() -> str:
    """Every text in the pack's code, with line breaks where values are put in."""
    paths = [p for folder in ("infinite_id", "nodes") for p in (ROOT / folder).rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    return "\n".join(text for tree in trees for text in _texts(tree))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "\n" for part in node.values)
            yield "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def quoted_messages(text: str) -> list[str]:
    """The first cells of tables, where they quote what the pack says."""
    cells = re.findall(r"^\| \*([^*]+)\*(?: \([\w ]+\))? \|", text, re.MULTILINE)
    return [part.strip(" '().,:|") for cell in cells for part in cell.split("…")]


def test_the_readme_lists_the_files_that_the_first_preset_needs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    preset = PRESETS[PLUS_V2]
    pack, clip = FACE_PACKS[preset.face_model].download, CLIP_MODELS[preset.clip_model]
    for file in (preset.adapter, pack, clip):
        assert file is not None
        assert f"({file.url})" in text
        assert f"| {file.amount} |" in text
    assert len(re.findall(r"\w+", CODE.sub("", text))) < 1400


def test_troubleshooting_quotes_the_packs_own_words() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    parts = [part for part in quoted_messages(text) if part]
    assert len(parts) > 2
    assert [part for part in parts if part not in messages()] == []
