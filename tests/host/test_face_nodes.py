"""Face masks, and crops of small faces, through the nodes on real photos."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
import nodes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pack.dev.photos import photos
from pack.infinite_id.faces.crops import FaceCrops, Square
from pack.infinite_id.faces.detection import detect
from pack.infinite_id.faces.face import Face, FaceError
from pack.infinite_id.faces.model_pack import list_packs, load_analysis
from pack.infinite_id.faces.photo import read_photo
from pack.infinite_id.grid import Grid
from pack.nodes.contact_sheet import ContactSheet
from pack.nodes.faces import CropFaces, FaceMasks, PasteFaces
from PIL import Image

if TYPE_CHECKING:
    from pack.tests.host.world import World

GROUP = 6  # faces in the group photo, each over 100 pixels high

MASKS: dict[str, Any] = {
    "order": "left to right",
    "shape": "oval",
    "face": 0,
    "grow": 1.0,
    "feather": 0,
}
CROPS: dict[str, Any] = {
    "size": 512,
    "max_face": 0,
    "context": 2.0,
    "grow": 1.2,
    "feather": 0.1,
    "limit": 8,
}


@pytest.fixture(scope="module")
def analysis() -> Any:
    packs = list_packs([Path(os.environ["INFINITE_ID_FACE_ROOT"])])
    return load_analysis(packs["yunet-fr"], "auto", 640)


@pytest.fixture(autouse=True)
def previews(tmp_path: Path) -> Iterator[None]:
    """Keep the nodes' previews out of the host's own folder."""
    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(tmp_path))
    yield
    folder_paths.set_temp_directory(before)


def load(name: str, mode: str = "RGB") -> torch.Tensor:
    pixels = np.asarray(Image.open(photos()[name]).convert(mode)).copy()
    return torch.from_numpy(pixels).float()[None] / 255


@pytest.fixture(scope="module")
def group() -> torch.Tensor:
    return load("group")


def draw(analysis: Any, image: torch.Tensor, **changes: Any) -> Any:
    return FaceMasks.execute(analysis, image, **{**MASKS, **changes}).args


def cut(analysis: Any, image: torch.Tensor, **changes: Any) -> Any:
    return CropFaces.execute(analysis, image, **{**CROPS, **changes}).args


def paste(face_crops: FaceCrops, crops: torch.Tensor) -> torch.Tensor:
    return PasteFaces.execute(face_crops, crops).args[0]


def changed(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    return (after != before).any(-1)


# --- Masks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["oval", "box", "column"])
def test_every_face_of_the_group_has_its_mask(
    analysis: Any, group: torch.Tensor, shape: str
) -> None:
    """From left to right; each holds its own face's landmarks and no other's."""
    masks, count, annotated = draw(analysis, group, shape=shape)
    assert count == len(masks) == GROUP
    assert masks.shape[1:] == group.shape[1:3]
    assert annotated.shape == group.shape
    faces = sorted(detect(analysis, read_photo(group[0])), key=lambda face: face.box[0])
    for number, mask in enumerate(masks):
        for other, face in enumerate(faces):
            x, y = face.landmarks.round().astype(int).T
            assert (mask[y, x] == float(number == other)).all()


def test_order_and_choice(analysis: Any, group: torch.Tensor) -> None:
    masks, *_ = draw(analysis, group, order="largest first", shape="box")
    sizes = masks.sum((1, 2))
    assert (sizes[1:] < 1.01 * sizes[:-1]).all()  # boxes are rounded to pixels
    (third,), count, _ = draw(analysis, group, order="largest first", shape="box", face=3)
    assert torch.equal(third, masks[2])
    assert count == GROUP


def test_masks_of_a_batch(analysis: Any, group: torch.Tensor) -> None:
    """A second, mirrored picture: its masks are the first one's, mirrored, in reverse order."""
    masks, count, annotated = draw(
        analysis, torch.cat([group, group.flip(2)]), shape="box", grow=1.5
    )
    assert count == len(masks) == 2 * GROUP
    assert len(annotated) == 2
    mirrored = masks[GROUP:].flip([0, 2])
    overlap = (masks[:GROUP] * mirrored).sum((1, 2)) / masks[:GROUP].sum((1, 2))
    assert overlap.min() > 0.7


def test_picture_without_a_face_is_named(analysis: Any, group: torch.Tensor) -> None:
    batch = torch.cat([group, torch.full_like(group, 0.5)])
    with pytest.raises(FaceError, match=r"No face found in picture 2 of 2 \(1280x886\)"):
        draw(analysis, batch)


def test_number_that_is_too_high_is_explained(analysis: Any, group: torch.Tensor) -> None:
    with pytest.raises(FaceError, match="Face 7 is wanted, and 6 found in picture 1 of 1"):
        draw(analysis, group, face=7)


# --- Crops -------------------------------------------------------------------------------------


