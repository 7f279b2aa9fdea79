"""Real photos through real onnxruntime nets, by the code that users run."""

import os
from itertools import combinations
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch
from pack.dev.photos import photos
from pack.infinite_id.faces.alignment import align, draw_mask
from pack.infinite_id.faces.annotate import CHOSEN, WRONG
from pack.infinite_id.faces.detection import detect
from pack.infinite_id.faces.face import Face, FaceError
from pack.infinite_id.faces.model_pack import list_packs, load_analysis
from pack.infinite_id.faces.photo import read_photo, to_image
from pack.infinite_id.metrics.scores import cosine
from pack.nodes.similarity import FaceSimilarity
from PIL import Image

HE = ("obama", "obama2", "obama3", "obama_partial_face", "obama_partial_face2")
OTHERS = ("biden", "astronaut")
PACK = "yunet-fr"


@pytest.fixture(scope="module")
def pack() -> Path:
    return list_packs([Path(os.environ["INFINITE_ID_FACE_ROOT"])])[PACK]


@pytest.fixture(scope="module")
def analysis(pack: Path) -> Any:
    return load_analysis(pack, "auto", 640)


def photo(name: str) -> np.ndarray:
    pixels = np.asarray(Image.open(photos()[name]).convert("RGB"))
    return np.ascontiguousarray(pixels[..., ::-1])


@pytest.fixture(scope="module")
def faces(analysis: Any) -> dict[str, Face]:
    found = {name: detect(analysis, photo(name))[0] for name in HE + OTHERS}
    group = sorted(detect(analysis, photo("group")), key=lambda face: face.box[0])
    return found | {f"group {index}": face for index, face in enumerate(group)}


def alike(a: Face, b: Face) -> float:
    return cosine(a.embedding, b.embedding)


def test_finds_every_face(faces: dict[str, Face]) -> None:
    assert len(faces) == len(HE) + len(OTHERS) + 6


def test_tells_people_apart(faces: dict[str, Face]) -> None:
    """The same man above .5; he and anybody else below .3; any two strangers below .35."""
    for a, b in combinations(faces, 2):
        print(f"{a:20} {b:20} {alike(faces[a], faces[b]):6.3f}")
    same = [alike(faces[a], faces[b]) for a, b in combinations(HE, 2)]
    others = [name for name in faces if name not in HE]
    he_and_others = [alike(faces[a], faces[b]) for a in HE for b in others]
    strangers = [alike(faces[a], faces[b]) for a, b in combinations(others, 2)]
    assert min(same) > 0.5
    assert max(he_and_others) < 0.3
    assert max(strangers) < 0.35


def test_largest_face_comes_first(analysis: Any) -> None:
    sizes = [np.prod(face.size) for face in detect(analysis, photo("group"))]
    assert sizes == sorted(sizes, reverse=True)


def test_face_that_fills_the_photo_is_found(analysis: Any, faces: dict[str, Face]) -> None:
    left, top, right, bottom = faces["obama"].box.astype(int)
    (close, *_) = detect(analysis, np.ascontiguousarray(photo("obama")[top:bottom, left:right]))
    assert alike(close, faces["obama"]) > 0.5
    assert close.landmarks.min() > 0
    assert close.landmarks.max() < max(right - left, bottom - top)


@pytest.mark.parametrize("name", ["obama", "obama2", "obama3", "biden", "astronaut"])
@pytest.mark.parametrize("size", [640, 1024, 2048])
def test_large_face_is_not_taken_in_parts(
    pack: Path, faces: dict[str, Face], name: str, size: int
) -> None:
    """A detector that looks closely sees eyes and mouths in a face that fills the photo."""
    close = Image.fromarray(photo(name)).crop(tuple(faces[name].box))
    large = np.asarray(close.resize((4 * close.width, 4 * close.height)))
    found = detect(load_analysis(pack, "CPU", size), large)
    assert len(found) == 1
    assert min(found[0].size) > 0.8 * min(large.shape[:2])
    assert alike(found[0], faces[name]) > 0.5


@pytest.mark.parametrize("size", [(480, 640), (64, 64), (300, 2000)])
def test_no_face_in_what_is_none(analysis: Any, size: tuple[int, int]) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert detect(analysis, drawn) == []
    assert detect(analysis, np.zeros_like(drawn)) == []


@pytest.mark.parametrize("name", HE + OTHERS)
def test_alignment_and_mask(faces: dict[str, Face], name: str) -> None:
    """The crop has its size; the mask covers the landmarks and little more than the box."""
    source, face = photo(name), faces[name]
    crop = align(source, face, 224)
    assert crop.shape == (224, 224, 3)
    mask = draw_mask(source.shape[:2], face)
    x, y = face.landmarks.round().astype(int).T
    inside = (x >= 0) & (x < source.shape[1]) & (y >= 0) & (y < source.shape[0])
    assert (mask[y[inside], x[inside]] == 1).all()
    assert 0.5 < mask.sum() / np.prod(face.size) < 1.6


def test_alignment_finds_the_same_face_again(analysis: Any, faces: dict[str, Face]) -> None:
    for name in ("obama", "biden", "astronaut"):
        (face, *_) = detect(analysis, align(photo(name), faces[name], 448))
        assert alike(face, faces[name]) > 0.7
        left_eye, right_eye = face.landmarks[:2]
        assert abs(left_eye[1] - right_eye[1]) < 10
        assert 0.38 < (left_eye[1] + right_eye[1]) / 2 / 448 < 0.52


