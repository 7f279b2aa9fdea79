"""Photos turned, empty, thin, transparent or many: the right face, or a sentence."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig
from pack.infinite_id.faces.annotate import fit_side
from pack.infinite_id.faces.detection import detect
from pack.infinite_id.faces.model_pack import list_packs, load_analysis
from pack.infinite_id.faces.photo import read_photo
from pack.infinite_id.identities.identity import Identity, Source
from pack.infinite_id.metrics.scores import cosine
from pack.infinite_id.sheet import draw_sheet
from pack.nodes.encoding import MUCH_MEMORY, _warn_of_memory, read_more
from pack.nodes.faces import CropFaces, PasteFaces
from pack.nodes.identity_files import LoadIdentity
from pack.nodes.load import LoadInfiniteIDModel
from pack.nodes.scores import PickBest
from pack.nodes.similarity import FaceSimilarity
from pack.tests.host.test_face_nodes import CROPS, analysis, cut, draw, load, paste, previews
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["analysis", "previews"]


@pytest.mark.parametrize("name", ["obama", "biden", "astronaut", "obama2", "group"])
@pytest.mark.parametrize("turn", [1, 2, 3])
def test_turned_photo_gives_the_upright_ones_faces(analysis: Any, name: str, turn: int) -> None:
    """The same people at the same places, each known to be turned."""
    upright = read_photo(load(name)[0])
    turned = np.ascontiguousarray(np.rot90(upright, turn))
    before, after = detect(analysis, upright), detect(analysis, turned)
    assert len(after) == len(before)
    for face in after:
        same = max(before, key=lambda other: cosine(other.embedding, face.embedding))
        assert cosine(same.embedding, face.embedding) > 0.95
        assert face.turn == -turn % 4
        x, y = face.landmarks.round().astype(int).T
        place = np.zeros(turned.shape[:2])
        place[y, x] = 1
        rows, columns = np.nonzero(np.rot90(place, -turn))
        assert np.allclose(sorted(columns), sorted(same.landmarks[:, 0]), atol=3)
        assert np.allclose(sorted(rows), sorted(same.landmarks[:, 1]), atol=3)


def test_upright_photo_is_searched_once(analysis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three views at full size, whatever else; a check is a sixteenth of one."""
    kind = type(analysis.det_model)
    whole, given = [], kind.detect

    def count(self: Any, photo: Any, *arguments: Any, **settings: Any) -> Any:
        if "input_size" not in settings:
            whole.append(photo)
        return given(self, photo, *arguments, **settings)

    monkeypatch.setattr(kind, "detect", count)
    for name in ("obama", "biden", "astronaut", "group"):
        whole.clear()
        assert all(face.turn == 0 for face in detect(analysis, read_photo(load(name)[0])))
        assert len(whole) == 3


def test_crops_of_a_turned_picture_stand_upright_and_go_back(analysis: Any) -> None:
    group = load("group")
    turned = torch.rot90(group, 1, (1, 2))
    crops, masks, face_crops, _ = cut(analysis, turned)
    assert len(crops) == 6
    expected, expected_masks, *_ = cut(analysis, group)
    assert (crops - expected).abs().mean() < 0.02
    assert (masks - expected_masks).abs().mean() < 0.02
    assert (paste(face_crops, crops) - turned).abs().max() * 255 < 10


def test_masks_of_a_turned_picture_turn_with_it(analysis: Any) -> None:
    group = load("group")
    masks, *_ = draw(analysis, group, order="largest first")
    turned, *_ = draw(analysis, torch.rot90(group, 2, (1, 2)), order="largest first")
    assert (torch.rot90(turned, 2, (1, 2)) - masks).abs().mean() < 0.002


def compare(analysis: Any, image: torch.Tensor) -> Any:
    return FaceSimilarity.execute(analysis, load("obama"), image).result


@pytest.mark.parametrize("node", [draw, cut, compare])
def test_empty_batch_is_refused_in_words(analysis: Any, node: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"got an empty batch: no (picture|image) is in it"):
        node(analysis, torch.zeros(0, 64, 64, 3))
    with pytest.raises(ValueError, match=r"1 of 1 \(0x64\): it has no pixels"):
        node(analysis, torch.zeros(1, 64, 0, 3))
    with pytest.raises(ValueError, match=r"holds whole numbers \(torch.uint8\)"):
        node(analysis, torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(4000, 3), (3, 4000), (1, 1), (1, 5000)])
def test_thin_picture_has_no_face(analysis: Any, size: tuple[int, int]) -> None:
    image = torch.full((1, *size, 3), 0.5)
    assert detect(analysis, read_photo(image[0])) == []
    assert compare(analysis, image)[0].endswith("no face")
    crops, masks, face_crops, _ = CropFaces.execute(analysis, image, **CROPS).args
    assert not masks.any()
    assert torch.equal(PasteFaces.execute(face_crops, crops).args[0], image)


