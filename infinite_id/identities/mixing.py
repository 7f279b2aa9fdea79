"""Identity mixing: several photos or people as one identity, or a row of their in-betweens."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from einops import repeat
from torch import Tensor

from ..adapters.adapter import Adapter, encode
from .identity import Features, Identity

_LEAST_REST = 1e-3
"""If less of a photo's features is left, as a share of their length, it is rounding."""


def stack(identities: Sequence[Identity], weights: Sequence[float] | None = None) -> Identity:
    """Stack identities along the token axis (project page, 'identity mixing').

    A weight multiplies an identity's attention before the softmax is normalised. If an identity is
    stacked on itself with weights w and 1 - w, the result is that identity. Identities of weight 0
    are left out. Single identities and sweeps of one length can be stacked.

    Args:
        weights: not negative, one per identity; None for equal weights, as in the paper.

    Raises:
        ValueError: if the identities' adapters differ, their counts do not go together, or no
            weight is positive.
    """
    given = [1.0] * len(identities) if weights is None else list(weights)
    if min(given) < 0 or max(given) <= 0:
        raise ValueError(f"Weights must not be negative, and one must be above 0: {given}.")
    kept = [(i, w) for i, w in zip(identities, given, strict=True) if w > 0]
    adapter = _common_adapter([identity for identity, _ in kept])
    if len(kept) == 1:
        return kept[0][0]
    n = _common_count([identity for identity, _ in kept])
    shares = torch.cat([weight * _spread(_shares(i), n) for i, weight in kept], dim=1)
    return Identity(
        tokens=torch.cat([_spread(i.tokens, n) for i, _ in kept], dim=1),
        unconditional=kept[0][0].unconditional,
        adapter=adapter,
        sources=tuple(source for i, _ in kept for source in i.sources),
        shares=None if (shares == shares[0, 0]).all() else shares,
    )


def average(identities: Sequence[Identity], weights: Sequence[float]) -> Identity:
    """Map the weighted mean of several photos' features, instead of stacking their tokens.

    Unlike stacking, this keeps the number of tokens. The mean face vector gets the mean length of
    the face vectors.

    Raises:
        ValueError: if the adapters differ, an identity has no features, or no weight is positive.
    """
    faces, clips = _gather_features(identities)
    shares = _check_shares(weights)
    length = torch.einsum("n,n->", shares, faces.norm(dim=1))
    face = _to_length(torch.einsum("n,nw->w", shares, faces)[None], length)
    return _map_again(identities, Features(face, torch.einsum("n,nlw->lw", shares, clips)[None]))


def average_directions(identities: Sequence[Identity], weights: Sequence[float]) -> Identity:
    """Like `average`, but each photo's features are brought to length 1 before the mean.

    So no photo counts for more because its face vector, or one of its CLIP states, is longer. The
    means get the mean lengths.

    Raises:
        ValueError: as `average`.
    """
    faces, clips = _gather_features(identities)
    shares = _check_shares(weights)
    return _map_again(
        identities, Features(_mean_direction(faces, shares), _mean_direction(clips, shares))
    )


def subtract(identities: Sequence[Identity], weights: Sequence[float]) -> Identity:
    """Take the mean of the other photos' features away from the first one's, and map the rest.

    A weight says how much of a photo is taken away, relative to the first weight; photos of weight
    0 are left out. The face vector keeps the first one's length, which the mapper knows.

    Raises:
        ValueError: if the adapters differ, an identity has no features, the first weight is 0, or
            nothing is left.
    """
    faces, clips = _gather_features(identities)
    _check_shares(weights)
    if weights[0] == 0:
        raise ValueError(
            "combine 'subtract' takes the other photos away from the first, so the first weight "
            "must be above 0."
        )
    taken = torch.tensor(weights[1:]) / weights[0] / max(1, sum(w > 0 for w in weights[1:]))
    face = faces[:1] - torch.einsum("n,nw->w", taken, faces[1:])
    clip = clips[:1] - torch.einsum("n,nlw->lw", taken, clips[1:])
    for first, rest in ((faces[0], face), (clips[0], clip)):
        if first.any() and rest.norm() < _LEAST_REST * first.norm():
            raise ValueError(
                "combine 'subtract' leaves nothing of the first photo, for the others show the "
                "same. Give other photos, or lower their weights, such as '1, 0.5'."
            )
    return _map_again(identities, Features(_to_length(face, faces[0].norm()), clip))


