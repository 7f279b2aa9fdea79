"""The documentation's site, built: nothing is missing in it, and nothing comes from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pack.tests.unit.test_documents import NODES, ROOT

REPOSITORY = "https://example.org/owner/infinite-id"
FETCHED = re.compile(r"url\(\s*['\"]?(?:https?:)?//|@import")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("material"), reason="requirements/docs.txt"),
]


class Links(HTMLParser):
    """What a page leads to, what it fetches, and the names of its places."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.fetches: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.names |= {found[name] for name in ("id", "name") if name in found}
        if "src" in found:
            self.fetches.append(found["src"])
        if "href" in found and found.get("rel") not in ("canonical", "next", "prev"):
            (self.leads if tag == "a" else self.fetches).append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "REPOSITORY_URL": REPOSITORY},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    """All but the page for what is not there, whose links begin at the server's root."""
    found = [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]
    return {path: Links(path.read_text(encoding="utf-8")) for path in found}


def targets(page: Path, links: list[str]) -> Iterator[tuple[str, Path, str]]:
    """Links within the site, as files of it and the place in these."""
    for link in links:
        parts = urlsplit(link)
        if not parts.scheme and not parts.netloc:
            path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            yield link, path / "index.html" if path.is_dir() else path, unquote(parts.fragment)


def test_links_lead_somewhere(pages: dict[Path, Links]) -> None:
    broken = [
        f"{page}: {link}"
        for page, links in pages.items()
        for link, path, place in targets(page, links.leads + links.fetches)
        if not path.is_file() or (place and path in pages and place not in pages[path].names)
    ]
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Links]) -> None:
    fetched = {link for links in pages.values() for link in links.fetches}
    assert {link for link in fetched if urlsplit(link).netloc} == set()
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles
    assert [style for style in styles if FETCHED.search(style)] == []
    # What the theme's own script fetches, it does for these alone.
    texts = "".join(path.read_text(encoding="utf-8") for path in pages)
    assert 'class="mermaid"' not in texts
    assert 'data-md-component="source"' not in texts


def test_every_document_is_a_page_that_others_lead_to(site: Path, pages: dict[Path, Links]) -> None:
    led = {
        path
        for page, links in pages.items()
        for _, path, _ in targets(page, links.leads)
        if path != page
    }
    assert pages.keys() - led == set()
    assert {path.parent.name for path in site.glob("nodes/*/index.html")} == NODES.keys()
    documents = {path.stem.lower() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
    assert {name for name in documents - {"readme"} if not (site / name).is_dir()} == set()


def test_the_gallery_shows_every_workflow(site: Path) -> None:
    page = Links((site / "workflows" / "index.html").read_text(encoding="utf-8"))
    for path in (ROOT / "workflows").glob("*.json"):
        assert any(link.endswith(f"{path.stem}.jpg") for link in page.fetches), path.stem
        assert any(link.endswith(path.name) for link in page.leads), path.stem


def test_pages_lead_into_the_repository_where_the_site_ends(pages: dict[Path, Links]) -> None:
    text = next(path for path in pages if path.parent.name == "design").read_text(encoding="utf-8")
    assert f'href="{REPOSITORY}/blob/main/tests/host/reference.py"' in text
    into = f"{REPOSITORY}/blob/main/"
    leads = {link for links in pages.values() for link in links.leads if link.startswith(into)}
    assert [link for link in leads if not (ROOT / link.removeprefix(into)).exists()] == []


def test_the_front_page_says_what_to_clone(site: Path) -> None:
    text = re.sub("<[^>]+>", "", (site / "index.html").read_text(encoding="utf-8"))
    assert f"git clone {REPOSITORY} ComfyUI/custom_nodes/" in text
