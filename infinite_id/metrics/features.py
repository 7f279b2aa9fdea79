"""What the nets see in files: computed once for each content, stored, and found again.

Features lie in one SQLite file, by net and by the file's SHA-256. A run that is killed keeps what
it has committed, and the same command goes on from there.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import UserError
from ..faces.face import Photo
from ..photos.look import Limits, Rejected, decode
from ..progress import make_bar
from .clips import Clip
from .faces import FaceNet
from .scores import Vector

BATCH = 16
"""Files that are decoded at a time, and seen by CLIP at once."""
_LIMITS = Limits()
_PATIENCE = 60.0
"""Seconds that a command waits for another that writes to the same file."""
_TABLE = """CREATE TABLE IF NOT EXISTS features
(net TEXT, content TEXT, vector BLOB, PRIMARY KEY (net, content)) WITHOUT ROWID"""

T = TypeVar("T")


class Store:
    """Feature vectors by net and content; None says that there is no face."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Every method raises UserError if the file cannot be used."""
        self._path = path
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, timeout=_PATIENCE)
            # Safe from a kill; what a power cut loses is computed anew.
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = NORMAL")
            self._base.execute(_TABLE)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"{self._path} cannot be used ({error}). See to it that its folder can be written "
                "to, has room, and no other command is using the file. If all that is so, remove "
                "the file: its features are computed anew."
            ) from error

    def has(self, net: str, content: str) -> bool:
        return self._find(net, content) is not None

    def get(self, net: str, content: str) -> Vector | None:
        """A vector `(d,)` float32; None if the picture has no face. Raises KeyError if unseen."""
        row = self._find(net, content)
        if row is None:
            raise KeyError(content)
        return None if row[0] is None else np.frombuffer(row[0], np.float32)

    def _find(self, net: str, content: str) -> tuple[bytes | None] | None:
        query = "SELECT vector FROM features WHERE net = ? AND content = ?"
        found: tuple[bytes | None] | None
        with self._explained():
            found = self._base.execute(query, (net, content)).fetchone()
        return found

    def put(self, rows: Iterable[tuple[str, str, Vector | None]]) -> None:
        """Store `(net, content, vector)`, all of them or none."""
        values = [
            (net, content, None if vector is None else np.asarray(vector, np.float32).tobytes())
            for net, content, vector in rows
        ]
        with self._explained(), self._base:
            self._base.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", values)

    def close(self) -> None:
        self._base.close()


@dataclass(frozen=True)
class Nets:
    """The nets that look at pictures; names are unique."""

    faces: Sequence[FaceNet]
    clip: Clip | None = None

    @property
    def digests(self) -> list[str]:
        return [*(net.digest for net in self.faces), *([self.clip.digest] if self.clip else [])]


@dataclass(frozen=True)
class Seen:
    """Files that were looked at.

    Attributes:
        contents: the SHA-256 of each usable file; `Store` knows its features by it.
        problems: what is wrong with each of the others.
    """

    contents: Mapping[Path, str]
    problems: Mapping[Path, str]


def look(paths: Sequence[Path], nets: Nets, store: Store) -> Seen:
    """Compute the features that the store lacks, for all files that can be read."""
    contents: dict[Path, str] = {}
    problems: dict[Path, str] = {}
    unique = list(dict.fromkeys(paths))
    with make_bar(len(unique), "looking at pictures", "picture") as bar:
        for batch in _batches(unique, BATCH):
            waiting: dict[str, Photo] = {}
            for path in batch:
                try:
                    data = _read(path)
                    content = hashlib.sha256(data).hexdigest()
                    if not all(store.has(net, content) for net in nets.digests):
                        waiting[content] = decode(data, _LIMITS)
                    contents[path] = content
                except Rejected as rejected:
                    problems[path] = str(rejected)
            store.put(_see(waiting, nets, store))
            bar.update(len(batch))
    return Seen(contents, problems)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _read(path: Path) -> bytes:
    try:
        if not path.exists():
            raise Rejected("missing", "the file is missing")
        if not path.is_file():  # such as a pipe, whose end would never come
            raise Rejected("unreadable", "it is no file")
        if path.stat().st_size > _LIMITS.megabytes * 1e6:
            raise Rejected("too large", f"the file is larger than {_LIMITS.megabytes:.0f} MB")
        return path.read_bytes()
    except OSError as error:
        raise Rejected("unreadable", f"the file cannot be read: {error.strerror}") from error


def _see(
    photos: Mapping[str, Photo], nets: Nets, store: Store
) -> Iterator[tuple[str, str, Vector | None]]:
    """The features that the store lacks."""
    for content, photo in photos.items():
        for net in nets.faces:
            if not store.has(net.digest, content):
                yield net.digest, content, net.look(photo)
    clip = nets.clip
    if clip is None:
        return
    unseen = {c: photo for c, photo in photos.items() if not store.has(clip.digest, c)}
    if unseen:
        for content, vector in zip(unseen, clip.see(list(unseen.values())), strict=True):
            yield clip.digest, content, vector


def read_texts(texts: Iterable[str], clip: Clip, store: Store) -> dict[str, str]:
    """Do for prompts what `look` does for files. Return each text's name in the store."""
    names = {text: "text " + hashlib.sha256(text.encode()).hexdigest() for text in texts}
    unseen = {text: name for text, name in names.items() if not store.has(clip.digest, name)}
    for batch in _batches(unseen.items(), BATCH):
        vectors = clip.read([text for text, _ in batch])
        rows = ((clip.digest, name, v) for (_, name), v in zip(batch, vectors, strict=True))
        store.put(rows)
    return names
