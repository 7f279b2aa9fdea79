"""Contact sheets, masks and crops, against a few lines of numpy each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pack.infinite_id.faces.crops import (
    FaceCrops,
    Shape,
    Square,
    crop,
    crop_mask,
    cut_faces,
    cut_untouched,
    draw_masks,
    draw_overview,
    paste,
    place_square,
    resize,
    soften,
)
from pack.infinite_id.faces.face import Face
from pack.infinite_id.sheet import count_columns, draw_sheet, wrap
from PIL import ImageFont
from torch import Tensor

ARCFACE = np.array([[38.29, 51.7], [73.53, 51.5], [56.03, 71.74], [41.55, 92.37], [70.73, 92.2]])
OVAL = np.array([14.0, 2.0, 98.0, 118.0])
"""The box around the oval that is drawn over the landmarks above."""

PLAIN = {"labels": [], "row_labels": [], "title": "", "columns": 0, "cell_size": 0}


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Pictures in steps of 1/255."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator).float() / 255


def smooth(height: int, width: int, channels: int = 3) -> Tensor:
    """A picture without an edge, so that scaling back and forth does little to it."""
    y, x = torch.linspace(0, 6, height)[:, None, None], torch.linspace(0, 6, width)[:, None]
    return 0.5 + 0.4 * torch.sin(x + torch.arange(channels)) * torch.cos(y)


def a_face(x: float, y: float, height: float = 58.0) -> Face:
    """An upright face about a point."""
    scale = height / 116

    def place(points: np.ndarray) -> np.ndarray:
        return ((points - (56, 60)) * scale + (x, y)).astype(np.float32)

    box = place(OVAL.reshape(2, 2)).reshape(4)
    return Face(box, place(ARCFACE), 0.9, np.ones(512, np.float32))


# --- Contact sheet -----------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [0, 1, 2, 3, 5])
def test_pictures_stand_in_the_grid_pixel_by_pixel(columns: int) -> None:
    """Two batches, the second in rows of its own; gaps and margin are paper."""
    first, second = noise(3, 21, 34, 3), noise(2, 21, 34, 3, seed=1)
    sheet = draw_sheet([first, second], **{**PLAIN, "columns": columns}, gap=5, margin=7)
    across = min(columns or 3, 3)
    expected = torch.ones_like(sheet)
    row = 0
    for batch in (first, second):
        for index, picture in enumerate(batch):
            top = 7 + (row + index // across) * (21 + 5)
            left = 7 + index % across * (34 + 5)
            expected[0, top : top + 21, left : left + 34] = picture
        row += math.ceil(len(batch) / across)
    assert sheet.shape == (1, 14 + row * 26 - 5, 14 + across * 39 - 5, 3)
    assert torch.equal(sheet, expected)


@pytest.mark.parametrize(
    ("longest", "wanted", "columns"),
    [(1, 0, 1), (8, 0, 8), (9, 0, 3), (10, 0, 4), (16, 0, 4), (5, 3, 3), (5, 9, 5)],
)
def test_columns(longest: int, wanted: int, columns: int) -> None:
    assert count_columns(longest, wanted) == columns


def ink(area: Tensor) -> bool:
    return bool((area < 0.5).any())


def test_labels_stand_below_their_pictures() -> None:
    """Of three pictures the middle one's label is blank and the last one's missing."""
    white = torch.ones(3, 64, 96, 3)
    sheet = draw_sheet([white], **{**PLAIN, "labels": ["one", "", "", "four"]}, gap=4, margin=0)[0]
    assert sheet.shape[0] > 64
    assert not ink(sheet[:64])
    assert ink(sheet[64:, :96])
    assert not ink(sheet[64:, 96:])


def test_row_labels_and_title() -> None:
    white = torch.ones(2, 64, 96, 3)
    texts = {"row_labels": ["", "on"], "title": "All"}
    sheet = draw_sheet([white, white], **{**PLAIN, **texts}, gap=4, margin=0)[0]
    top, left = sheet.shape[0] - (2 * 64 + 4), sheet.shape[1] - (2 * 96 + 4)
    assert ink(sheet[:top])
    assert not ink(sheet[top:, left:])
    assert not ink(sheet[top : top + 64])
    assert ink(sheet[top + 68 :, :left])


def test_text_grows_with_the_cells() -> None:
    heights = []
    for side in (256, 512):
        white = torch.ones(1, side, side, 3)
        sheet = draw_sheet([white], **{**PLAIN, "labels": ["H"]}, gap=0, margin=0)[0, :, :, 0]
        heights.append(int((sheet < 0.5).any(1).sum()))
    assert heights[1] / heights[0] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    "text", ["größer, ½ €", "日本語", "🙂👨‍👩‍👧", "שלום مرحبا", "\0\x1b\t|", "\u202e\ufffd"]
)
def test_any_text_can_be_drawn(text: str) -> None:
    texts = {"labels": [text], "row_labels": [text], "title": text}
    assert ink(draw_sheet([torch.ones(1, 64, 96, 3)], **{**PLAIN, **texts}, gap=4, margin=4))


def test_long_texts_break_into_lines() -> None:
    font = ImageFont.load_default(12)
    text = "an oil painting of a man " + "extraordinarily" * 8 + " bold"
    lines = wrap(text, font, 90)
    assert all(font.getlength(line) <= 90 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert lines[0] == "an oil painting"
    assert wrap("  ", font, 90) == []


def test_other_sizes_are_fitted_and_centred() -> None:
    """A black square in a cell twice as wide as high, between two bars of paper."""
    sheet = draw_sheet([noise(1, 40, 80, 3), torch.zeros(1, 13, 13, 3)], **PLAIN, gap=0, margin=0)
    cell = sheet[0, 40:]
    assert (cell[:, 20:60] == 0).all()
    assert (cell[:, :20] == 1).all()
    assert (cell[:, 60:] == 1).all()


def test_cell_size_is_the_longer_side() -> None:
    sheet = draw_sheet([noise(2, 40, 80, 3)], **{**PLAIN, "cell_size": 50}, gap=0, margin=0)
    assert sheet.shape == (1, 25, 100, 3)


def test_transparent_pictures_lie_on_paper() -> None:
    image = torch.cat(
        [torch.zeros(1, 2, 2, 3), torch.tensor([[0, 1], [0.6, 0.2]])[None, ..., None]], -1
    )
    sheet = draw_sheet([image], **PLAIN, gap=0, margin=0)
    assert torch.allclose(sheet[0, ..., 0], torch.tensor([[1, 0], [0.4, 0.8]]), atol=1e-6)


def test_picture_with_nan_is_refused() -> None:
    image = noise(2, 8, 8, 3)
    image[1, 3, 4, 0] = float("nan")
    with pytest.raises(ValueError, match="not numbers"):
        draw_sheet([image], **PLAIN, gap=0, margin=0)


# --- Masks -------------------------------------------------------------------------------------


FACES = [a_face(150, 60), a_face(40, 70, 40), a_face(90.4, 50)]
SIZE = (131, 203)


@pytest.mark.parametrize("feather", [0, 1, 7, 90])
def test_soft_edges(feather: int) -> None:
    """Two passes of a Gaussian of half the feather, cut off at the feather."""
    mask = np.zeros(SIZE, np.float32)
    mask[40:90, 60:203] = 1
    at = np.arange(-feather, feather + 1)
    kernel = np.exp(-(at**2) / (2 * (max(feather, 1) / 2) ** 2))
    padded = np.pad(mask.astype(np.float64), feather, mode="edge")
    for axis in (0, 1):
        padded = np.apply_along_axis(
            lambda line: np.convolve(line, kernel / kernel.sum(), "valid"), axis, padded
        )
    assert np.abs(soften(mask, feather) - padded).max() < 1e-5
    assert np.array_equal(soften(mask, feather) > 0, padded > 1e-12)


def test_columns_go_to_the_nearest_face() -> None:
    masks = draw_masks(SIZE, FACES, Shape.COLUMN, grow=2.0, feather=0)
    middles = np.arange(SIZE[1]) + 0.5
    nearest = np.abs(middles[:, None] - [150, 40, 90.4]).argmin(axis=1)
    for index, mask in enumerate(masks):
        assert (mask == (nearest == index)).all()


def test_soft_columns_add_up() -> None:
    masks = draw_masks(SIZE, FACES, Shape.COLUMN, grow=1.0, feather=25)
    assert np.abs(masks.sum(0) - 1).max() < 1e-6
    assert ((masks > 0.1) & (masks < 0.9)).any()


def test_boxes_grow_about_their_centre() -> None:
    (mask,) = draw_masks(SIZE, [a_face(100.5, 60.5, 58)], Shape.BOX, grow=1.5, feather=0)
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    assert (rows[0], rows[-1] + 1) == (17, 104)  # 1.5 * 58 = 87 high
    assert (columns[0], columns[-1] + 1) == (69, 132)  # 1.5 * 42 = 63 wide
    assert mask.sum() == len(rows) * len(columns)


def test_boxes_are_cut_at_the_border() -> None:
    (mask,) = draw_masks(SIZE, [a_face(5, 125)], Shape.BOX, grow=1.0, feather=0)
    assert mask[96:, :26].all()
    assert mask.sum() == (131 - 96) * 26


def test_ovals_grow_about_their_centre() -> None:
    areas = {}
    for grow in (0.5, 1.0, 1.5):
        (mask,) = draw_masks(SIZE, [a_face(100, 64, 58)], Shape.OVAL, grow, feather=0)
        y, x = np.indices(SIZE) * mask
        assert (y.sum() / mask.sum(), x.sum() / mask.sum()) == pytest.approx((64, 100), abs=0.7)
        areas[grow] = mask.sum() / (math.pi * 29 * 21 * grow**2)
    assert list(areas.values()) == pytest.approx([1, 1, 1], rel=0.12)


def test_overview_tints_the_masks_and_numbers_the_faces() -> None:
    photo = np.full((*SIZE, 3), 100, np.uint8)
    masks = draw_masks(SIZE, FACES, Shape.COLUMN, grow=1.0, feather=0)
    overview = draw_overview(photo, FACES, masks)
    assert overview.shape == photo.shape
    colours = {tuple(overview[-1, x]) for x in (150, 40, 90)}
    assert len(colours) == 3
    assert (100, 100, 100) not in colours
    assert (photo == 100).all()


# --- Crops -------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", [(0, 0), (100.3, 60.8), (203, 131), (199, 2)])
@pytest.mark.parametrize("side", [1, 40, 131, 150, 203, 400])
def test_squares_stay_inside_where_they_fit(centre: tuple[float, float], side: int) -> None:
    square = place_square(SIZE, np.array(centre, np.float32), side)
    for start, length, middle in zip((square.left, square.top), SIZE[::-1], centre, strict=True):
        if side <= length:
            assert 0 <= start <= length - side
            assert abs(start + side / 2 - middle) <= max(side / 2, 0.5)
        else:
            assert start < 0 <= start + side - length
            assert abs(-start - (start + side - length)) <= 1


@pytest.mark.parametrize("square", [Square(10, 20, 60), Square(-30, -60, 251), Square(-9, 0, 131)])
@pytest.mark.parametrize("channels", [3, 4])
def test_crops_show_the_picture_and_its_mirror_image(square: Square, channels: int) -> None:
    image = noise(*SIZE, channels)
    wide = np.pad(image.numpy(), ((100, 120), (100, 120), (0, 0)), mode="reflect")
    top, left = square.top + 100, square.left + 100
    expected = wide[top : top + square.side, left : left + square.side]
    assert np.array_equal(crop(image, square, square.side).numpy(), expected)


@pytest.mark.parametrize("side", [37, 120])
def test_scaling_neither_aliases_nor_rounds(side: int) -> None:
    """A grating too fine to be kept turns grey; a ramp stays one, between the 256 steps too."""
    stripes = (torch.arange(400) % 2).float()[None, :, None].expand(400, 400, 3)
    assert (resize(stripes, side)[:, 3:-3] - 0.5).abs().max() < 0.03
    ramp = torch.linspace(0.1, 0.9, 400)[None, :, None].expand(400, 400, 3)
    centres = (torch.arange(side) + 0.5) * 400 / side - 0.5
    expected = 0.1 + 0.8 * centres / 399
    found = resize(ramp, side)[side // 2, :, 0]
    assert (found - expected)[5:-5].abs().max() < 2e-4
    assert (found * 255 - (found * 255).round()).abs().max() > 0.2


def crops_of(pictures: Tensor, faces: list[list[Face]], feather: float = 0.1) -> FaceCrops:
    size = pictures.shape[1:3]
    cuts = [
        cut
        for index, found in enumerate(faces)
        for cut in cut_faces(index, size, found, context=2.0, grow=1.2, feather=feather)
    ]
    return FaceCrops(pictures, tuple(cuts))


def cut_out(crops: FaceCrops, side: int) -> Tensor:
    return torch.stack([crop(crops.pictures[c.picture], c.square, side) for c in crops.cuts])


def covered(crops: FaceCrops) -> Tensor:
    """Where anything is pasted: `(n, h, w)`."""
    inside = torch.zeros(crops.pictures.shape[:3], dtype=torch.bool)
    for cut in crops.cuts:
        inside[cut.picture][cut.square.window(SIZE)] |= cut.mask > 0
    return inside


def test_pasted_under_the_mask_only() -> None:
    """Red crops, picture by picture, against old + mask (red - old)."""
    pictures = noise(3, *SIZE, 3)
    crops = crops_of(pictures, [[FACES[0], FACES[1]], [], [FACES[2]]])
    red = torch.tensor([1.0, 0, 0])
    result = paste(crops, red.expand(3, 64, 64, 3))
    for index, numbers in enumerate(((0, 1), (), (2,))):
        expected = pictures[index]
        for number in numbers:
            cut = crops.cuts[number]
            mask = torch.zeros(SIZE)
            rows, columns = cut.square.window(SIZE)
            mask[rows, columns] = cut.mask
            expected = expected + mask[..., None] * (red - expected)
        assert torch.allclose(result[index], expected, atol=1e-6)
    outside = ~covered(crops)
    assert torch.equal(result[outside], pictures[outside])
    assert (result[0][60, 150] == red).all()


def test_pasting_into_itself_changes_nothing_without_scaling() -> None:
    pictures = noise(1, *SIZE, 3)
    crops = crops_of(pictures, [[FACES[0]]])
    assert torch.equal(paste(crops, cut_out(crops, crops.cuts[0].square.side)), pictures)


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_pasting_into_itself_after_scaling_changes_little(side: int) -> None:
    pictures = smooth(*SIZE)[None]
    crops = crops_of(pictures, [[FACES[0], FACES[1]]])
    error = (paste(crops, cut_out(crops, side)) - pictures).abs()
    inside = covered(crops)
    assert (error[~inside] == 0).all()
    assert 0 < error[inside].max() < 0.01


def test_alpha_is_kept() -> None:
    pictures = noise(1, *SIZE, 4)
    crops = crops_of(pictures, [[FACES[0]]])
    for channels in (3, 4):
        result = paste(crops, torch.zeros(1, 64, 64, channels))
        assert torch.equal(result[..., 3], pictures[..., 3])
        assert (result[0, 60, 150, :3] == 0).all()


def test_mask_fades_out_before_borders_inside_the_picture() -> None:
    """An oval larger than its crop; at the picture's own border it does not fade."""
    corner = a_face(12, 20)
    for face, touching in ((a_face(100, 65), False), (corner, True)):
        (cut,) = cut_faces(0, SIZE, [face], context=1.2, grow=2.0, feather=0.1)
        assert (cut.mask[-1] == 0).all()
        assert (cut.mask[:, -1] == 0).all()
        assert bool((cut.mask[:, 0] > 0.99).any()) is touching
        assert cut.mask.max() > 0.99


