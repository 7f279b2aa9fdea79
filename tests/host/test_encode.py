"""From real photos to an identity, through the node: which faces, how combined, what is shown."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_management
import folder_paths
import numpy as np
import pytest
import torch
from comfy.clip_model import clip_preprocess
from pack.dev.photos import photos
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig, encode
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.adapters.mappers.ip_adapter import PooledConfig
from pack.infinite_id.attention.blocks import SDXL
from pack.infinite_id.faces.alignment import align, crop_for_recogniser
from pack.infinite_id.faces.annotate import CHOSEN, Mark, draw_faces, lay_out
from pack.infinite_id.faces.detection import detect
from pack.infinite_id.faces.face import Face, FaceError
from pack.infinite_id.faces.model_pack import list_packs, load_analysis
from pack.infinite_id.faces.photo import read_photo
from pack.infinite_id.host.encode import Encoder as Encoding
from pack.infinite_id.identities.identity import Identity
from pack.infinite_id.metrics.scores import cosine
from pack.miniature.host import register
from pack.miniature.random_weights import write
from pack.nodes.encode import Encode
from pack.nodes.identity import EncodeIdentity
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

TOKENS = 261
GROUP = 6


@pytest.fixture(scope="module")
def analysis() -> Any:
    packs = list_packs([Path(os.environ["INFINITE_ID_FACE_ROOT"])])
    return load_analysis(packs["yunet-fr"], "auto", 640)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    register()
    folder = tmp_path_factory.mktemp("clip")
    return comfy.clip_vision.load(str(write(folder, "tiny")["clip_vision"]))


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    mapper = MapperConfig(clip_width=64, token_width=128)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Adapter(AdapterConfig(mapper, dict(list(SDXL.items())[:1]))).requires_grad_(False)


class Encoder:
    """The node with its loaders connected."""

    def __init__(self, adapter: Adapter, analysis: Any, clip: Any) -> None:
        self.loaded = {"encoder": Encoding(adapter, analysis, clip)}

    def run(self, image: Tensor, *more: Tensor, **settings: Any) -> Any:
        further = {f"image_{number}": photo for number, photo in enumerate(more, start=2)}
        output = Encode.execute(**self.loaded, image=image, more_images=further, **settings)
        return output.result

    def identity(self, image: Tensor, *more: Tensor, **settings: Any) -> Identity:
        return self.run(image, *more, **settings)[0]


@pytest.fixture
def encoder(
    adapter: Adapter, analysis: Any, clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Encoder:
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return Encoder(adapter, analysis, clip)


def load(name: str, size: tuple[int, int] | None = None) -> Tensor:
    picture = Image.open(photos()[name]).convert("RGB")
    pixels = np.asarray(picture if size is None else picture.resize(size))
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]


def noise(height: int, width: int) -> Tensor:
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(3))


def side_by_side(*names: str) -> Tensor:
    """Photos beside each other, the later the larger."""
    sides = [400 + 100 * place for place in range(len(names))]
    canvas = Image.new("RGB", (sum(sides), sides[-1]))
    for place, (name, side) in enumerate(zip(names, sides, strict=True)):
        picture = Image.open(photos()[name]).convert("RGB")
        square = picture.crop((0, 0, picture.width, picture.width)).resize((side, side))
        canvas.paste(square, (sum(sides[:place]), 0))
    return torch.from_numpy(np.asarray(canvas).astype(np.float32) / 255)[None]


def of_person(analysis: Any, identity: Identity, name: str) -> float:
    """Similarity of an identity's face vector with the largest face of a photo."""
    assert identity.features is not None
    (face, *_) = detect(analysis, read_photo(load(name)[0]))
    return cosine(identity.features.face[0].numpy(), face.embedding)


# --- Photos -------------------------------------------------------------------------------------


