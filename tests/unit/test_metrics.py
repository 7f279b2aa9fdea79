"""The metrics' pure functions beside references that share nothing with them."""

from itertools import combinations
from math import acos, dist, sqrt

import numpy as np
import pytest
from pack.infinite_id.metrics import scores, statistics
from scipy import stats

TOLERANCE = 1e-6


def draw(n: int, d: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def reference_cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.tolist(), b.tolist()
    return sum(p * q for p, q in zip(x, y, strict=True)) / sqrt(
        sum(p * p for p in x) * sum(q * q for q in y)
    )


def approx(expected: object) -> object:
    return pytest.approx(expected, abs=TOLERANCE, nan_ok=True)


def test_similarities() -> None:
    person, *faces = draw(5)
    found = scores.similarities([faces[0], None, *faces[1:]], person)
    expected = [reference_cosine(face, person) for face in faces]
    assert found.tolist() == approx([expected[0], float("nan"), *expected[1:]])


def test_what_no_face_and_strangers_count() -> None:
    found = np.array([0.5, np.nan, -0.2, np.nan, 0.1])
    assert scores.count(found, clipped=False).tolist() == [0.5, 0, -0.2, 0, 0.1]
    assert scores.count(found, clipped=True).tolist() == [0.5, 0, 0, 0, 0.1]
    assert scores.missing_rate(found) == 0.4


def test_copy_paste() -> None:
    generated, reference, target = draw(3, seed=1)
    angles = [
        acos(reference_cosine(a, b))
        for a, b in ((generated, target), (generated, reference), (target, reference))
    ]
    found = scores.copy_paste(generated, reference, target)
    assert found == approx((angles[0] - angles[1]) / angles[2])
    assert scores.copy_paste(3 * reference, reference, target) == approx(1)
    assert scores.copy_paste(2 * target, reference, target) == approx(-1)


def test_clip_scores() -> None:
    pictures, texts = draw(4, seed=2), draw(4, seed=3)
    expected = [100 * reference_cosine(a, b) for a, b in zip(pictures, texts, strict=True)]
    found = scores.clip_scores(pictures, texts, scores.TORCHMETRICS)
    assert found.tolist() == pytest.approx(expected, abs=100 * TOLERANCE)


def test_diversity() -> None:
    pictures = draw(4, seed=4)
    pairs = [1 - reference_cosine(a, b) for a, b in combinations(pictures, 2)]
    assert scores.diversity(pictures) == approx(sum(pairs) / 6)
    assert np.isnan(scores.diversity(pictures[:1]))


def test_own_baseline_and_strangers() -> None:
    vectors, people = draw(6, seed=5), ["a", "b", "a", "c", "b", "a"]
    pairs = list(combinations(range(6), 2))
    cosines = {(i, j): reference_cosine(vectors[i], vectors[j]) for i, j in pairs}
    same, different = scores.same_and_different(vectors, people)
    assert same.tolist() == approx([cosines[i, j] for i, j in pairs if people[i] == people[j]])
    assert different.tolist() == approx([cosines[i, j] for i, j in pairs if people[i] != people[j]])
    own = vectors[[0, 2, 5]]
    assert scores.among(own).tolist() == approx(
        [reference_cosine(*p) for p in combinations(own, 2)]
    )


def test_bootstrap_is_scipys() -> None:
    """Percentile intervals by another implementation, of as many draws that nearly agree."""
    values = np.random.default_rng(6).normal(0.5, 0.1, 30)
    found = statistics.bootstrap(values)
    assert found.mean == approx(sum(values) / 30)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=7
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=3e-3)


def test_bootstrap_by_hand() -> None:
    values = np.array([0.25, 0.5, 1.0])
    rng = np.random.default_rng(0)
    means = sorted(
        sum(values[n] for n in row) / 3 for row in rng.integers(3, size=(statistics.RESAMPLES, 3))
    )
    found = statistics.bootstrap(values)

    def quantile(share: float) -> float:
        place = share * (len(means) - 1)
        low = int(place)
        return float(means[low] + (place - low) * (means[low + 1] - means[low]))

    assert (found.low, found.high) == approx((quantile(0.025), quantile(0.975)))


def test_a_paired_difference_is_surer_than_its_parts() -> None:
    rng = np.random.default_rng(8)
    people = rng.normal(0.5, 0.2, 40)
    better = people + 0.05 + rng.normal(0, 0.01, 40)
    difference = statistics.bootstrap(better - people)
    assert difference.low > 0
    assert difference.describe(signed=True).startswith("+0.0")
    alone = statistics.bootstrap(better)
    assert alone.low < people.mean() < alone.high


@pytest.mark.parametrize("rate", [0.01, 0.001, 0.1])
def test_thresholds(rate: float) -> None:
    different = np.random.default_rng(9).normal(0, 0.1, 5000)
    found = statistics.threshold(different, rate)
    assert (different >= found).mean() <= rate
    lower = np.nextafter(found, -np.inf)
    assert (different >= lower).mean() > rate


def test_area_under_the_curve() -> None:
    rng = np.random.default_rng(10)
    same, different = rng.normal(0.5, 0.3, 50).round(1), rng.normal(0, 0.3, 70).round(1)
    wins = [(a > b) + (a == b) / 2 for a in same for b in different]
    assert statistics.area(same, different) == approx(sum(wins) / len(wins))


def test_a_net_of_distances() -> None:
    vectors, people, measure = draw(5, seed=11), ["a", "b", "a", "b", "b"], scores.Measure.DISTANCE
    pairs = list(combinations(range(5), 2))
    near = {(i, j): 1 - dist(vectors[i], vectors[j]) for i, j in pairs}
    same, different = scores.same_and_different(vectors, people, measure)
    assert same.tolist() == approx([near[i, j] for i, j in pairs if people[i] == people[j]])
    assert different.tolist() == approx([near[i, j] for i, j in pairs if people[i] != people[j]])
    found = scores.similarities([vectors[0], None], vectors[1], measure)
    assert found.tolist() == approx([near[0, 1], float("nan")])


def test_the_average_of_photos_counts_each_alike() -> None:
    photos = draw(3, seed=12)
    long = photos * np.array([[1.0], [10.0], [0.1]])
    expected = sum(photo / sqrt(sum(x * x for x in photo.tolist())) for photo in photos) / 3
    assert scores.average(long).tolist() == approx(expected.tolist())
    assert scores.average(photos, scores.Measure.DISTANCE).tolist() == approx(
        (sum(photos) / 3).tolist()
    )


def test_cosine_and_distance_agree_for_unit_vectors() -> None:
    a, b = scores.unit(draw(2, seed=13))
    assert dist(a, b) ** 2 == approx(2 - 2 * scores.cosine(a, b))
    assert scores.direction(3 * a).tolist() == approx(a.tolist())
