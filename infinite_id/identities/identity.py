"""An identity: the tokens that stand for a person, and where they came from."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..adapters.adapter import Adapter
from .projections import Projections


@dataclass(frozen=True, eq=False)
class Features:
    """The nets' features of photos: all that a mapper reads; float32 on the CPU.

    Attributes:
        face: `(n, face_width)`, as the adapter's recipe wants it.
        clip: `(n, l, clip_width)`; `(n, 0, 0)` for adapters without CLIP.
    """

    face: Tensor
    clip: Tensor


@dataclass(frozen=True, eq=False)
class Source:
    """A photo that an identity was made of.

    Attributes:
        label: for the user to read, such as 'photo 1 of 2 (512x512), face of score 0.93'.
        digest: SHA-256 of the photo's pixels, hexadecimal; tells photos apart without keeping them.
        thumbnail: `(h, w, 3)` uint8 RGB, the aligned face; None if it was left out.
    """

    label: str
    digest: str
    thumbnail: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Identity:
    """A person, ready to be applied to a model that fits `adapter`; or a sweep of n in-betweens.

    Attributes:
        tokens: `(n, l, token_width)` float32 on the CPU; n is 1 for a single identity.
        unconditional: `(1, l0, token_width)`, the tokens of no identity, for rows that are not
            positive; l is a multiple of l0. Identities may share it, see `Adapter.share`.
        adapter: the adapter that made the tokens and will project them.
        sources: the photos.
        shares: `(n, l)`, not negative: how much each token counts in the attention, relative to
            the others; None if all count alike.
        features: what the tokens were mapped from; None if they were not, as in a stack.
    """

    tokens: Tensor
    unconditional: Tensor
    adapter: Adapter
    sources: tuple[Source, ...] = ()
    shares: Tensor | None = None
    features: Features | None = None

    @property
    def count(self) -> int:
        """How many identities this is: more than one for a sweep."""
        return self.tokens.shape[0]

    @cached_property
    def projections(self) -> Projections:
        """K', V' of the tokens."""
        return Projections(self.adapter.project, self.tokens)

    @cached_property
    def unconditional_projections(self) -> Projections:
        """K', V' of the unconditional tokens. Identities with the same tokens share them."""
        return self.adapter.share_projections(self.unconditional)
