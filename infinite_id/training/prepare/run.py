"""The pipeline: look at photos, choose, encode, list; each step is stored as it is done.

    looked/<number>.safetensors   what was seen in a block of photos, in the order of the sources
    shards/<number>.safetensors   what the nets make of the photos that are kept
    index.jsonl                   a line for each photo that is kept, written last
    rejected.jsonl, report.html   the other photos, and a report for the user

Each file appears when it is whole, and depends only on the photos and the settings. So a run that
was killed goes on where it was, and ends with the same bytes as one that was not.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ...errors import UserError
from ...files import read_metadata, to_json, to_json_lines, write_text
from ...photos.look import Limits
from ...photos.sources import Source
from ...progress import make_bar
from ..data import INDEX, NOTHING, SETTINGS, VERSION
from . import work
from .encode import Encoders, Sizes
from .people import Choice, choose
from .report import describe_counts, write_report
from .work import Block, EncodeWorker, Kept, LookWorker, Shard, Spread, in_this_process

REJECTED, REPORT = "rejected.jsonl", "report.html"
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


def prepare(
    sources: Sequence[Source],
    out: Path,
    settings: Settings,
    load_analysis: Callable[[], Any],
    load_encoders: Callable[[], Encoders],
    spread: Spread = in_this_process,
) -> tuple[int, int]:
    """Prepare photos for training.

    Args:
        out: a new folder, or one in which the same settings were used before.
        load_analysis, load_encoders: called if they are needed, in each process that `spread`
            gives work to.
        spread: where photos are looked at and encoded.

    Returns:
        The number of photos that are kept, and of those that are not.

    Raises:
        UserError: if `out` holds data that were prepared otherwise, if the disk is full, or no
            pair is left.
    """
    _begin(out, settings)
    _look(sources, out, LookWorker(out, settings.limits, load_analysis), spread)
    kept, rejected = _choose(out, sources, settings)
    write_text(out / REJECTED, to_json_lines(rejected))
    write_report(out / REPORT, [one.record for one in kept], rejected, thumbnails(out))
    if not kept:
        raise UserError(
            f"None of the {len(sources)} photos is left. {describe_counts(rejected)}. See "
            f"{out / REPORT}; the thresholds are options, see `prepare --help`."
        )
    worker = EncodeWorker(out, settings.limits, settings.sizes, load_encoders)
    _encode(kept, out, settings.shard, worker, spread)
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


def _look(sources: Sequence[Source], out: Path, worker: LookWorker, spread: Spread) -> None:
    """Look at every block of photos that has no file yet, or one of other photos."""
    blocks = [Block(n, own) for n, own in enumerate(_parts(sources, work.BLOCK))]
    to_do = [b for b in blocks if work.read_mark(work.block_path(out, b.number)) != b.mark]
    with _bar(len(sources), to_do, "looking at photos") as bar:
        spread(to_do, lambda: worker, bar.update)
    _drop_others(out / "looked", len(blocks))


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _bar(total: int, to_do: Sequence[Block] | Sequence[Shard], what: str) -> Any:
    return make_bar(total, what, "photo", initial=total - sum(map(len, to_do)))


def _blocks(out: Path, count: int) -> Iterator[tuple[list[Record], Tensor]]:
    """Records and face vectors of each block, in order."""
    for number in range(-(-count // work.BLOCK)):
        path = work.block_path(out, number)
        with safe_open(path, framework="pt") as file:
            vectors = file.get_tensor("vector")
        yield read_metadata(path)["records"], vectors


def _choose(
    out: Path, sources: Sequence[Source], settings: Settings
) -> tuple[list[Kept], list[Record]]:
    """Judge the photos of each person together; one person's vectors are in memory at a time."""
    photos = (
        (number * work.BLOCK + i, record, vectors[i])
        for number, (records, vectors) in enumerate(_blocks(out, len(sources)))
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
                kept.append(Kept(number, record, sources[number]))
    return kept, sorted(rejected, key=lambda record: (record["person"], record["name"]))


def _encode(
    kept: Sequence[Kept], out: Path, size: int, worker: EncodeWorker, spread: Spread
) -> None:
    """Write the shards that are not there yet, and then the index."""
    shards = [Shard(n, own) for n, own in enumerate(_parts(kept, size))]
    paths = [work.shard_path(out, shard.number) for shard in shards]
    to_do = [s for s, path in zip(shards, paths, strict=True) if work.read_mark(path) != s.mark]
    if not (out / NOTHING).exists():  # it comes with any shard
        to_do = to_do or shards[:1]
    with _bar(len(kept), to_do, "encoding photos") as bar:
        spread(to_do, lambda: worker, bar.update)
    _drop_others(out / "shards", len(shards))
    index = [
        entry | {"shard": path.name, "row": row}
        for path in paths
        for row, entry in enumerate(read_metadata(path)["entries"])
    ]
    write_text(out / INDEX, to_json_lines(index))


def _drop_others(folder: Path, count: int) -> None:
    """Remove what an earlier run over more photos has left: files from number `count` on."""
    for path in sorted(folder.glob("*.safetensors"))[count:]:
        path.unlink()


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