def _gather_features(identities: Sequence[Identity]) -> tuple[Tensor, Tensor]:
    """Face vectors `(n, width)` and CLIP's states `(n, l, width)` of identities of one adapter."""
    _common_adapter(identities)
    features = [_need_features(identity) for identity in identities]
    return torch.cat([f.face for f in features]), torch.cat([f.clip for f in features])


def _check_shares(weights: Sequence[float]) -> Tensor:
    shares = torch.tensor(weights)
    if shares.min() < 0 or shares.sum() <= 0:
        raise ValueError(f"Weights must not be negative, and one must be above 0: {weights}.")
    return shares / shares.sum()


def _to_length(vectors: Tensor, length: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12) * length


def _mean_direction(vectors: Tensor, shares: Tensor) -> Tensor:
    """The mean of unit vectors, at the mean length; `(n, ..., width)` -> `(1, ..., width)`."""
    lengths = vectors.norm(dim=-1, keepdim=True)
    units = vectors / lengths.clamp(min=1e-12)
    mean, length = (torch.einsum("n,n...->...", shares, x)[None] for x in (units, lengths))
    return _to_length(mean, length)


def _map_again(identities: Sequence[Identity], features: Features) -> Identity:
    return replace(
        identities[0],
        tokens=encode(identities[0].adapter, features.face, features.clip),
        sources=tuple(source for i in identities for source in i.sources),
        shares=None,
        features=features,
    )


def interpolate(keys: Sequence[Identity], places: Sequence[float]) -> Identity:
    """In-betweens of identities, linear in their tokens (project page, 'interpolation').

    Args:
        keys: at least two, all of one length.
        places: 0 is the first key, 1 the second, and so on.

    Returns:
        A sweep: one identity for each place.

    Raises:
        ValueError: if adapters or numbers of tokens differ.
    """
    _check_keys(keys)
    return _between(keys, places, torch.cat([_lerp_tokens(keys, place) for place in places]))


def interpolate_faces(keys: Sequence[Identity], places: Sequence[float]) -> Identity:
    """Interpolate face vectors spherically and CLIP's states linearly, then map them to tokens.

    Args, returns and raises as `interpolate`; also raises ValueError for stacks, which have no
    face vector.
    """
    _check_keys(keys)
    parts = [_mix_features(keys, place) for place in places]
    features = Features(torch.cat([p.face for p in parts]), torch.cat([p.clip for p in parts]))
    tokens = encode(keys[0].adapter, features.face, features.clip)
    return replace(_between(keys, places, tokens), features=features)


def cross_fade(keys: Sequence[Identity], places: Sequence[float]) -> Identity:
    """In-betweens by stacking: each place is a stack of all keys, weighted by nearness.

    Args, returns and raises as `interpolate`; the keys may differ in their number of tokens.
    """
    n = len(places)
    fades = torch.tensor(
        [[max(0.0, 1 - abs(place - key)) for key in range(len(keys))] for place in places]
    )
    stacked = stack(keys)
    lengths = [key.tokens.shape[1] for key in keys]
    shares = torch.cat([_spread(_shares(key), n) for key in keys], dim=1)
    return replace(
        stacked,
        tokens=_spread(stacked.tokens, n),
        shares=shares * fades.repeat_interleave(torch.tensor(lengths), dim=1),
    )


def _between(keys: Sequence[Identity], places: Sequence[float], tokens: Tensor) -> Identity:
    return Identity(
        tokens=tokens,
        unconditional=keys[0].unconditional,
        adapter=keys[0].adapter,
        sources=tuple(source for key in keys for source in key.sources),
        shares=_between_shares(keys, places),
    )


