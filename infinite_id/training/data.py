"""Prepared data: who is trained on, who is held out, and the batches of a step."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import UserError
from ..files import file_digest
from .draws import Draw, draw_chance, draw_index, generator
from .settings import Settings

VERSION = 1
SETTINGS, INDEX, NOTHING = "settings.json", "index.jsonl", "nothing.safetensors"
_LEAST_PEOPLE = 4
"""With fewer people nobody is held out."""
_OPEN = 64
"""Shards that are open at a time."""

Bucket = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Photo:
    """A line of the index.

    Attributes:
        row: the photo's row in the shard's face vectors and CLIP states.
        bucket: height and width of the cut photo, in pixels.
        latents_row: the photo's row in the bucket's latents of the shard.
        sizes: SDXL's size conditioning: original height and width, top and left of the cut, height
            and width of the cut.
        caption: may be empty.
    """

    person: str
    name: str
    shard: str
    row: int
    bucket: Bucket
    latents_row: int
    sizes: tuple[int, int, int, int, int, int]
    caption: str = ""


@dataclass(frozen=True)
class Batch:
    """Pairs of photos of the same people, with what was drawn at random for them; on one device.

    Attributes:
        latents: `(b, c, h, w)` of the targets, as the autoencoder gives them, float32.
        noise: likewise, normal.
        times: `(b,)` long.
        face: `(b, face_width)` of the sources, as the recogniser gives them; zeros if dropped.
        clip: `(b, l, clip_width)` of the sources; of the zero picture if dropped.
        sizes: `(b, 6)`, see `Photo`.
        names: for messages: target and source of each sample.
        captions: of the targets; empty ones where there is none.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    face: Tensor
    clip: Tensor
    sizes: Tensor
    names: tuple[str, ...]
    captions: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        tensors = ("latents", "noise", "times", "face", "clip", "sizes")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in tensors}
        return replace(self, **moved)


class Prepared:
    """A folder that `prepare` has written, at one size."""

    def __init__(self, folder: Path, size: int = 0) -> None:
        """Raises UserError if the folder is not prepared, or not to the end, or not at `size`.

        Args:
            size: pixels; 0 for the largest.
        """
        self.folder = folder
        for name in (SETTINGS, INDEX, NOTHING):
            if not (folder / name).exists():
                raise UserError(
                    f"{folder} has no {name}: it was not prepared, or not to the end. Run "
                    "`python -m infinite_id.training prepare PHOTOS --out DATA ...` first."
                )
        self.settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text("utf-8"))
        sizes = self.settings["sizes"]["sizes"]
        self.size = size or max(sizes)
        if self.size not in sizes:
            raise UserError(
                f"data.size is {size}, and {folder} was prepared at "
                f"{', '.join(str(s) for s in sizes)} pixels."
            )
        with (folder / INDEX).open(encoding="utf-8") as lines:
            self.photos = [_read_photo(json.loads(line), self.size) for line in lines]
        self.digest = file_digest(folder / INDEX)
        with safe_open(folder / NOTHING, framework="pt") as file:
            self.nothing: Tensor = file.get_tensor("clip").float()
        self._open = lru_cache(_OPEN)(self._open_shard)

    @property
    def face_width(self) -> int:
        return int(self._open(self.photos[0].shard).get_slice("face").get_shape()[-1])

    def split(self, share: float) -> tuple[list[int], list[int]]:
        """Return the numbers of the photos to train on, and of the photos of held-out people.

        The hash of a name decides whether a person is held out, whoever else is there.
        """
        people = sorted({photo.person for photo in self.photos}, key=_hash)
        count = 0 if share == 0 or len(people) < _LEAST_PEOPLE else max(1, int(share * len(people)))
        held_out = set(people[:count])
        numbers = range(len(self.photos))
        return (
            [n for n in numbers if self.photos[n].person not in held_out],
            [n for n in numbers if self.photos[n].person in held_out],
        )

    def load(self, draws: Sequence[Draw]) -> Batch:
        """Read the samples, whose targets share a bucket."""
        parts = [self._load(draw) for draw in draws]
        latents, noise, times, face, clip, sizes = (
            torch.stack(column) for column in zip(*parts, strict=True)
        )
        names = tuple(
            f"{self.photos[draw.target].name} (identity: {self.photos[draw.source].name})"
            for draw in draws
        )
        captions = tuple("" if d.untold else self.photos[d.target].caption for d in draws)
        return Batch(latents, noise, times, face, clip, sizes, names, captions)

    def _load(self, draw: Draw) -> tuple[Tensor, ...]:
        target, source = self.photos[draw.target], self.photos[draw.source]
        kind = "mirrored" if draw.mirrored else "latents"
        name = f"{kind}.{self.size}.{target.bucket[0]}x{target.bucket[1]}"
        latents = self._read(target.shard, name, target.latents_row).float()
        random = torch.Generator().manual_seed(draw.noise)
        face, clip = (self._read(source.shard, name, source.row) for name in ("face", "clip"))
        return (
            latents,
            torch.randn(latents.shape, generator=random),
            torch.tensor(draw.time),
            torch.zeros_like(face) if draw.dropped else face,
            self.nothing[0] if draw.dropped else clip.float(),
            torch.tensor(target.sizes),
        )

    def _read(self, shard: str, name: str, row: int) -> Tensor:
        rows: Tensor = self._open(shard).get_slice(name)[row : row + 1]
        return rows[0]

    def _open_shard(self, shard: str) -> Any:
        return safe_open(self.folder / "shards" / shard, framework="pt")


