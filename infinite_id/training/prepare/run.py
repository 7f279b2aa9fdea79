"""The pipeline: look at photos, choose, encode, list; each step is stored as it is done.

    looked/<number>.safetensors   what was seen in so many photos, in the order of the sources
    shards/<number>.safetensors   what the nets make of the photos that are kept
    index.jsonl                   a line for each of them, written last
    rejected.jsonl, report.html   the others, and all of it for the user's eyes

Each file appears when it is whole, and depends only on the photos and the settings. So a run that
was killed goes on where it was, and ends with the same bytes as one that was not.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ...errors import UserError
from ...files import digest_of, read_metadata, to_json, to_json_lines, write_tensors, write_text
from ...photos.look import Limits, Rejected, decode, look, read
from ...photos.sources import Source
from ...progress import make_bar
from ..data import INDEX, NOTHING, SETTINGS, VERSION
from .encode import Encoders, Photos, Sizes, encode_shard
from .people import Choice, choose
from .report import describe_counts, write_report

REJECTED, REPORT = "rejected.jsonl", "report.html"
BLOCK = 32
"""Photos that are looked at before the result is stored: what a kill may cost."""
Record = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Everything that decides what the prepared data hold.

    Attributes:
        models: names and hashes of the nets, for later runs and for the trained file.
        shard: photos in a shard.
    """

    limits: Limits
    choice: Choice
    sizes: Sizes
    models: dict[str, dict[str, str]]
    shard: int = 128

    def to_json(self) -> Record:
        """Plain JSON values."""
        return json.loads(to_json(asdict(self) | {"version": VERSION}))


@dataclass(frozen=True)
class Kept:
    """A photo that is kept, and where what was seen in it is stored."""

    number: int
    record: Record