def _between_shares(keys: Sequence[Identity], places: Sequence[float]) -> Tensor | None:
    """Interpolate each token's part of its key's total, and the totals, both linearly.

    So keys with weights (1, 1) and (10, 2) meet half-way in the same proportion as keys with (1, 1)
    and (1, .2). At the ends the shares are the keys' own.
    """
    if all(key.shares is None for key in keys):
        return None
    totals = [_shares(key).sum(dim=1, keepdim=True) for key in keys]
    parts = [_shares(key) / total for key, total in zip(keys, totals, strict=True)]
    rows = []
    for place in places:
        first, share = _locate(len(keys), place)
        part, total = (torch.lerp(x[first], x[first + 1], share) for x in (parts, totals))
        rows.append(part * total)
    return torch.cat(rows)


def _lerp_tokens(keys: Sequence[Identity], place: float) -> Tensor:
    left, right, share = _neighbours(keys, place)
    return torch.lerp(left.tokens, right.tokens, share)


def _mix_features(keys: Sequence[Identity], place: float) -> Features:
    left, right, share = _neighbours(keys, place)
    a, b = _need_features(left), _need_features(right)
    return Features(slerp(a.face, b.face, share), torch.lerp(a.clip, b.clip, share))


def _neighbours(keys: Sequence[Identity], place: float) -> tuple[Identity, Identity, float]:
    first, share = _locate(len(keys), place)
    return keys[first], keys[first + 1], share


def _locate(keys: int, place: float) -> tuple[int, float]:
    first = min(max(int(place), 0), keys - 2)
    return first, place - first


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Interpolate along the great circle from a to b, and lengths linearly; `(n, width)`.

    Shoemake 1985. Parallel vectors have no single such circle; for them the line is used.
    """
    lengths = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    x, y = (v / n.clamp(min=1e-12) for v, n in zip((a, b), lengths, strict=True))
    angle = (x * y).sum(1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    round_ = (((1 - share) * angle).sin() * x + (share * angle).sin() * y) / sine.clamp(min=1e-6)
    direction = torch.where(sine < 1e-4, torch.lerp(x, y, share), round_)
    return direction * torch.lerp(*lengths, share)


def _shares(identity: Identity) -> Tensor:
    if identity.shares is not None:
        return identity.shares
    return torch.ones(identity.tokens.shape[:2])


def _spread(x: Tensor, n: int) -> Tensor:
    return repeat(x, "1 ... -> n ...", n=n) if x.shape[0] == 1 else x


def _check_keys(keys: Sequence[Identity]) -> None:
    _common_adapter(keys)
    for one, next_ in pairwise(keys):
        if one.tokens.shape != next_.tokens.shape:
            raise ValueError(
                "Only identities of the same number of photos can be interpolated; these have "
                f"{one.tokens.shape[1]} and {next_.tokens.shape[1]} tokens. Average the photos "
                "when encoding them, or blend by stacking."
            )


def _common_adapter(identities: Sequence[Identity]) -> Adapter:
    adapter = identities[0].adapter
    for other in identities:
        if other.adapter is not adapter:
            raise ValueError(
                f"Identities of different adapters cannot be mixed: '{adapter.name}' and "
                f"'{other.adapter.name}'. Encode all photos with the same adapter."
            )
    return adapter


def _common_count(identities: Sequence[Identity]) -> int:
    counts = {identity.count for identity in identities} - {1}
    if len(counts) > 1:
        raise ValueError(
            f"Sweeps of different lengths cannot be mixed: {sorted(counts)} identities."
        )
    return counts.pop() if counts else 1


def _need_features(identity: Identity) -> Features:
    if identity.features is None:
        raise ValueError(
            "This identity is a stack of several photos, which has no face vector. Average the "
            "photos when encoding them, or choose another method."
        )
    return identity.features