def test_photo_and_image_are_inverse() -> None:
    source = photo("obama")
    assert np.array_equal(read_photo(to_image(source)[0]), source)


@pytest.mark.parametrize("nesting", ["{0}", "models/{0}", "models/{0}/{0}", "{0}/{0}"])
def test_packs_are_found_where_people_put_them(pack: Path, tmp_path: Path, nesting: str) -> None:
    target = tmp_path / nesting.format("mine")
    target.mkdir(parents=True)
    for file in pack.glob("*.onnx"):
        (target / file.name).symlink_to(file)
    assert list_packs([tmp_path]) == {"mine": target}


@pytest.mark.parametrize(("kept", "missing"), [("rec_fr", "detector"), ("det_yunet", "recogniser")])
def test_incomplete_pack_is_explained(pack: Path, tmp_path: Path, kept: str, missing: str) -> None:
    (tmp_path / f"{kept}.onnx").symlink_to(pack / f"{kept}.onnx")
    with pytest.raises(FaceError, match=rf"holds {kept}\.onnx.*{missing}"):
        load_analysis(tmp_path, "CPU", 640)


def test_missing_provider_is_explained(pack: Path) -> None:
    with pytest.raises(
        FaceError, match=r"no DirectML provider here; it has .*CPUExecutionProvider"
    ):
        load_analysis(pack, "DirectML", 640)


# --- Face Similarity ---------------------------------------------------------------------------


def image(name: str, width: int = 300) -> torch.Tensor:
    """As an IMAGE, all of one size."""
    pixels = Image.fromarray(photo(name)[..., ::-1])
    height = round(1.25 * width)
    scaled = pixels.resize((width, round(width * pixels.height / pixels.width)))
    square = np.zeros((height, width, 3), np.uint8)
    square[: min(height, scaled.height)] = np.asarray(scaled)[:height]
    return to_image(square[..., ::-1])


def measure(
    analysis: Any, reference: torch.Tensor, images: torch.Tensor, **settings: Any
) -> tuple[list[str], float, torch.Tensor]:
    text, mean, annotated, _ = FaceSimilarity.execute(
        analysis, reference, images, **settings
    ).result
    return text.splitlines(), mean, annotated


@pytest.fixture(autouse=True)
def temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nodes put their previews."""
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))


def scores(lines: list[str]) -> list[float]:
    return [float(line.split(": ")[1].split(",")[0]) for line in lines]


def test_node_tells_people_apart(analysis: Any) -> None:
    """Each man against the mean of one's photos: he above .5, the others below .35."""
    reference = torch.cat([image("obama"), image("obama2")])
    he = torch.cat([image(name) for name in HE[2:]])
    lines, mean, _ = measure(analysis, reference, he)
    print(*lines, sep="\n")
    assert min(scores(lines)) > 0.5
    assert mean == pytest.approx(np.mean(scores(lines)), abs=1e-3)
    assert all(line.endswith(", the same person") for line in lines)
    others = torch.cat([image(name) for name in OTHERS])
    lines, _, _ = measure(analysis, reference, others)
    print(*lines, sep="\n")
    assert max(scores(lines)) < 0.35
    assert all(line.endswith(", another person") for line in lines)
    group = to_image(photo("group"))
    lines, mean, _ = measure(analysis, reference, group)
    assert scores(lines)[0] < 0.35
    assert lines[0].startswith("image 1 of 1 (1280x886): ")


def test_node_finds_every_face(analysis: Any, faces: dict[str, Face]) -> None:
    """Each of the six in the group, given alone, is found among the others again."""
    group = to_image(photo("group"))
    for index in range(6):
        left, top, right, bottom = faces[f"group {index}"].box.round().astype(int)
        alone = torch.zeros_like(group)
        alone[:, top - 20 : bottom + 20, left - 20 : right + 20] = group[
            :, top - 20 : bottom + 20, left - 20 : right + 20
        ]
        lines, mean, _ = measure(analysis, alone, group)
        print(*lines)
        assert mean > 0.5


def test_node_goes_on_without_a_face(analysis: Any) -> None:
    blank = torch.zeros_like(image("obama"))
    lines, mean, annotated = measure(analysis, image("obama"), torch.cat([blank, image("obama2")]))
    assert lines[0] == "image 1 of 2 (300x375): no face"
    assert mean == pytest.approx(scores(lines[1:])[0], abs=1e-3)
    assert annotated.shape == (2, 512, 410, 3)
    lines, mean, _ = measure(analysis, image("obama"), blank)
    assert lines == ["image 1 of 1 (300x375): no face"]
    assert mean == 0.0


def test_node_wants_a_face_in_the_reference(analysis: Any) -> None:
    blank = torch.zeros_like(image("obama"))
    with pytest.raises(FaceError, match=r"No face found in reference 2 of 2 \(300x375\)"):
        measure(analysis, torch.cat([image("obama"), blank]), image("obama"))


def test_threshold_changes_words_and_colours_only(analysis: Any) -> None:
    arguments = (analysis, image("obama"), image("obama2"))
    lax, mean, green = measure(*arguments, threshold=0.3)
    strict, same_mean, red = measure(*arguments, threshold=0.95)
    assert lax[0].replace("the same person", "another person") == strict[0] != lax[0]
    assert mean == same_mean
    for annotated, colour in ((green, CHOSEN), (red, WRONG)):
        pixels = (annotated[0] * 255).round().to(torch.uint8)
        assert (pixels == torch.tensor(colour, dtype=torch.uint8)).all(dim=2).sum() > 500
