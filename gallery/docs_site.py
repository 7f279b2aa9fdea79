"""The hook of mkdocs.yml: it makes the site's pages of the repository's documents.

To mkdocs a file's name is its path in the repository, so a link that works there works on the site.
Pictures keep that path on the site, and a page of docs/ has the same depth there. So
`<img src=...>` in these pages and in the README works in both places, too.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SHOWN = (
    *("*.md", "docs/**/*", "nodes/help/docs/*", "miniature/weights/README.md"),
    *("assets/*.png", "workflows/*.jpg", "workflows/*.json"),
)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]+)?\)")
NEEDLESS = ["navigation", "toc"]
"""The parts that are hidden on wide pages of pictures."""
WIDE = ("README.md", "docs/workflows.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return all files of the site: the theme's, and the shown files of the repository."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    paths = [path for pattern in SHOWN for path in sorted(ROOT.glob(pattern)) if path.is_file()]
    ours = [_place(path.relative_to(ROOT).as_posix(), config) for path in paths]
    return Files([*theme, *ours])


def _place(path: str, config: MkDocsConfig) -> File:
    place = posixpath.join(_folder(PurePosixPath(path)), "index.html")
    return File(
        path, str(ROOT), config.site_dir, True, dest_uri=place if path.endswith(".md") else path
    )


def _folder(path: PurePosixPath) -> str:
    """Return a page's folder: a node's help is under `nodes`, all others are at the top."""
    if path.parts[0] == "nodes":
        return f"nodes/{path.stem}"
    if path.stem == "README":
        return path.parts[0] if len(path.parts) > 1 else ""
    return path.stem.lower()


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name linked pages by their titles; link into the repository if the site lacks a file."""
    folder = posixpath.dirname(page.file.src_uri)

    def lead(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[2]))
        if file := files.get_file_from_path(path):
            name = file.page.title if file.page and link[1].endswith(".md") else link[1]
            return f"[{name}]({link[2]}{link[3] or ''})"
        if not (ROOT / path).exists():
            return link[0]
        return f"[{link[1]}]({config.repo_url}/blob/main/{path})" if config.repo_url else link[1]

    if page.file.src_uri in WIDE:
        page.meta["hide"] = NEEDLESS
    if config.repo_url:
        markdown = re.sub(r"\bREPOSITORY\b", config.repo_url, markdown)
    return LINK.sub(lead, markdown)