def test_one_photo(encoder: Encoder, analysis: Any) -> None:
    """Tokens, what they were mapped from, and where that is from."""
    identity, crop, mask, _, info = encoder.run(load("obama"))
    photo = read_photo(load("obama")[0])
    (face,) = detect(analysis, photo)
    assert identity.tokens.shape == (1, TOKENS, 128)
    assert identity.shares is None
    assert identity.features.face.shape == (1, 512)
    assert identity.features.face.norm() == pytest.approx(1, abs=1e-5)
    assert identity.features.clip.shape == (1, 257, 64)
    (source,) = identity.sources
    assert source.label == f"photo 1 of 1 (910x1137), face of score {face.score:.2f}"
    pixels = np.asarray(Image.open(photos()["obama"]).convert("RGB"))
    assert source.digest == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert np.array_equal(source.thumbnail.numpy(), align(photo, face, 128)[..., ::-1])
    assert crop.shape == (1, 224, 224, 3)
    assert mask.shape == (1, 1137, 910)
    assert info.startswith("photo 1 of 1 (910x1137): face 1 of 1, 243x331 pixels, confidence 0.9")


def test_models_in_inputs_of_their_own(
    encoder: Encoder, adapter: Adapter, analysis: Any, clip: Any
) -> None:
    """An adapter alone with both models beside it, and the old node, which counts faces from 0."""
    group = load("group")
    expected, *_, info = encoder.run(group, face="left to right", face_number=2)
    models = {"face_analysis": analysis, "clip_vision": clip, "face": "left to right"}
    apart = Encode.execute(adapter, group, face_number=2, **models).result
    old = EncodeIdentity.execute(adapter, image=group, face_index=1, **models).result
    assert torch.equal(apart[0].tokens, expected.tokens)
    assert torch.equal(old[0].tokens, expected.tokens)
    assert apart[-1] == info
    assert old[-1] == info.replace("face 2 of", "face 1 of")
    with pytest.raises(ValueError, match="needs a face model: connect Load Face Analysis"):
        Encode.execute(adapter, group)


def test_photos_of_any_size_are_stacked(encoder: Encoder) -> None:
    """A batch, and further inputs; each photo's tokens are those that it has alone."""
    batch = torch.cat([load("obama", (455, 568)), load("biden", (455, 568))])
    more = (load("obama2"), load("astronaut"))
    identity, crops, masks, sheets, info = encoder.run(batch, *more)
    assert [source.label.split(",")[0] for source in identity.sources] == [
        "photo 1 of 4 (455x568)",
        "photo 2 of 4 (455x568)",
        "photo 3 of 4 (626x1200)",
        "photo 4 of 4 (512x512)",
    ]
    alone = [encoder.identity(photo).tokens for photo in (batch[:1], batch[1:], *more)]
    assert torch.allclose(identity.tokens, torch.cat(alone, dim=1), atol=1e-4)
    assert identity.shares is None
    assert len(crops) == len(sheets) == len(info.splitlines()) == 4
    assert masks.shape == (2, 568, 455), "the masks fit the photos of 'image'"


def test_weights_when_stacked(encoder: Encoder) -> None:
    """Each photo's tokens get its weight; a photo of weight 0 is left out."""
    pictures = [load(name) for name in ("obama", "obama2", "obama3")]
    identity = encoder.identity(*pictures, weights="1, 0.5 ,0")
    assert identity.tokens.shape[1] == 2 * TOKENS
    assert identity.shares[0, :TOKENS].unique().tolist() == [1.0]
    assert identity.shares[0, TOKENS:].unique().tolist() == [0.5]
    alike = encoder.identity(*pictures[:2], weights="2, 2")
    assert torch.equal(alike.tokens, encoder.identity(*pictures[:2]).tokens)
    assert alike.shares is None


def test_average(encoder: Encoder) -> None:
    """One photo's tokens, from the weighted mean of the features."""
    pictures = [load(name) for name in ("obama", "obama2")]
    mean = encoder.identity(*pictures, combine="average", weights="3, 1")
    parts = [encoder.identity(picture).features for picture in pictures]
    face = 0.75 * parts[0].face + 0.25 * parts[1].face
    clip = 0.75 * parts[0].clip + 0.25 * parts[1].clip
    assert mean.tokens.shape == (1, TOKENS, 128)
    assert len(mean.sources) == 2
    assert torch.allclose(mean.features.face, face / face.norm(), atol=1e-4)
    assert torch.allclose(mean.features.clip, clip, atol=1e-4)
    same = encoder.identity(pictures[0], pictures[0], combine="average")
    assert torch.allclose(same.tokens, encoder.identity(pictures[0]).tokens, atol=1e-4)