def test_every_crop_holds_its_face(analysis: Any, group: torch.Tensor) -> None:
    """The nets find the same person again, larger, and where the mask is."""
    crops, masks, face_crops, info = cut(analysis, group)
    assert crops.shape == (GROUP, 512, 512, 3)
    assert masks.shape == (GROUP, 512, 512)
    assert info.startswith(f"picture 1: {GROUP} found, cropped at heights of ")
    before = detect(analysis, read_photo(group[0]))
    for crop, mask, taken, known in zip(crops, masks, face_crops.cuts, before, strict=True):
        faces = detect(analysis, read_photo(crop))
        found = max(faces, key=lambda face: similarity(face, known))
        assert similarity(found, known) > 0.45  # strangers are below .35
        x, y = found.landmarks.round().astype(int).T
        assert mask[y, x].mean() > 0.95
        assert found.size[1] == pytest.approx(known.size[1] * 512 / taken.square.side, rel=0.15)


def similarity(a: Face, b: Face) -> float:
    lengths = np.linalg.norm(a.embedding) * np.linalg.norm(b.embedding)
    return float(a.embedding @ b.embedding / lengths)


def test_only_small_faces_and_not_too_many(analysis: Any, group: torch.Tensor) -> None:
    """Two pictures, one with faces of half the size."""
    half = F.interpolate(group.movedim(-1, 1), scale_factor=0.5, mode="area").movedim(1, -1)
    both = group.repeat(2, 1, 1, 1)
    both[1] = 0.5
    both[1, :443, :640] = half
    *_, face_crops, info = cut(analysis, both, max_face=100)
    assert [c.picture for c in face_crops.cuts] == [1] * GROUP
    assert info.splitlines()[0] == f"picture 1: {GROUP} found, none cropped"
    *_, face_crops, _ = cut(analysis, both, limit=2)
    assert [c.picture for c in face_crops.cuts] == [0, 0, 1, 1]


@pytest.mark.parametrize("size", [512, 1024])
def test_crops_go_back_where_they_came_from(analysis: Any, group: torch.Tensor, size: int) -> None:
    crops, _, face_crops, _ = cut(analysis, group, size=size)
    back = paste(face_crops, crops)
    error = (back - group).abs()[changed(back, group)] * 255
    print(
        f"\n{size}: mean {error.mean():.2f}, 99th {error.quantile(0.99):.2f}, max {error.max():.1f}"
    )
    assert error.mean() < 0.5
    assert error.max() < 10


