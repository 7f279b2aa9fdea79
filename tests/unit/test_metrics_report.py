"""Ten thousand pictures: bounded memory, a page of bounded size, and nothing dropped."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from pack.infinite_id.faces.face import Photo
from pack.infinite_id.metrics import report
from pack.infinite_id.metrics.evaluate import evaluate
from pack.infinite_id.metrics.features import Nets, Store
from pack.infinite_id.metrics.material import Material, Picture
from pack.infinite_id.metrics.scores import Measure, Vector, Vectors
from PIL import Image

PICTURES, PEOPLE, PHOTOS = 10_000, 20, 3
NO_FACE, DAMAGED, MISSING, NO_PROMPT = range(4)
"""The numbers of the pictures of the first person that have something wrong."""


class StandIn:
    """A face net whose vectors are drawn by the pixels; dark pictures have no face."""

    name, digest, licence, measure = "stand-in", "0" * 64, "none", Measure.COSINE

    def look(self, photo: Photo) -> Vector | None:
        return draw(photo, 512) if photo.max() > 10 else None


class StandInClip:
    name, digest, preprocessing = "stand-in CLIP", "1" * 64, "none"

    def see(self, photos: Sequence[Photo]) -> Vectors:
        return np.stack([draw(photo, 64) for photo in photos])

    def read(self, texts: Sequence[str]) -> Vectors:
        return np.stack([draw(np.frombuffer(text.encode(), np.uint8), 64) for text in texts])


def draw(values: np.ndarray, width: int) -> Vector:
    seed = int.from_bytes(hashlib.sha256(values.tobytes()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=width).astype(np.float32) + 0.5


def encode(number: int) -> bytes:
    """A PNG of two pixels, another one for each number."""
    pixels = [number >> shift & 255 for shift in (0, 8, 16)] + [200, 200, 200]
    file = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8).reshape(1, 2, 3)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("many")
    photos = {}
    for person in range(PEOPLE):
        photos[f"person {person}"] = [folder / f"photo {person} {n}.png" for n in range(PHOTOS)]
        for n, path in enumerate(photos[f"person {person}"]):
            path.write_bytes(encode(10**6 + person * PHOTOS + n))
    pictures = []
    for n in range(PICTURES):
        path = folder / f"{n}.png"
        path.write_bytes(encode(n))
        method, owner = ("a", "b")[n % 2], f"person {n // 2 % PEOPLE}"
        text = "" if n == 2 * PEOPLE * NO_PROMPT else f"prompt {n % 7}"
        pictures.append(Picture(method, owner, f"prompt {n % 7}", str(n), text, path))
    folder.joinpath(f"{2 * PEOPLE * DAMAGED}.png").write_bytes(b"no picture")
    folder.joinpath(f"{2 * PEOPLE * MISSING}.png").unlink()
    dark = Image.new("RGB", (2, 1))
    dark.save(folder / f"{2 * PEOPLE * NO_FACE}.png")
    return Material(pictures, photos)


def test_ten_thousand_pictures(material: Material, tmp_path: Path) -> None:
    nets, store = Nets([StandIn()], StandInClip()), Store(tmp_path / "features.sqlite")
    before = psutil.Process().memory_info().rss
    evaluation = evaluate(material, nets, store, material.pictures[0].path.parent)
    report.write_all(tmp_path, evaluation, nets, "a")
    store.close()
    assert psutil.Process().memory_info().rss - before < 150e6
    with (tmp_path / report.CSV).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == PICTURES
    wrong = {int(row["seed"]): row["problem"] for row in rows if row["problem"]}
    assert wrong == {
        2 * PEOPLE * NO_FACE: "no face for stand-in",
        2 * PEOPLE * DAMAGED: "it is damaged or no picture",
        2 * PEOPLE * MISSING: "the file is missing",
        2 * PEOPLE * NO_PROMPT: "no prompt",
    }
    assert len(evaluation.problems) == 4
    assert not any("too few people" in warning for warning in evaluation.warnings)
    assert evaluation.difference("b", "a", "CLIP-T") is not None
    page = (tmp_path / report.HTML).read_bytes()
    assert len(page) < 40e6
    assert page.count(b"<figure>") == 2 * report.SHOWN
    assert page.count(b'"prompt 3"') > PICTURES / 8, "the table has every picture"


def test_a_table_that_is_too_long_is_cut_and_says_so(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_TABLE_BYTES", 2000)
    few = Material(material.pictures[:100], material.photos)
    nets, store = Nets([StandIn()]), Store(tmp_path / "features.sqlite")
    evaluation = evaluate(few, nets, store, tmp_path)
    report.write_all(tmp_path, evaluation, nets, "a")
    store.close()
    page = (tmp_path / report.HTML).read_text(encoding="utf-8")
    assert "of 100; all are in <code>scores.csv</code>" in page