def test_normalised_average_and_subtract(encoder: Encoder) -> None:
    pictures = [load(name) for name in ("obama", "biden")]
    a, b = (encoder.identity(picture).features for picture in pictures)
    mean = encoder.identity(*pictures, combine="normalised average").features
    unit = normalize(a.clip, dim=-1) + normalize(b.clip, dim=-1)
    assert torch.allclose(normalize(mean.clip, dim=-1), normalize(unit, dim=-1), atol=1e-4)
    rest = encoder.identity(*pictures, combine="subtract", weights="1, 0.5")
    face = a.face - 0.5 * b.face
    assert rest.tokens.shape == (1, TOKENS, 128)
    assert torch.allclose(rest.features.face, face / face.norm(), atol=1e-4)
    assert torch.allclose(rest.features.clip, a.clip - 0.5 * b.clip, atol=1e-4)
    with pytest.raises(FaceError, match=r"away from photo 1, which cannot be.*No face found in"):
        encoder.run(noise(100, 300), load("biden"), combine="subtract", on_no_face="skip")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("1", "1 numbers for 2 photos"),
        ("1, 2, 3", "3 numbers for 2 photos"),
        ("1, much", "must be numbers.*got '1, much'"),
        ("1,", "must be numbers"),
        ("1, nan", "must be numbers"),
        ("1, -1", "must be numbers from 0 on"),
        ("0, 0", "one must be above 0"),
    ],
)
def test_bad_weights(encoder: Encoder, weights: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder.run(load("obama"), load("obama2"), weights=weights)


# --- Which face ---------------------------------------------------------------------------------


def test_every_face_from_left_to_right(encoder: Encoder, analysis: Any) -> None:
    group = load("group")
    faces = detect(analysis, read_photo(group[0]))
    for index, face in enumerate(sorted(faces, key=lambda face: face.box[0])):
        identity, _, mask, _, info = encoder.run(group, face="left to right", face_number=index + 1)
        vector = identity.features.face[0].numpy()
        assert cosine(vector, face.embedding) == pytest.approx(1, abs=1e-4)
        x, y = face.landmarks[2].astype(int)
        assert mask[0, y, x] == 1
        assert f"face {index + 1} of {GROUP}" in info


def test_most_similar_to_reference(encoder: Encoder, analysis: Any) -> None:
    """Whoever is larger, and wherever they stand."""
    for photo in (side_by_side("obama", "biden"), side_by_side("biden", "obama")):
        for reference, name in (("obama2", "obama"), ("biden", "biden")):
            identity = encoder.identity(
                photo, face="most similar to reference", reference=load(reference)
            )
            assert of_person(analysis, identity, name) > 0.5
    largest = encoder.identity(side_by_side("biden", "obama"))
    assert of_person(analysis, largest, "obama") > 0.5


def test_reference_is_asked_for(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="Connect a photo of the person to 'reference'"):
        encoder.run(load("obama"), face="most similar to reference")
    with pytest.raises(FaceError, match=r"No face found in reference 1 of 1 \(64x64\)"):
        encoder.run(load("obama"), face="most similar to reference", reference=noise(64, 64))


def test_index_beyond_the_faces(encoder: Encoder) -> None:
    with pytest.raises(FaceError, match=r"No face 2 in photo 1 of 1 .*it has 1, counted from 1"):
        encoder.run(load("obama"), face_number=2)


def test_min_confidence(encoder: Encoder, analysis: Any) -> None:
    """It counts in this run only: the detector is others' as well."""
    before = analysis.det_model.det_thresh
    with pytest.raises(FaceError, match=r"No face found in photo 1 of 1.*min_confidence"):
        encoder.run(load("obama"), min_confidence=0.99)
    scores = [face.score for face in detect(analysis, read_photo(load("group")[0]), 0.9)]
    assert len(scores) == 4
    assert min(scores) >= 0.9
    assert analysis.det_model.det_thresh == before


def test_analysis_without_a_recogniser(encoder: Encoder, analysis: Any) -> None:
    from insightface.app import FaceAnalysis

    blind = FaceAnalysis(
        name=analysis.model_dir, allowed_modules=["detection"], providers=["CPUExecutionProvider"]
    )
    blind.prepare(ctx_id=0, det_size=(640, 640))
    encoder.loaded["face_analysis"] = blind
    with pytest.raises(FaceError, match=r"without a recogniser.*Load Face Analysis"):
        encoder.run(load("obama"))


# --- Photos without a face ----------------------------------------------------------------------


def test_photo_without_a_face_is_named(encoder: Encoder) -> None:
    with pytest.raises(FaceError, match=r"No face found in photo 2 of 3 \(300x100\)"):
        encoder.run(load("obama"), noise(100, 300), load("obama2"))


def test_photos_without_a_face_are_skipped(encoder: Encoder) -> None:
    """No face, and a face too small: neither photo nor weight counts, and the rest goes on."""
    good = load("obama", (455, 568))
    batch = torch.cat([noise(568, 455), good])
    identity, crops, masks, sheets, info = encoder.run(
        batch, load("obama", (60, 75)), load("biden"), on_no_face="skip", weights="9, 1, 9, .5"
    )
    assert [source.label[:12] for source in identity.sources] == ["photo 2 of 4", "photo 4 of 4"]
    assert identity.shares[0, [0, -1]].tolist() == [1.0, 0.5]
    assert len(crops) == 2
    assert masks[0].max() == 0
    assert masks[1].max() == 1
    assert len(sheets) == 4
    lines = info.splitlines()
    assert lines[0].startswith("Skipped: No face found in photo 1 of 4 (455x568)")
    assert lines[2].startswith("Skipped: The face in photo 3 of 4 (60x75) is 17x22 pixels")
    assert lines[3].startswith("photo 4 of 4 (970x2204): face 1 of 1")


def test_strips_are_skipped_like_any_photo_without_a_face(encoder: Encoder) -> None:
    identity, _, _, sheets, info = encoder.run(
        load("obama"), noise(4000, 3), noise(1, 5000), on_no_face="skip"
    )
    assert [source.label[:12] for source in identity.sources] == ["photo 1 of 3"]
    assert len(sheets) == 3
    lines = info.splitlines()
    assert lines[1].startswith("Skipped: No face found in photo 2 of 3 (3x4000)")
    assert lines[2].startswith("Skipped: No face found in photo 3 of 3 (5000x1)")


def test_adapter_for_whole_pictures_needs_no_face(analysis: Any, clip: Any) -> None:
    """The CLIP encoder sees the middle square as the host would cut it; no face is looked for."""
    spec = PooledConfig(clip_width=48, tokens=4, token_width=128)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapter = Adapter(AdapterConfig(spec, dict(list(SDXL.items())[:1]))).requires_grad_(False)
    wide = load("obama", (500, 300))
    identity, seen, mask, sheet, info = Encoder(adapter, analysis, clip).run(wide, noise(80, 60))
    assert identity.tokens.shape == (1, 8, 128)
    assert [source.label for source in identity.sources] == [
        "photo 1 of 2 (500x300), the whole photo",
        "photo 2 of 2 (60x80), the whole photo",
    ]
    pixels = clip_preprocess(wide, clip.image_size)
    assert (clip_preprocess(seen[:1], clip.image_size) - pixels).abs().mean() < 0.1
    assert mask.shape == (1, 300, 500)
    assert bool((mask == 1).all())
    assert len(sheet) == 2
    assert info.splitlines()[0].endswith("the middle square, without looking for a face")
    features = clip.encode_image(seen[:1])["image_embeds"][:, None]
    assert identity.features is None  # a stack
    tokens = encode(adapter, torch.zeros(1, 0), features)
    assert torch.allclose(tokens, identity.tokens[:, :4], atol=1e-5)


def test_no_photo_left(encoder: Encoder) -> None:
    with pytest.raises(FaceError, match=r"No photo is left, all 2 were skipped.*photo 1 of 2"):
        encoder.run(noise(64, 64), noise(80, 64), on_no_face="skip")


def test_interrupt(encoder: Encoder) -> None:
    """Before the next photo is looked at: that this one has no face is never found out."""
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        encoder.run(noise(64, 64))
    assert encoder.identity(load("obama")).count == 1


# --- What is shown ------------------------------------------------------------------------------


def test_shown_crops_are_what_the_nets_saw(encoder: Encoder, analysis: Any) -> None:
    """The recogniser gives the same vector for the shown crop; the CLIP crop is the output."""
    photo = read_photo(load("obama3")[0])
    (face,) = detect(analysis, photo)
    seen = crop_for_recogniser(analysis, photo, face)
    again = analysis.models["recognition"].get_feat(seen)[0]
    assert np.allclose(again, face.embedding, atol=1e-4)

    _, crop, _, sheet, _ = encoder.run(load("obama3"))
    shown = sheet[0, :, 672:]
    resized = [
        np.asarray(Image.fromarray(x).resize((336, 336), Image.Resampling.BICUBIC)) / 255
        for x in (seen[..., ::-1].copy(), (crop[0].numpy() * 255).round().astype(np.uint8))
    ]
    for half, expected in zip(shown.split(336), resized, strict=True):
        assert np.allclose(half[:300], expected[:300], atol=1e-3)


def test_preview_is_saved_for_the_page(encoder: Encoder, tmp_path: Path) -> None:
    output = Encode.execute(**encoder.loaded, image=load("obama"))
    (saved,) = output.ui.as_dict()["images"]
    assert Image.open(tmp_path / saved["filename"]).size == (1008, 672)


@pytest.mark.parametrize("size", [(40, 50), (512, 300), (3000, 4000)])
def test_drawing_is_readable_at_any_size(size: tuple[int, int]) -> None:
    """Frame, landmarks and number have the same size in the drawing, whatever the photo's."""
    width, height = size
    photo = np.full((height, width, 3), 90, np.uint8)
    box = np.array([0.4 * width, 0.4 * height, 0.6 * width, 0.6 * height], np.float32)
    middle = np.tile((box[:2] + box[2:]) / 2, (5, 1))
    face = Face(box, middle, 0.5, np.ones(512, np.float32))
    drawn = draw_faces(photo, [Mark(face, "0: 0.50", CHOSEN)], 500)
    assert max(drawn.shape[:2]) == 500
    green = (drawn[..., ::-1] == CHOSEN).all(axis=2)
    across, down = np.array(drawn.shape[1::-1]) * 0.5, np.array(drawn.shape[1::-1]) * 0.4
    assert green[int(down[1]) + 1, int(across[0])], "the frame's upper edge"
    assert green[int(across[1]), int(down[0]) + 1], "the frame's left edge"
    label = green[: int(down[1]) - 1]
    rows, columns = np.nonzero(label)
    assert 12 <= np.ptp(rows) <= 24
    assert 40 <= np.ptp(columns) <= 80
    assert (drawn == photo[0, 0]).all(axis=2).mean() > 0.9, "the rest is the photo"


def test_label_stays_in_the_picture() -> None:
    photo = np.full((400, 400, 3), 90, np.uint8)
    box = np.array([380, -20, 430, 40], np.float32)
    face = Face(box, np.tile(box[:2], (5, 1)), 0.5, np.ones(512, np.float32))
    drawn = draw_faces(photo, [Mark(face, "0: 0.50", CHOSEN)], 400)
    rows, columns = np.nonzero((drawn[:15, ..., ::-1] == CHOSEN).all(axis=2))
    assert rows.min() == 0
    assert columns.min() < 360


def test_sheets_have_one_size() -> None:
    crop = np.zeros((112, 112, 3), np.uint8)
    shapes = {
        lay_out(np.zeros((height, width, 3), np.uint8), [("net", crop)][:crops], 200).shape
        for height, width, crops in ((40, 400, 1), (400, 40, 0), (200, 200, 1))
    }
    assert shapes == {(200, 300, 3)}
