"""Figures of a whole evaluation beside a computation that shares nothing with it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import acos, sqrt
from pathlib import Path

import numpy as np
import pytest
from pack.infinite_id.faces.face import Photo
from pack.infinite_id.metrics.evaluate import Evaluation, evaluate
from pack.infinite_id.metrics.features import Nets, Store
from pack.infinite_id.metrics.material import Material, Picture
from pack.infinite_id.metrics.scores import Measure, Vector, Vectors
from PIL import Image

FACE, CLIP = "net", "clip"
MORE = [f"person {n}" for n in range(9)]
Table = Mapping[int, Sequence[float] | None]


class Net:
    """A face net and a CLIP in one: a picture's vectors are looked up by its grey level."""

    name, digest, licence, preprocessing, measure = FACE, FACE, "none", "none", Measure.COSINE

    def __init__(self, table: Table) -> None:
        self._table = table

    def look(self, photo: Photo) -> Vector | None:
        found = self._table[int(photo[0, 0, 0])]
        return None if found is None else np.array(found, np.float32)

    def see(self, photos: Sequence[Photo]) -> Vectors:
        return np.array([self._table[-1 - int(p[0, 0, 0])] for p in photos], np.float32)

    def read(self, texts: Sequence[str]) -> Vectors:
        return np.array([self._table[1000 + len(text)] for text in texts], np.float32)


class Clip(Net):
    name, digest = CLIP, CLIP


@pytest.fixture
def world(tmp_path: Path) -> tuple[Material, Table]:
    """Two methods; unequal numbers of pictures, photos and seeds; pictures without a face."""
    rng = random.Random(3)

    def vector(mean: float) -> list[float]:
        return np.array([rng.gauss(mean, 1) for _ in range(6)], np.float32).tolist()

    table: dict[int, Sequence[float] | None] = {1000 + n: vector(0.3) for n in range(40)}
    grey = 0

    def picture(name: str, face: bool = True) -> Path:
        nonlocal grey
        Image.new("RGB", (2, 2), (grey,) * 3).save(tmp_path / name)
        table[grey], table[-1 - grey] = vector(0.2) if face else None, vector(0.3)
        grey += 1
        return tmp_path / name

    photos = {
        person: [picture(f"{person} {n}.png") for n in range(count)]
        for person, count in (("cleo", 3), ("anna", 1), ("bert", 2), *((m, 2) for m in MORE))
    }
    pictures = [
        Picture(
            method,
            person,
            prompt,
            str(seed),
            prompt,
            picture(f"{method}{person}{prompt}{seed}.png", faces and (seed + len(person)) % 3 > 0),
        )
        for method, faces in (("one", True), ("blind", False))
        for person, seeds in (("bert", 3), ("anna", 1), ("cleo", 4), *((m, 1) for m in MORE))
        for prompt in ("a", "on the beach")
        for seed in range(seeds if prompt == "a" else 1)
    ]
    return Material(pictures, photos), table


def score(material: Material, table: Table, folder: Path) -> Evaluation:
    store = Store(folder / "features.sqlite")
    found = evaluate(material, Nets([Net(table)], Clip(table)), store, folder)
    store.close()
    return found


def grey(path: Path) -> int:
    return int(np.array(Image.open(path))[0, 0, 0])


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / sqrt(
        sum(x * x for x in a) * sum(y * y for y in b)
    )


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def expect(material: Material, table: Table, method: str) -> dict[str, dict[str, float]]:
    """Measure -> person -> figure, by the words of docs/metrics.md."""
    found: dict[str, dict[str, float]] = {}

    def put(measure: str, person: str, values: Sequence[float]) -> None:
        found.setdefault(measure, {})
        if values:
            found[measure][person] = mean(values)

    for person, paths in material.photos.items():
        own = [p for p in material.pictures if (p.method, p.person) == (method, person)]
        given, *others = [table[grey(path)] for path in paths]
        faces = [table[grey(p.path)] for p in own]
        alike = [0.0 if face is None else cosine(face, given) for face in faces]
        put("similarity net", person, alike)
        put("similarity net, clipped", person, [max(a, 0.0) for a in alike])
        put("no face net", person, [float(face is None) for face in faces])
        among = [cosine(a, b) for a, b in combinations([given, *others], 2)]
        baseline = mean(among) if others else 0.0
        put("% of own net", person, [100 * a / baseline for a in alike] if baseline > 0 else [])
        copied = []
        if others:
            lengths = [sqrt(sum(x * x for x in o)) for o in others]
            target = [
                mean([o[n] / k for o, k in zip(others, lengths, strict=True)]) for n in range(6)
            ]
            between = acos(cosine(target, given))
            copied = [
                (acos(cosine(f, target)) - acos(cosine(f, given))) / between
                for f in faces
                if f is not None
            ]
        put("copy-paste net", person, copied)
        whole = {p.path: table[-1 - grey(p.path)] for p in own}
        put("CLIP-T", person, [cosine(whole[p.path], table[1000 + len(p.text)]) for p in own])
        put("CLIP-I", person, [cosine(w, table[-1 - grey(paths[0])]) for w in whole.values()])
        varied = []
        for prompt in {p.prompt for p in own}:
            pairs = list(combinations([whole[p.path] for p in own if p.prompt == prompt], 2))
            varied += [mean([1 - cosine(a, b) for a, b in pairs])] if pairs else []
        put("diversity", person, varied)
    return found


def test_all_figures_by_another_computation(world: tuple[Material, Table], tmp_path: Path) -> None:
    material, table = world
    found = score(material, table, tmp_path)
    assert found.figures["blind"]["no face net"] == dict.fromkeys(material.photos, 1)
    assert found.figures["blind"]["copy-paste net"] == {}
    assert found.interval("blind", "copy-paste net") is None
    for method in found.methods:
        expected = expect(material, table, method)
        assert found.figures[method].keys() == expected.keys()
        for measure, values in expected.items():
            assert dict(found.figures[method][measure]) == pytest.approx(
                values, rel=1e-6, abs=1e-6
            ), measure


def test_the_order_of_the_material_does_not_matter(
    world: tuple[Material, Table], tmp_path: Path
) -> None:
    material, table = world
    mixed = list(material.pictures)
    random.Random(1).shuffle(mixed)
    people = dict(reversed(list(material.photos.items())))
    one, other = score(material, table, tmp_path), score(Material(mixed, people), table, tmp_path)
    for measure in one.measures:
        for method in one.methods:
            found = [e.interval(method, measure) for e in (one, other)]
            assert (found[0] is None) == (found[1] is None)
            if found[0] and found[1]:
                assert vars(found[0]) == pytest.approx(vars(found[1]), abs=1e-9), measure
        found = [e.difference("blind", "one", measure) for e in (one, other)]
        if found[0] and found[1]:
            assert vars(found[0]) == pytest.approx(vars(found[1]), abs=1e-9), measure


def test_a_difference_pairs_people_whatever_their_order(
    world: tuple[Material, Table], tmp_path: Path
) -> None:
    found = score(*world, tmp_path)
    own, other = (found.figures[m]["CLIP-T"] for m in ("one", "blind"))
    difference = found.difference("one", "blind", "CLIP-T")
    assert difference is not None
    pairs = [own[person] - other[person] for person in own]
    assert difference.mean == pytest.approx(mean(pairs), abs=1e-9)
    assert min(pairs) <= difference.low <= difference.high <= max(pairs)