def test_transparent_face_is_none(analysis: Any) -> None:
    """What is half transparent still counts."""
    face = load("obama")
    for alpha, found in ((0.0, 0), (0.6, 1), (1.0, 1)):
        image = torch.cat([face, torch.full_like(face[..., :1], alpha)], dim=-1)
        assert len(detect(analysis, read_photo(image[0]))) == found


@pytest.mark.parametrize("kind", ["grey", "bfloat16", "float16", "float64", "alpha"])
def test_pictures_of_every_kind_are_chosen_and_cropped(analysis: Any, kind: str) -> None:
    """What goes on stays as it came; only the host's preview needs another form."""
    small = functional.interpolate(load("obama").movedim(-1, 1), scale_factor=0.25, mode="area")
    image = small.movedim(1, -1)
    if kind == "grey":
        image = image.mean(-1, keepdim=True)
    elif kind == "alpha":
        image = torch.cat([image, torch.ones_like(image[..., :1])], dim=-1)
    else:
        image = image.to(getattr(torch, kind))
    best = PickBest.execute(analysis, image, image, 1).args[0]
    assert torch.equal(best, image)
    crops, _, face_crops, _ = CropFaces.execute(analysis, image, **CROPS).args
    assert PasteFaces.execute(face_crops, crops).args[0].dtype == image.dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_photo_of_another_precision_is_the_same(dtype: torch.dtype) -> None:
    image = load("obama")[0]
    off = np.abs(read_photo(image.to(dtype)).astype(int) - read_photo(image).astype(int))
    assert off.max() <= (1 if dtype is torch.bfloat16 else 0)


def test_previews_of_many_photos_are_small() -> None:
    assert fit_side(672, 2, 1.5, 64 * 2**20) == 672
    side = fit_side(672, 64, 1.5, 64 * 2**20)
    assert 64 * 1.5 * side**2 * 12 <= 64 * 2**20 < 64 * 1.5 * (side + 1) ** 2 * 12


def test_further_photos_under_other_names() -> None:
    first, second = torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 2, 3)
    assert read_more(first, {}) == [first]
    assert read_more({"image_2": first}, {"more_images.image0": second}) == [first, second]
    assert read_more({}, {"note": "widget"}) == []
    with pytest.raises(ValueError, match=r"no input 'image_2'.*more_images.image_2"):
        read_more({}, {"image_2": first})


def test_many_photos_tell_the_memory_they_take() -> None:
    with torch.device("meta"):
        adapter = Adapter(AdapterConfig.sdxl())
    tokens = torch.zeros(1, 4, adapter.config.mapper.token_width)
    identity = Identity(tokens, tokens, adapter, (Source("a", ""), Source("b", "")))
    assert _warn_of_memory(identity) == []
    many = replace(identity, tokens=tokens.repeat(1, 1 + MUCH_MEMORY // adapter.count_bytes(4), 1))
    (line,) = _warn_of_memory(many)
    gigabytes = adapter.count_bytes(many.tokens.shape[1]) / 1e9
    assert f"values take {gigabytes:.1f} GB in float16" in line
    assert f"'average' takes {gigabytes / 2:.2f} GB" in line


@pytest.mark.parametrize(("asked", "used"), [(500, 512), (512, 512), (33, 64)])
def test_detection_sizes_are_whole_strides(asked: int, used: int) -> None:
    packs = list_packs([Path(os.environ["INFINITE_ID_FACE_ROOT"])])
    assert load_analysis(packs["yunet-fr"], "CPU", asked).det_size == (used, used)


@pytest.mark.parametrize("node", [LoadInfiniteIDModel, LoadIdentity])
def test_a_name_that_comes_by_a_wire_leaves_the_node_unchanged(node: Any) -> None:
    """The host compares what it gets; nan, which it takes from an error, never equals itself."""
    first, second = node.fingerprint_inputs(None), node.fingerprint_inputs(None)
    assert first == second
    assert node.validate_inputs(None) is True


def test_contact_sheet_of_an_empty_batch_is_refused() -> None:
    empty, full = torch.zeros(0, 8, 8, 3), torch.zeros(1, 8, 8, 3)
    for batches in ([empty], [full, empty]):
        with pytest.raises(ValueError, match="got an empty batch: no picture is in it"):
            draw_sheet(batches, [], [], "", 0, 0, 8, 8)


@pytest.mark.parametrize("shape", [(1, 0, 0, 3), (2, 8, 8, 3), (1, 8, 9, 3)])
def test_other_crops_than_were_cut_are_refused(analysis: Any, shape: tuple[int, ...]) -> None:
    face_crops = CropFaces.execute(analysis, load("obama"), **CROPS).args[2]
    with pytest.raises(ValueError, match="Paste Faces needs 1 square crops"):
        PasteFaces.execute(face_crops, torch.zeros(shape))