@pytest.mark.parametrize("square_side", ["inside", "larger than the picture"])
@pytest.mark.parametrize("grow", [1.0, 1.4])
def test_masks_of_crops_are_where_the_face_is(square_side: str, grow: float) -> None:
    context = 2.0 if square_side == "inside" else 6.0
    (cut,) = cut_faces(0, SIZE, [FACES[2]], context, grow, feather=0.0)
    mask = crop_mask(cut, SIZE, 256)
    assert mask.shape == (256, 256)
    y, x = ((FACES[2].landmarks - (cut.square.left, cut.square.top)) * 256 / cut.square.side).T[
        ::-1
    ]
    assert (mask[y.astype(int), x.astype(int)] > 0.99).all()
    area = math.pi * 29 * 21 * (grow * 256 / cut.square.side) ** 2
    assert float(mask.sum()) == pytest.approx(area, rel=0.1)


@pytest.mark.parametrize("face", [FACES[0], None])
def test_stand_in_leaves_the_picture_untouched(face: Face | None) -> None:
    pictures = noise(2, *SIZE, 3)
    cut = cut_untouched(1, SIZE, face, context=2.0)
    assert cut.square == (Square(87, 2, 116) if face else Square(36, 0, 131))
    result = paste(FaceCrops(pictures, (cut,)), torch.zeros(1, 64, 64, 3))
    assert torch.equal(result, pictures)
    assert not crop_mask(cut, SIZE, 64).any()


def test_originals_are_not_written_to() -> None:
    pictures = noise(1, *SIZE, 3)
    before = pictures.clone()
    paste(crops_of(pictures, [FACES]), torch.zeros(3, 64, 64, 3))
    assert torch.equal(pictures, before)
