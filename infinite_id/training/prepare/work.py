"""The nets' work on photos: each job writes one file, which depends on nothing but the photos.

So jobs may run in any order, in any process, and anew; their files are the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ...errors import UserError
from ...files import digest_of, read_metadata, write_tensors
from ...photos.look import Limits, Rejected, decode, look, read
from ...photos.sources import Source
from ..data import NOTHING
from .encode import Encoders, Photos, Sizes, encode_shard

BLOCK = 32
"""Photos that are looked at before the result is stored. A kill loses no more than these."""
Record = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """A photo that is kept, and where what was seen in it is stored."""

    number: int
    record: Record
    source: Source


@dataclass(frozen=True)
class Block:
    """Photos to look at; the block's number says where the result is stored."""

    number: int
    sources: Sequence[Source]

    @property
    def mark(self) -> str:
        """What the result depends on."""
        return digest_of([[s.person, s.name, s.offset, s.size, s.changed] for s in self.sources])

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class Shard:
    """Kept photos to encode; the shard's number says where the result is stored."""

    number: int
    photos: Sequence[Kept]

    @property
    def mark(self) -> str:
        """What the result depends on."""
        return digest_of([one.record for one in self.photos])

    def __len__(self) -> int:
        return len(self.photos)


JobT = TypeVar("JobT", Block, Shard)
JobT_contra = TypeVar("JobT_contra", Block, Shard, contravariant=True)


class Worker(Protocol[JobT_contra]):
    """Does jobs; loads the nets at the first one, and keeps them."""

    def __call__(self, job: JobT_contra, tell: Callable[[], None]) -> None:
        """Write the job's file. `tell` is called after each photo."""
        ...


class Spread(Protocol):
    """Where jobs are done."""

    def __call__(
        self,
        jobs: Sequence[JobT],
        make_worker: Callable[[], Worker[JobT]],
        tell: Callable[[int], None],
    ) -> None:
        """Do all jobs.

        Args:
            make_worker: makes a worker; may be called several times, in other processes.
            tell: is called with how many photos were done since the last call.
        """
        ...


def in_this_process(
    jobs: Sequence[JobT], make_worker: Callable[[], Worker[JobT]], tell: Callable[[int], None]
) -> None:
    """Do one job after the other."""
    worker = make_worker()
    for job in jobs:
        worker(job, lambda: tell(1))


@dataclass(frozen=True)
class LookWorker:
    """Finds and judges the face of each photo of a block."""

    out: Path
    limits: Limits
    load_analysis: Callable[[], Any]

    @cached_property
    def _analysis(self) -> Any:
        return self.load_analysis()

    def __call__(self, job: Block, tell: Callable[[], None]) -> None:
        looks = []
        for source in job.sources:
            looks.append(look(source, self._analysis, self.limits))
            tell()
        tensors = {
            name: torch.from_numpy(np.stack([getattr(x, name) for x in looks]))
            for name in ("vector", "landmarks", "box", "thumbnail")
        }
        metadata = {"mark": job.mark, "records": [x.record for x in looks]}
        write_tensors(block_path(self.out, job.number), tensors, metadata)


@dataclass(frozen=True)
class EncodeWorker:
    """Stores what the frozen nets make of the photos of a shard."""

    out: Path
    limits: Limits
    sizes: Sizes
    load_encoders: Callable[[], Encoders]

    @cached_property
    def _encoders(self) -> Encoders:
        encoders = self.load_encoders()
        if not (self.out / NOTHING).exists():
            write_tensors(self.out / NOTHING, {"clip": encoders.nothing().half()}, {})
        return encoders

    def __call__(self, job: Shard, tell: Callable[[], None]) -> None:
        photos = self._open(job.photos, tell)
        tensors, entries = encode_shard(photos, self._encoders, self.sizes)
        tensors["face"] = torch.stack(list(_read_rows(self.out, job.photos, "vector")))
        metadata = {"mark": job.mark, "entries": entries}
        write_tensors(shard_path(self.out, job.number), tensors, metadata)

    def _open(self, part: Sequence[Kept], tell: Callable[[], None]) -> Photos:
        landmarks, boxes = (_read_rows(self.out, part, name) for name in ("landmarks", "box"))
        for one, points, box in zip(part, landmarks, boxes, strict=True):
            try:
                photo = decode(read(one.source, self.limits), self.limits)
            except Rejected as rejected:
                raise UserError(
                    f"{one.source.name} has changed since it was looked at: {rejected}. Give the "
                    "same command again."
                ) from rejected
            yield one.record, photo, points, box
            tell()


def block_path(out: Path, number: int) -> Path:
    return out / "looked" / f"{number:06d}.safetensors"


def shard_path(out: Path, number: int) -> Path:
    return out / "shards" / f"{number:06d}.safetensors"


def read_mark(path: Path) -> str:
    """What a stored block or shard was made of; empty if there is none."""
    return str(read_metadata(path)["mark"]) if path.exists() else ""


def _read_rows(out: Path, part: Sequence[Kept], name: str) -> Iterator[Tensor]:
    """What was stored of each photo under a name."""
    for number, own in groupby(part, key=lambda one: one.number // BLOCK):
        with safe_open(block_path(out, number), framework="pt") as file:
            rows = file.get_tensor(name)
        yield from (rows[one.number % BLOCK] for one in own)
