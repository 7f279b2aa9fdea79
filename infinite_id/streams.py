"""The two streams: how identity and text rows share one batch.

Both streams start from the same noise, see `noise`, and advance together. Every cond chunk of a
forward holds the identity rows and, behind them, the text rows (Infinite-ID, figure 'decoupling',
inference).
A sweep draws every latent once for each of its identities, and all of them read one text stream.
If all chunks have the same text, its rows are in a forward once.
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from torch import Tensor


@dataclass(frozen=True)
class Streams:
    """Rows of the sampler's batch: all latents for the first person, for the second, ..., text.

    The host repeats a short batch over the rows, so each row gets its own latent's values.

    Attributes:
        latents: rows that the sampler was asked for.
        people: identities that each latent is drawn with; more than one in a sweep.
        has_text: whether there is a text stream.
    """

    latents: int
    people: int = 1
    has_text: bool = True

    @property
    def identity(self) -> int:
        return self.latents * self.people

    @property
    def rows(self) -> int:
        return self.latents * self.copies

    @property
    def copies(self) -> int:
        """How often each latent is in a chunk."""
        return self.people + self.has_text

    def without_text(self) -> "Streams":
        return replace(self, has_text=False)

    def spread(self, x: Tensor) -> Tensor:
        """`(latents, ...)` -> `(rows, ...)`: every copy of a latent gets the same values."""
        return repeat(x, "b ... -> (copies b) ...", copies=self.copies)

    def collect(self, x: Tensor) -> Tensor:
        """`(rows, ...)` -> `(identity, ...)`: the pictures; those of one latent lie together."""
        return rearrange(x[: self.identity], "(p b) ... -> (b p) ...", p=self.people)


@dataclass(frozen=True)
class Layout:
    """Rows of one forward, which has the sampler's batch once for each cond chunk.

    Attributes:
        has_one_text: whether all chunks share one set of text rows, behind all identity rows.
    """

    streams: Streams
    chunks: int
    has_one_text: bool = False

    def part(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Views of `(rows, ...)`: identity `(chunks, people, b, ...)`, text `(texts, 1, b, ...)`.

        A host patch may cut each row into tiles. Then b is the latents times the tiles of a row.
        """
        people = self.streams.people
        if self.has_one_text:
            b = len(x) // (self.chunks * people + 1)
            identity = rearrange(x[:-b], "(c p b) ... -> c p b ...", c=self.chunks, p=people)
            return identity, x[-b:][None, None]
        parts = rearrange(x, "(c s b) ... -> c s b ...", c=self.chunks, s=self.streams.copies)
        return parts[:, :people], parts[:, people:]

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `part` as flat rows, for attention. A copy if chunks are not adjacent."""
        identity, text = self.part(x)
        return identity.flatten(0, 2), text.flatten(0, 2)

    def join(self, identity: Tensor, text: Tensor) -> Tensor:
        """Invert `split`."""
        if not self.streams.has_text:
            return identity
        if self.has_one_text:
            return torch.cat([identity, text])
        parts = [rearrange(x, "(c r) ... -> c r ...", c=self.chunks) for x in (identity, text)]
        return torch.cat(parts, dim=1).flatten(0, 1)

    def arrange(self, x: Tensor, given: "Layout") -> Tensor:
        """Bring rows from the layout `given`, which has the same chunks, into this one.

        If `given` has no text rows, they are copied from the identity rows. It then has one person.
        """
        identity, text = given.part(x)
        if not given.streams.has_text:
            text = identity
        texts = 1 if self.has_one_text else self.chunks
        text = text[:texts].expand(texts, *text.shape[1:])
        return self.join(identity.flatten(0, 2), text.flatten(0, 2))