def _hash(person: str) -> str:
    return sha256(person.encode()).hexdigest()


def _read_photo(line: dict[str, Any], size: int) -> Photo:
    own = line["latents"][str(size)]
    bucket = (own["bucket"][0], own["bucket"][1])
    sizes = (line["height"], line["width"], *own["crop"], *bucket)
    return Photo(
        line["person"],
        line["name"],
        line["shard"],
        line["row"],
        bucket,
        own["row"],
        sizes,
        line.get("caption", ""),
    )


class Pairs:
    """Draws pairs from some of the prepared photos. Both photos of a pair show one person."""

    def __init__(self, data: Prepared, numbers: Sequence[int]) -> None:
        self.data = data
        self._people: dict[str, list[int]] = {}
        self._buckets: dict[Bucket, list[int]] = {}
        self._targets = list(numbers)
        for n in numbers:
            self._people.setdefault(data.photos[n].person, []).append(n)
            self._buckets.setdefault(data.photos[n].bucket, []).append(n)

    def __len__(self) -> int:
        """How many photos there are."""
        return len(self._targets)

    def read(self, step: int, samples: Sequence[int], settings: Settings, times: int) -> Batch:
        """Draw some of a step's samples and read them; see `draw`."""
        own = settings.data
        draws = self.draw(settings.run.seed, step, samples, own.mirrored, own.dropped, times)
        seeds = [generator(settings.run.seed, "caption", step, n) for n in samples]
        untold = [draw_chance(own.untold, random) for random in seeds]
        return self.data.load([replace(d, untold=x) for d, x in zip(draws, untold, strict=True)])

    def draw(
        self,
        seed: int,
        step: int,
        samples: Sequence[int],
        mirrored: float,
        dropped: float,
        times: int,
    ) -> list[Draw]:
        """Draw some of a step's samples. All targets of a step are of one bucket.

        Args:
            samples: their numbers in the step.
            mirrored, dropped: probabilities.
            times: how many timesteps there are.
        """
        first = self._targets[draw_index(len(self._targets), generator(seed, "bucket", step))]
        bucket = self._buckets[self.data.photos[first].bucket]
        return [
            self._draw(generator(seed, "sample", step, n), bucket, mirrored, dropped, times)
            for n in samples
        ]

    def _draw(
        self,
        random: torch.Generator,
        bucket: Sequence[int],
        mirrored: float,
        dropped: float,
        times: int,
    ) -> Draw:
        target = bucket[draw_index(len(bucket), random)]
        others = [n for n in self._people[self.data.photos[target].person] if n != target]
        source = others[draw_index(len(others), random)] if others else target
        return Draw(
            target=target,
            source=source,
            mirrored=draw_chance(mirrored, random) or not others,
            dropped=draw_chance(dropped, random),
            time=draw_index(times, random),
            noise=draw_index(2**62, random),
        )

    def fixed(self, count: int, times: int) -> list[Draw]:
        """Samples for validation: the same ones always, timesteps spread evenly, none dropped."""
        draws = []
        for n in range(count):
            random = generator(0, "validation", n)
            drawn = self._draw(random, self._targets, 0.0, 0.0, times)
            draws.append(replace(drawn, time=int((n + 0.5) * times / count)))
        return draws

    def bucket_of(self, draw: Draw) -> Bucket:
        return self.data.photos[draw.target].bucket
