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
from pack.infinite_id.faces.face import FaceError, load_analysis
from pack.infinite_id.faces.photo import read_photo
from pack.miniature.faces import render
from pack.miniature.host import register
from pack.miniature.shapes import WEIGHTS
from pack.miniature.world.canvas import SIDE
from pack.miniature.world.identity import draw_identity
from pack.miniature.world.scene import draw_scene
from pack.nodes import similarity
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
