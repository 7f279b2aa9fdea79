"""Where photos come from: a folder for each person, JSON lines, or WebDataset shards.

Photos are listed in an order that depends on their names alone.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm"}
Box = tuple[float, float, float, float]


@dataclass(frozen=True, order=True, slots=True)
class Source:
    """One photo of a person: a file, or a part of a tar file.

    Attributes:
        person: whom it shows.
        name: for the user to find it; unique in a data set.
        path: the file, or the tar file.
        offset, size: the photo's bytes in the file.
        changed: when the file was last changed, in nanoseconds.
        caption: what it shows, in words; empty if nobody said.
        box: left, top, right, bottom of the person's face in pixels, if the photo may show others.
    """

    person: str
    name: str
    path: Path
    offset: int
    size: int
    changed: int
    caption: str = ""
    box: Box | None = None

    def read(self) -> bytes:
        """The photo's bytes. Raises OSError if the file is gone or unreadable."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def list_sources(photos: Path, captions: bool) -> list[Source]:
    """All photos, sorted by person and name.

    Args:
        photos: a folder with a folder of photos for each person; a file of JSON lines; a tar file,
            or a folder of nothing but tar files.
        captions: whether to read captions from text files with the photos' names beside them. JSON
            lines and shards bring their own.

    Raises:
        UserError: if nothing is there, or nothing that this can read.
    """
    if not photos.exists():
        raise UserError(f"There is no {photos}. Give a folder with a folder for each person.")
    if photos.is_file() and photos.suffix == ".jsonl":
        found = list(_list_lines(photos))
    elif photos.is_file() and photos.suffix == ".tar":
        found = list(_list_shard(photos))
    elif photos.is_file():
        raise UserError(f"{photos} is neither a folder, nor a .jsonl, nor a .tar file.")
    elif shards := _only_shards(photos):
        found = [source for shard in shards for source in _list_shard(shard)]
    else:
        found = list(_list_folders(photos, captions))
    if not found:
        raise UserError(_describe_nothing(photos))
    return sorted(found, key=lambda source: (source.person, source.name))


def _only_shards(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir())
    return entries if entries and all(entry.suffix == ".tar" for entry in entries) else []


def _describe_nothing(photos: Path) -> str:
    if photos.is_file():
        return f"{photos} holds no photos."
    loose = sum(entry.suffix.lower() in EXTENSIONS for entry in photos.iterdir())
    return (
        f"{photos} holds no person's folder with photos. Expected {photos.name}/<person>/*.jpg, "
        "a folder for each person, with two photos or more"
        + (
            f"; there are {loose} photos that lie in no person's folder: who is on them?"
            if loose
            else "."
        )
    )


def _list_folders(photos: Path, captions: bool) -> Iterator[Source]:
    for folder in photos.iterdir():
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        for path in folder.rglob("*"):
            if path.suffix.lower() in EXTENSIONS and path.is_file():
                name = path.relative_to(photos).as_posix()
                yield _whole_file(folder.name, name, path, _read_caption(path) if captions else "")


def _whole_file(person: str, name: str, path: Path, caption: str, box: Box | None = None) -> Source:
    stat = path.stat()
    return Source(person, name, path, 0, stat.st_size, stat.st_mtime_ns, caption, box)


def _read_caption(photo: Path) -> str:
    path = photo.with_suffix(".txt")
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


_KEYS = {"file", "person", "caption", "bbox"}


def _list_lines(path: Path) -> Iterator[Source]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield _read_line(path.parent, json.loads(line))
                except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
                    raise UserError(
                        f"{path}, line {number}: {error}. A line is such as "
                        '{"file": "anna/1.jpg", "person": "anna", "caption": "...", '
                        '"bbox": [left, top, right, bottom]}; file and person must be there, and '
                        "the file is sought from the .jsonl's folder."
                    ) from error


def _read_line(folder: Path, line: dict[str, Any]) -> Source:
    unknown = sorted(line.keys() - _KEYS)
    if unknown:
        raise ValueError(f"unknown key '{unknown[0]}'")
    file, person = str(line["file"]), str(line["person"])
    box = None
    if line.get("bbox") is not None:
        left, top, right, bottom = (float(x) for x in line["bbox"])
        box = (left, top, right, bottom)
    return _whole_file(person, file, folder / file, str(line.get("caption") or ""), box)


def _list_shard(path: Path) -> Iterator[Source]:
    """WebDataset's layout: members of one sample share their name up to the first dot.

    The person is the sample's `.person`, `.cls` or the key `person` of its `.json`; the caption
    its `.txt` or the key `caption`.
    """
    changed = path.stat().st_mtime_ns
    try:
        with tarfile.open(path) as tar:
            for key, parts in _samples(tar):
                photo = next((parts[e] for e in parts if f".{e}" in EXTENSIONS), None)
                if photo is None:
                    continue
                person, caption = _read_texts(tar, parts)
                if not person:
                    raise UserError(
                        f"{path}: sample '{key}' does not say whom it shows. Expected a member "
                        f'{key}.json with {{"person": "..."}}, or {key}.person.'
                    )
                name = f"{path.name}/{photo.name}"
                yield Source(person, name, path, photo.offset_data, photo.size, changed, caption)
    except tarfile.TarError as error:
        raise UserError(f"{path} is damaged or no tar file ({error}).") from error


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    key, parts = "", dict[str, tarfile.TarInfo]()
    for member in tar:
        if not member.isfile():
            continue
        folder, slash, file = member.name.rpartition("/")
        stem, _, extension = file.partition(".")
        if folder + slash + stem != key and parts:
            yield key, parts
            parts = {}
        key = folder + slash + stem
        parts[extension.lower()] = member
    if parts:
        yield key, parts


def _read_texts(tar: tarfile.TarFile, parts: dict[str, tarfile.TarInfo]) -> tuple[str, str]:
    texts = {}
    for extension in ("person", "cls", "txt", "json"):
        if extension in parts:
            file = tar.extractfile(parts[extension])
            texts[extension] = "" if file is None else file.read().decode(errors="replace").strip()
    try:
        more = json.loads(texts.get("json") or "{}")
    except ValueError:
        more = {}
    more = more if isinstance(more, dict) else {}
    person = texts.get("person") or texts.get("cls") or more.get("person") or ""
    return str(person), str(texts.get("txt") or more.get("caption") or "")
