"""Face Similarity, Pick Best Pictures and Score Pictures on drawn people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.clip_vision
import folder_paths
import numpy as np
import pytest
import torch
from pack.infinite_id.faces.detection import detect
from pack.infinite_id.faces.face import Face, FaceError
from pack.infinite_id.faces.model_pack import load_analysis
from pack.infinite_id.faces.photo import read_photo
from pack.miniature.faces import render
from pack.miniature.host import register
from pack.miniature.shapes import WEIGHTS
from pack.miniature.world.canvas import SIDE
from pack.miniature.world.identity import draw_identity
from pack.miniature.world.scene import draw_scene
from pack.nodes import detection, similarity
from pack.nodes.scores import PickBest, ScorePictures
from pack.nodes.similarity import FaceSimilarity


@pytest.fixture(scope="module")
def analysis() -> Any:
    return load_analysis(WEIGHTS / "insightface" / "models" / "miniature", "CPU", 256)


@pytest.fixture(autouse=True)
def previews(tmp_path: Path) -> Iterator[None]:
    """Keep the nodes' previews out of the host's own folder."""
    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(tmp_path))
    yield
    folder_paths.set_temp_directory(before)


def draw(person: int, n: int) -> torch.Tensor:
    picture = render(draw_identity(40 + person), draw_scene(300 + 17 * person + n, "photo"))
    return torch.from_numpy(picture.pixels).float()[None] / 255


BLANK = torch.full((1, SIDE, SIDE, 3), 0.4)


def vector(analysis: Any, image: torch.Tensor) -> np.ndarray:
    """Of length 1."""
    found = detect(analysis, read_photo(image[0]))[0].embedding
    return found / np.linalg.norm(found)


def test_percent_of_the_persons_own_photos(analysis: Any) -> None:
    photos = [draw(0, n) for n in range(3)]
    pictures = torch.cat([draw(0, 4), BLANK, draw(1, 0)])
    text, mean, annotated, percent = FaceSimilarity.execute(
        analysis, torch.cat(photos), pictures, threshold=0.7
    ).args
    own = [vector(analysis, photo) for photo in photos]
    rest = [own[1] + own[2], own[0] + own[2], own[0] + own[1]]
    baseline = np.mean([a @ b / np.linalg.norm(b) for a, b in zip(own, rest, strict=True)])
    person = sum(own) / np.linalg.norm(sum(own))
    scores = [vector(analysis, pictures[[n]]) @ person for n in (0, 2)]
    assert mean == pytest.approx(np.mean(scores), abs=1e-5)
    assert percent == pytest.approx(100 * np.mean(scores) / baseline, abs=1e-3)
    first, second, third = text.splitlines()
    ratio = f"{scores[0] / baseline:.0%}"
    assert first.endswith(f"{scores[0]:.3f}, {ratio} of the person's own photos, the same person")
    assert second == "image 2 of 3 (256x256): no face"
    assert third.endswith("another person")
    assert len(annotated) == 3


def test_one_photo_gives_no_percent(analysis: Any) -> None:
    text, mean, _, percent = FaceSimilarity.execute(analysis, draw(0, 0), draw(0, 1)).args
    assert percent == 0
    assert "own photos" not in text
    assert mean > 0.4


def test_verdict_at_the_face_models_threshold(
    analysis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, picture = draw(0, 0), draw(0, 1)
    with pytest.raises(FaceError, match=r"threshold of recogniser\.onnx is not known"):
        FaceSimilarity.execute(analysis, photo, picture, verdict_at="face model")
    score = float(vector(analysis, photo) @ vector(analysis, picture))
    for threshold, verdict in ((score - 0.01, "the same person"), (score + 0.01, "another person")):
        monkeypatch.setitem(similarity.PACK_THRESHOLDS, "recogniser.onnx", threshold)
        text = FaceSimilarity.execute(analysis, photo, picture, verdict_at="face model").args[0]
        assert text.endswith(verdict)


def test_the_best_come_first(analysis: Any) -> None:
    pictures = torch.cat([draw(1, 0), BLANK, draw(0, 1), draw(0, 2)])
    best, text, score = PickBest.execute(analysis, draw(0, 0), pictures, 2).args
    person = vector(analysis, draw(0, 0))
    scores = {n: float(vector(analysis, pictures[[n]]) @ person) for n in (0, 2, 3)}
    order = sorted(scores, key=lambda n: -scores[n])
    assert torch.equal(best, pictures[order[:2]])
    assert score == pytest.approx(scores[order[0]], abs=1e-5)
    lines = text.splitlines()
    assert lines == [
        f"image {order[0] + 1} of 4 (256x256): {scores[order[0]]:.3f}, kept",
        f"image {order[1] + 1} of 4 (256x256): {scores[order[1]]:.3f}, kept",
        f"image {order[2] + 1} of 4 (256x256): {scores[order[2]]:.3f}, left out",
        "image 2 of 4 (256x256): no face, left out",
    ]


def test_more_are_wanted_than_there_are_and_none_has_a_face(analysis: Any) -> None:
    best, _, score = PickBest.execute(analysis, draw(0, 0), BLANK.repeat(2, 1, 1, 1), 5).args
    assert len(best) == 2
    assert score == 0


def test_whole_pictures_and_faces_are_scored(analysis: Any) -> None:
    register()
    file = WEIGHTS / "infinite-id-miniature-clip-vision.safetensors"
    vision = comfy.clip_vision.load(str(file))
    pictures, photos = torch.cat([draw(0, 1), BLANK]), torch.cat([draw(0, 0), draw(0, 2)])
    text, clip_t, clip_i, face = ScorePictures.execute(
        pictures, "", clip_vision=vision, face_analysis=analysis, reference=photos
    ).args

    def embed(images: torch.Tensor) -> torch.Tensor:
        found = [vision.encode_image(image[None])["image_embeds"][0] for image in images]
        return torch.nn.functional.normalize(torch.stack(found), dim=1)

    with torch.inference_mode():
        assert clip_i == pytest.approx(float((embed(pictures) @ embed(photos).T).mean()), abs=1e-4)
    person = vector(analysis, photos[:1]) + vector(analysis, photos[1:])
    similar = vector(analysis, pictures[:1]) @ person / np.linalg.norm(person)
    assert face == pytest.approx(similar / 2, abs=1e-5)
    assert clip_t == 0
    assert "face no face" in text.splitlines()[1]
    assert text.splitlines()[2].startswith("mean: CLIP-I")


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match=r"Nothing can be scored\. Connect clip and clip_vision"):
        ScorePictures.execute(BLANK, "a photo")


def fake(monkeypatch: pytest.MonkeyPatch, *directions: tuple[float, float]) -> None:
    """Let the nodes find one face in each picture, of these directions in turn."""
    turn = iter(directions)

    def find(*_: Any) -> list[Face]:
        box = np.array([1, 1, 9, 9], np.float32)
        return [Face(box, np.ones((5, 2), np.float32), 1.0, np.array(next(turn), np.float32))]

    monkeypatch.setattr(detection, "detect", find)


def test_photos_that_are_unlike_give_no_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    """In percent of a negative number, a stranger would be more like the person."""
    fake(monkeypatch, (1, 0), (-1, 0.5), (1, 1))
    text, mean, _, percent = FaceSimilarity.execute(None, BLANK.repeat(2, 1, 1, 1), BLANK).args
    assert mean != 0
    assert percent == 0
    assert "own photos" not in text


def test_pictures_that_are_equally_alike_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, (1, 0), (1, 1), (1, 0), (1, 1), (2, 0))
    pictures = torch.linspace(0, 1, 4).view(4, 1, 1, 1).expand(4, 16, 16, 3)
    best, text, score = PickBest.execute(None, BLANK, pictures, 3).args
    assert torch.equal(best, pictures[[1, 3, 0]])
    assert [line.split()[1] for line in text.splitlines()] == ["2", "4", "1", "3"]
    assert score == 1


@pytest.mark.parametrize("count", [0, 1, 4])
def test_batches_of_all_sizes(analysis: Any, count: int) -> None:
    """None is refused in words; the reference may be the batch itself."""
    pictures = draw(0, 0).repeat(count, 1, 1, 1)
    for run in (
        lambda: PickBest.execute(analysis, draw(0, 0), pictures, 9).args[2],
        lambda: FaceSimilarity.execute(analysis, draw(0, 0), pictures).args[1],
        lambda: ScorePictures.execute(
            pictures, "", face_analysis=analysis, reference=draw(0, 0)
        ).args[3],
        lambda: PickBest.execute(analysis, pictures, pictures, 2).args[2],
    ):
        if count:
            assert run() == pytest.approx(1, abs=1e-5)
        else:
            with pytest.raises(ValueError, match=r"empty batch: no (image|reference) is in it"):
                run()


def test_no_face_in_any_picture_and_in_the_reference(analysis: Any) -> None:
    pictures = BLANK.repeat(2, 1, 1, 1)
    text, mean, annotated, percent = FaceSimilarity.execute(analysis, draw(0, 0), pictures).args
    assert (mean, percent, len(annotated)) == (0, 0, 2)
    assert text.count("no face") == 2
    assert ScorePictures.execute(pictures, "", face_analysis=analysis, reference=draw(0, 0)).args[
        1:
    ] == (0, 0, 0)
    with pytest.raises(FaceError, match="No face found in reference 1 of 2"):
        PickBest.execute(analysis, pictures, pictures, 1)
