"""Stacks, averages and in-betweens of identities, as values."""

import math
from dataclasses import replace

import pytest
import torch
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig, encode
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.attention.blocks import Block
from pack.infinite_id.identities import mixing
from pack.infinite_id.identities.identity import Features, Identity, Source
from torch import Tensor
from torch.testing import assert_close

FACE, CLIP, WIDTH = 16, 12, 8
CONFIG = AdapterConfig(
    MapperConfig(
        token_width=WIDTH,
        face_width=FACE,
        face_hidden=10,
        face_tokens=2,
        clip_width=CLIP,
        clip_hidden=10,
    ),
    {Block("middle", 0, 0): 32},
)


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    torch.manual_seed(0)
    return Adapter(CONFIG).requires_grad_(False)


def encode_person(adapter: Adapter, seed: int) -> Identity:
    generator = torch.Generator().manual_seed(seed)
    features = Features(
        3 * torch.randn(1, FACE, generator=generator), torch.randn(1, 5, CLIP, generator=generator)
    )
    return Identity(
        tokens=encode(adapter, features.face, features.clip),
        unconditional=encode(adapter, torch.zeros(1, FACE), torch.zeros(1, 5, CLIP)),
        adapter=adapter,
        sources=(Source(f"photo {seed}", ""),),
        features=features,
    )


@pytest.fixture(scope="module")
def people(adapter: Adapter) -> list[Identity]:
    return [encode_person(adapter, seed) for seed in range(3)]


def test_a_stack_has_all_tokens_and_sources(people: list[Identity]) -> None:
    stacked = mixing.stack(people)
    assert torch.equal(stacked.tokens, torch.cat([p.tokens for p in people], dim=1))
    assert torch.equal(stacked.unconditional, people[0].unconditional)
    assert [s.label for s in stacked.sources] == ["photo 0", "photo 1", "photo 2"]
    assert stacked.shares is None
    assert stacked.features is None


def test_weights_become_shares(people: list[Identity]) -> None:
    length = people[0].tokens.shape[1]
    stacked = mixing.stack(people[:2], [0.5, 2.0])
    assert stacked.shares is not None
    assert stacked.shares.tolist() == [[0.5] * length + [2.0] * length]
    twice = mixing.stack([stacked, people[2]], [2.0, 1.0])
    assert twice.shares is not None
    assert twice.shares.tolist() == [[1.0] * length + [4.0] * length + [1.0] * length]


def test_equal_weights_are_no_weights(people: list[Identity]) -> None:
    assert mixing.stack(people, [0.3, 0.3, 0.3]).shares is None


def test_weight_0_drops_an_identity(people: list[Identity]) -> None:
    assert mixing.stack(people[:2], [0.0, 0.7]) is people[1]
    assert torch.equal(
        mixing.stack(people, [1.0, 0.0, 1.0]).tokens, mixing.stack([people[0], people[2]]).tokens
    )


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -0.1]])
def test_impossible_weights_are_refused(people: list[Identity], weights: list[float]) -> None:
    for combine in (mixing.stack, mixing.average, mixing.average_directions, mixing.subtract):
        with pytest.raises(ValueError, match="Weights must not be negative"):
            combine(people[:2], weights)


def test_an_average_is_mapped_from_the_mean_features(people: list[Identity]) -> None:
    a, b = (person.features for person in people[:2])
    assert a is not None
    assert b is not None
    face = 0.25 * a.face + 0.75 * b.face
    length = 0.25 * a.face.norm() + 0.75 * b.face.norm()
    expected = encode(people[0].adapter, face / face.norm() * length, 0.25 * a.clip + 0.75 * b.clip)
    mean = mixing.average(people[:2], [1.0, 3.0])
    assert_close(mean.tokens, expected)
    assert mean.tokens.shape == people[0].tokens.shape
    assert_close(mixing.average(people[:2], [1.0, 0.0]).tokens, people[0].tokens)


def test_an_average_can_be_averaged_again(people: list[Identity]) -> None:
    first = mixing.average(people[:2], [1.0, 1.0])
    assert mixing.average([first, people[2]], [2.0, 1.0]).count == 1