@pytest.mark.parametrize("name", ["obama", "astronaut", "obama_partial_face"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_odd_sizes_and_channels(analysis: Any, name: str, mode: str) -> None:
    """A face in a small odd picture, of which the crop is mostly mirrored surroundings."""
    image = Image.open(photos()[name]).convert(mode).resize((211, 307))
    picture = torch.from_numpy(np.asarray(image).reshape(1, 307, 211, -1).copy()).float() / 255
    picture[..., 3:] = 0.25
    crops, masks, face_crops, _ = cut(analysis, picture, context=4.0)
    assert crops.shape == (1, 512, 512, 3)
    result = paste(face_crops, 1 - crops)
    assert result.shape == (1, 307, 211, {"RGB": 3, "RGBA": 4, "L": 3}[mode])
    assert (result[..., 3:] == 0.25).all()
    touched = changed(result, picture)
    zoom = 512 / face_crops.cuts[0].square.side
    assert touched.sum() == pytest.approx(float((masks > 0).sum()) / zoom**2, rel=0.15)


@pytest.mark.parametrize("case", ["no small face", "no face"])
def test_without_a_small_face_the_queue_goes_on(
    analysis: Any, group: torch.Tensor, case: str
) -> None:
    """The crop shows the largest face of all pictures, or the first one's middle."""
    image = torch.full((2, 333, 251, 3), 0.5)
    if case == "no small face":
        image = torch.cat([torch.full_like(group, 0.5), group])
    crops, masks, face_crops, info = cut(analysis, image, max_face=50)
    assert crops.shape == (1, 512, 512, 3)
    assert not masks.any()
    assert "Paste Faces leaves it out" in info
    assert torch.equal(paste(face_crops, 1 - crops), image)
    (taken,) = face_crops.cuts
    if case == "no face":
        assert (taken.picture, taken.square) == (0, Square(0, 41, 251))
        return
    largest = detect(analysis, read_photo(group[0]))[0]
    corner = np.array([taken.square.left, taken.square.top])
    assert taken.picture == 1
    assert taken.square.side == round(2 * max(largest.size))
    assert (corner <= largest.box[:2]).all()
    assert (largest.box[2:] <= corner + taken.square.side).all()


def test_faces_drawn_again_by_stock_nodes(analysis: Any, group: torch.Tensor, least: World) -> None:
    """Through VAE Encode, Set Latent Noise Mask, KSampler and VAE Decode."""
    file = "miniature-least.safetensors"
    model, _, vae = nodes.CheckpointLoaderSimple().load_checkpoint(file)
    crops, masks, face_crops, _ = cut(analysis, group, size=128, limit=2)
    with torch.inference_mode():
        (latent,) = nodes.VAEEncode().encode(vae, crops)
        (latent,) = nodes.SetLatentNoiseMask().set_mask(latent, masks)
        (drawn,) = nodes.common_ksampler(
            model, 1, 2, 3.0, "euler", "normal", least.positive, least.negative, latent, 0.5
        )
        (refined,) = nodes.VAEDecode().decode(vae, drawn)
        result = paste(face_crops, refined)
    touched = changed(result, group)[0]
    allowed = torch.zeros_like(touched)
    for taken in face_crops.cuts:
        allowed[taken.square.window(group.shape[1:3])] |= taken.mask > 0
    assert not (touched & ~allowed).any()
    assert touched.sum() > 0.95 * allowed.sum()


def test_wrong_crops_are_refused(analysis: Any, group: torch.Tensor) -> None:
    crops, _, face_crops, _ = cut(analysis, group, size=64)
    with pytest.raises(ValueError, match=r"needs 6 square crops.*got 5 of 64x64"):
        paste(face_crops, crops[1:])
    with pytest.raises(ValueError, match=r"needs 6 square crops.*got 6 of 64x32"):
        paste(face_crops, crops[:, :32])
    crops[2, 5, 5, 1] = float("nan")
    with pytest.raises(ValueError, match=r"not numbers \(NaN\)"):
        paste(face_crops, crops)


@pytest.mark.parametrize("node", [draw, cut])
def test_picture_that_is_none_is_named(analysis: Any, node: Any) -> None:
    image = torch.rand(2, 64, 64, 3)
    image[1, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"cannot use picture 2 of 2 \(64x64\): .*not numbers"):
        node(analysis, image)


# --- Contact sheet -----------------------------------------------------------------------------


def test_contact_sheet_of_crops_and_masks(analysis: Any, group: torch.Tensor) -> None:
    crops, masks, *_ = cut(analysis, group, size=64)
    output = ContactSheet.execute(
        [crops],
        labels=["one\ntwo"],
        row_labels=[""],
        title=[""],
        columns=[0],
        cell_size=[0],
        gap=[4],
        margin=[2],
        images_3=[masks[..., None]],
    )
    (sheet,) = output.args
    assert sheet.shape[2] == 2 + GROUP * 68 - 4 + 2
    assert torch.allclose(sheet[0, 2:66, 70:134], crops[1], atol=0.6 / 255)
    saved = output.ui.as_dict()["images"][0]["filename"]
    assert Image.open(Path(folder_paths.get_temp_directory(), saved)).size == sheet.shape[2:0:-1]


SHEET: dict[str, Any] = {
    "labels": [""],
    "row_labels": [""],
    "title": [""],
    "columns": [0],
    "cell_size": [0],
    "gap": [0],
    "margin": [0],
}


def find_colours(sheet: torch.Tensor) -> list[list[int]]:
    """The red values of 255 of a sheet's cells, by rows; text and paper have green in them."""
    rows: dict[int, dict[int, int]] = {}
    coloured = (255 * sheet[0, ..., 0]).round().int() * (sheet[0, ..., 1] == 0)
    for red in coloured.unique().tolist()[1:]:
        y, x = (coloured == red).nonzero().min(0).values.tolist()
        assert (coloured[y : y + 32, x : x + 32] == red).all()
        rows.setdefault(y, {})[x] = red
    return [[row[x] for x in sorted(row)] for _, row in sorted(rows.items())]


def flat(*reds: int) -> torch.Tensor:
    """One picture of one colour for each red value of 255."""
    pictures = torch.zeros(len(reds), 32, 32, 3)
    pictures[..., 0] = torch.tensor(reds)[:, None, None] / 255
    return pictures


def test_contact_sheet_of_a_grid() -> None:
    """Cells stand where their values do, with several pictures in a cell as well."""
    grid = Grid.read("0.5\n1", "photo\nstyle\nnone")
    reds = [[20, 30], [40, 50], [60, 70]]
    cells = [flat(red) for row in reds for red in row]
    (sheet,) = ContactSheet.execute(cells, **SHEET, grid=[grid]).args
    assert find_colours(sheet) == reds
    plain = ContactSheet.execute(cells, **{**SHEET, "columns": [2]}).args[0]
    assert sheet.shape[1] > plain.shape[1], "headings below the cells"
    assert sheet.shape[2] > plain.shape[2], "headings beside the rows"
    pairs = [flat(red, red + 5) for row in reds for red in row]
    (sheet,) = ContactSheet.execute(pairs, **SHEET, grid=[grid]).args
    expected = [[red + more for red in row for more in (0, 5)] for row in reds]
    assert find_colours(sheet) == expected


def test_contact_sheet_of_a_list() -> None:
    """Pictures that come one by one stand in one sheet, with one label each."""
    (sheet,) = ContactSheet.execute(
        [flat(20), flat(30), flat(40)], **{**SHEET, "labels": ["a", "b", "c"]}
    ).args
    assert find_colours(sheet) == [[20, 30, 40]]


def test_contact_sheet_of_a_grid_with_missing_cells() -> None:
    with pytest.raises(ValueError, match=r"brings 1 batches, and the grid has 2 x 1 cells"):
        ContactSheet.execute([flat(20, 30)], **SHEET, grid=[Grid.read("1\n2", "")])