def prepare(
    sources: Sequence[Source],
    out: Path,
    settings: Settings,
    load_analysis: Callable[[], Any],
    load_encoders: Callable[[], Encoders],
) -> tuple[int, int]:
    """Prepare photos for training.

    Args:
        out: a new folder, or one in which the same settings were used before.
        load_analysis, load_encoders: called if there is something to do for them.

    Returns:
        The number of photos that are kept, and of those that are not.

    Raises:
        UserError: if `out` holds data that were prepared otherwise, if the disk is full, or no
            pair is left.
    """
    _begin(out, settings)
    _look(sources, out, settings, load_analysis)
    _drop_others(out / "looked", -(-len(sources) // BLOCK))
    kept, rejected = _choose(out, len(sources), settings)
    write_text(out / REJECTED, to_json_lines(rejected))
    write_report(out / REPORT, [one.record for one in kept], rejected, thumbnails(out))
    if not kept:
        raise UserError(
            f"None of the {len(sources)} photos is left. {describe_counts(rejected)}. See "
            f"{out / REPORT}; the thresholds are options, see `prepare --help`."
        )
    _encode(sources, out, kept, settings, load_encoders)
    return len(kept), len(rejected)


def _begin(out: Path, settings: Settings) -> None:
    path, own = out / SETTINGS, settings.to_json()
    if not path.exists():
        write_text(path, json.dumps(own, indent=2, sort_keys=True) + "\n")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    wrong = sorted(name for name in own.keys() | before.keys() if own.get(name) != before.get(name))
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{out} was prepared with other settings: {name} was {to_json(before.get(name))}, and "
            f"is {to_json(own.get(name))} now. Give the same options as then, or another --out."
        )


def _block_path(out: Path, number: int) -> Path:
    return out / "looked" / f"{number:06d}.safetensors"


def _look(
    sources: Sequence[Source], out: Path, settings: Settings, load_analysis: Callable[[], Any]
) -> None:
    """Look at every block of photos that has no file yet, or one of other photos."""
    analysis = None
    with make_bar(len(sources), "looking at photos", "photo") as bar:
        for number, start in enumerate(range(0, len(sources), BLOCK)):
            block = sources[start : start + BLOCK]
            path = _block_path(out, number)
            mark = digest_of([[s.person, s.name, s.offset, s.size, s.changed] for s in block])
            if _read_mark(path) != mark:
                analysis = load_analysis() if analysis is None else analysis
                looks = []
                for source in block:
                    looks.append(look(source, analysis, settings.limits))
                    bar.update()
                tensors = {
                    name: torch.from_numpy(np.stack([getattr(x, name) for x in looks]))
                    for name in ("vector", "landmarks", "box", "thumbnail")
                }
                metadata = {"mark": mark, "records": [x.record for x in looks]}
                write_tensors(path, tensors, metadata)
            else:
                bar.update(len(block))
                bar.initial += len(block)  # what was there counts for neither rate nor time left


def _read_mark(path: Path) -> str:
    """What a stored block or shard was made of; empty if there is none."""
    return str(read_metadata(path)["mark"]) if path.exists() else ""


def _blocks(out: Path, count: int) -> Iterator[tuple[list[Record], Tensor]]:
    """Records and face vectors of each block, in order."""
    for number in range(-(-count // BLOCK)):
        with safe_open(_block_path(out, number), framework="pt") as file:
            vectors = file.get_tensor("vector")
        yield read_metadata(_block_path(out, number))["records"], vectors


def _choose(out: Path, count: int, settings: Settings) -> tuple[list[Kept], list[Record]]:
    """Judge the photos of each person together; one person's vectors are in memory at a time."""
    photos = (
        (number * BLOCK + i, record, vectors[i])
        for number, (records, vectors) in enumerate(_blocks(out, count))
        for i, record in enumerate(records)
    )
    kept: list[Kept] = []
    rejected: list[Record] = []
    seen: dict[str, str] = {}
    for _, own in groupby(photos, key=lambda photo: photo[1]["person"]):
        listed = list(own)
        usable = [photo for photo in listed if not photo[1]["kind"]]
        rejected += [record for _, record, _ in listed if record["kind"]]
        if not usable:
            continue
        vectors = torch.stack([vector for _, _, vector in usable]).numpy()
        chosen = choose([record for _, record, _ in usable], vectors, settings.choice, seen)
        for (number, _, _), record in zip(usable, chosen, strict=True):
            if record["kind"]:
                rejected.append(record)
            else:
                kept.append(Kept(number, record))
    return kept, sorted(rejected, key=lambda record: (record["person"], record["name"]))


def _encode(
    sources: Sequence[Source],
    out: Path,
    kept: Sequence[Kept],
    settings: Settings,
    load_encoders: Callable[[], Encoders],
) -> None:
    """Write the shards that are not there yet, and then the index."""
    encoders: Encoders | None = None
    index: list[Record] = []
    with make_bar(len(kept), "encoding photos", "photo") as bar:
        for number, start in enumerate(range(0, len(kept), settings.shard)):
            part = kept[start : start + settings.shard]
            path = out / "shards" / f"{number:06d}.safetensors"
            mark = digest_of([one.record for one in part])
            if _read_mark(path) != mark:
                encoders = load_encoders() if encoders is None else encoders
                photos = _open_photos(sources, out, part, settings.limits, bar)
                tensors, entries = encode_shard(photos, encoders, settings.sizes)
                tensors["face"] = torch.stack(list(_read_rows(out, part, "vector")))
                write_tensors(path, tensors, {"mark": mark, "entries": entries})
            else:
                bar.update(len(part))
                bar.initial += len(part)
            entries = read_metadata(path)["entries"]
            index += [e | {"shard": path.name, "row": row} for row, e in enumerate(entries)]
    _drop_others(out / "shards", -(-len(kept) // settings.shard))
    if not (out / NOTHING).exists():
        encoders = load_encoders() if encoders is None else encoders
        write_tensors(out / NOTHING, {"clip": encoders.nothing().half()}, {})
    write_text(out / INDEX, to_json_lines(index))


def _open_photos(
    sources: Sequence[Source], out: Path, part: Sequence[Kept], limits: Limits, bar: Any
) -> Photos:
    landmarks, boxes = (_read_rows(out, part, name) for name in ("landmarks", "box"))
    for one, points, box in zip(part, landmarks, boxes, strict=True):
        source = sources[one.number]
        try:
            photo = decode(read(source, limits), limits)
        except Rejected as rejected:
            raise UserError(
                f"{source.name} has changed since it was looked at: {rejected}. Give the same "
                "command again."
            ) from rejected
        yield one.record, photo, points, box
        bar.update()


def _drop_others(folder: Path, count: int) -> None:
    """Remove what an earlier run over more photos has left: files from number `count` on."""
    for path in sorted(folder.glob("*.safetensors"))[count:]:
        path.unlink()


def _read_rows(out: Path, part: Sequence[Kept], name: str) -> Iterator[Tensor]:
    """What was stored of each photo under a name."""
    for number, own in groupby(part, key=lambda one: one.number // BLOCK):
        with safe_open(_block_path(out, number), framework="pt") as file:
            rows = file.get_tensor(name)
        yield from (rows[one.number % BLOCK] for one in own)


def thumbnails(out: Path) -> Callable[[Sequence[str]], dict[str, Tensor]]:
    """A function that finds photos' thumbnails `(64, 64, 3)` uint8 by the photos' names."""

    def get(names: Sequence[str]) -> dict[str, Tensor]:
        wanted, found = set(names), dict[str, Tensor]()
        for path in sorted((out / "looked").glob("*.safetensors")):
            records = read_metadata(path)["records"]
            rows = [n for n, record in enumerate(records) if record["name"] in wanted]
            if rows:
                with safe_open(path, framework="pt") as file:
                    pictures = file.get_tensor("thumbnail")
                found |= {records[n]["name"]: pictures[n] for n in rows}
        return found

    return get