def test_a_normalised_average_does_not_depend_on_lengths(people: list[Identity]) -> None:
    """The direction is that of the sum of unit vectors; face vector and CLIP's states alike."""
    a, b = (need_features(person) for person in people[:2])
    louder = replace(people[1], features=Features(5 * b.face, 5 * b.clip))
    for other, factor in ((people[1], 1), (louder, 5)):
        mean = need_features(mixing.average_directions([people[0], other], [1.0, 3.0]))
        for found, x, y in ((mean.face, a.face, b.face), (mean.clip, a.clip, b.clip)):
            for row in range(found[0].numel() // found.shape[-1]):
                own, first, second = (v.reshape(-1, v.shape[-1])[row] for v in (found, x, y))
                towards = first / first.norm() + 3 * second / second.norm()
                length = 0.25 * first.norm() + 0.75 * factor * second.norm()
                assert_close(own, towards / towards.norm() * length)
    same = mixing.average_directions([people[0], people[0]], [1.0, 1.0])
    assert_close(same.tokens, people[0].tokens)


@pytest.mark.parametrize(
    ("weights", "taken"),
    [([1.0, 1.0, 1.0], (0.5, 0.5)), ([2.0, 1.0, 3.0], (0.25, 0.75)), ([1.0, 0.5, 0.0], (0.5, 0))],
)
def test_subtracting_photos(
    people: list[Identity], weights: list[float], taken: tuple[float, float]
) -> None:
    first, a, b = (need_features(person) for person in people)
    face = first.face - taken[0] * a.face - taken[1] * b.face
    face = face / face.norm() * first.face.norm()
    clip = first.clip - taken[0] * a.clip - taken[1] * b.clip
    rest = mixing.subtract(people, weights)
    assert_close(need_features(rest).face, face)
    assert_close(need_features(rest).clip, clip)
    assert_close(rest.tokens, encode(people[0].adapter, face, clip))
    assert len(rest.sources) == 3
    assert_close(mixing.subtract(people[:1], [2.0]).tokens, people[0].tokens)


def test_subtracting_what_leaves_nothing_is_refused(people: list[Identity]) -> None:
    with pytest.raises(ValueError, match="leaves nothing of the first photo"):
        mixing.subtract([people[0], people[0]], [1.0, 1.0])
    with pytest.raises(ValueError, match="the first weight must be above 0"):
        mixing.subtract(people[:2], [0.0, 1.0])


def need_features(identity: Identity) -> Features:
    assert identity.features is not None
    return identity.features


def test_linear_in_betweens(people: list[Identity]) -> None:
    a, b = people[0].tokens, people[1].tokens
    sweep = mixing.interpolate(people[:2], [0.0, 0.25, 1.0])
    assert sweep.count == 3
    assert_close(sweep.tokens, torch.cat([a, 0.75 * a + 0.25 * b, b]))
    assert torch.equal(sweep.tokens[:1], a)
    assert torch.equal(sweep.tokens[2:], b)


def test_in_betweens_of_several_keys_pass_through_each(people: list[Identity]) -> None:
    sweep = mixing.interpolate(people, [0.0, 1.0, 1.5, 2.0])
    keys = [person.tokens for person in people]
    assert_close(sweep.tokens, torch.cat([keys[0], keys[1], (keys[1] + keys[2]) / 2, keys[2]]))


def test_in_betweens_of_weighted_stacks_interpolate_the_shares(people: list[Identity]) -> None:
    """The ends are the keys' own; half-way does not depend on the scale of a key's weights."""
    length = people[0].tokens.shape[1]
    plain = mixing.stack(people[:2])
    for weights in ([1.0, 0.2], [10.0, 2.0]):
        weighted = mixing.stack(people[:2], weights)
        for keys in ([plain, weighted], [weighted, plain]):
            shares = mixing.interpolate(keys, [0, 0.5, 1]).shares
            assert shares is not None
            for row, key in ((0, keys[0]), (2, keys[1])):
                own = torch.ones(1, 2 * length) if key.shares is None else key.shares
                assert_close(shares[row : row + 1], own)
            half = (1 / 2 + 1 / 1.2) / 2, (1 / 2 + 0.2 / 1.2) / 2
            assert_close(shares[1, 0] / shares[1, -1], torch.tensor(half[0] / half[1]))
    assert mixing.interpolate([plain, plain], [0, 0.5, 1]).shares is None


def test_spherical_in_betweens(people: list[Identity]) -> None:
    """Lengths and angles between the ends, and the ends themselves; tokens are mapped anew."""
    sweep = mixing.interpolate_faces(people[:2], [0.0, 1 / 3, 1.0])
    assert sweep.features is not None
    faces = sweep.features.face
    for key, found in zip(people[:2], (faces[:1], faces[2:]), strict=True):
        assert key.features is not None
        assert_close(found, key.features.face)
    lengths = faces.norm(dim=1)
    assert_close(lengths[1], lengths[0] * 2 / 3 + lengths[2] / 3)
    assert_close(angle(faces[0], faces[1]), angle(faces[0], faces[2]) / 3)
    assert_close(angle(faces[1], faces[2]), angle(faces[0], faces[2]) * 2 / 3)
    assert_close(sweep.tokens, encode(sweep.adapter, faces, sweep.features.clip))
    assert_close(sweep.tokens[:1], people[0].tokens)
    assert_close(sweep.tokens[2:], people[1].tokens)


def angle(a: Tensor, b: Tensor) -> Tensor:
    return torch.acos(a @ b / a.norm() / b.norm())


def test_slerp_of_parallel_vectors_is_on_the_line() -> None:
    x = torch.tensor([[3.0, 4.0]])
    assert_close(mixing.slerp(x, 2 * x, 0.5), 1.5 * x)
    turned = mixing.slerp(x, torch.tensor([[-4.0, 3.0]]), 0.5)
    assert_close(turned.norm(), torch.tensor(5.0))
    assert_close(angle(x[0], turned[0]), torch.tensor(math.pi / 4))


def test_a_cross_fade_weighs_the_neighbours(people: list[Identity]) -> None:
    length = people[0].tokens.shape[1]
    fade = mixing.cross_fade(people, [0.0, 0.25, 2.0])
    assert fade.tokens.shape == (3, 3 * length, WIDTH)
    assert fade.shares is not None
    assert fade.shares[:, ::length].tolist() == [[1, 0, 0], [0.75, 0.25, 0], [0, 0, 1]]


def test_what_does_not_go_together_is_refused(people: list[Identity]) -> None:
    stranger = encode_person(Adapter(CONFIG).requires_grad_(False), 5)
    for combine in (mixing.stack, lambda keys: mixing.interpolate(keys, [0.5])):
        with pytest.raises(ValueError, match="different adapters"):
            combine([people[0], stranger])
    stacked = mixing.stack(people[:2])
    with pytest.raises(ValueError, match="same number of photos"):
        mixing.interpolate([people[0], stacked], [0.5])
    with pytest.raises(ValueError, match="no face vector"):
        mixing.interpolate_faces([stacked, stacked], [0.5])
    sweeps = [mixing.interpolate(people[:2], places) for places in ([0, 1], [0, 0.5, 1])]
    with pytest.raises(ValueError, match="different lengths"):
        mixing.stack(sweeps)
