"""Preparing photos, as far as no net is needed: listing, decoding, choosing, cutting."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pack.infinite_id.errors import UserError
from pack.infinite_id.photos.look import Limits, Rejected, decode, read
from pack.infinite_id.photos.sources import Source, list_sources
from pack.infinite_id.training.prepare.buckets import choose_bucket, cut, list_buckets
from pack.infinite_id.training.prepare.people import Choice, choose
from pack.infinite_id.training.prepare.report import write_report
from PIL import Image


def encode(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, kind, **options)
    return file.getvalue()


def picture(seed: int, height: int = 12, width: int = 10) -> bytes:
    return encode(np.random.default_rng(seed).integers(0, 256, (height, width, 3)))


PEOPLE = {"anna": {"b.jpg": 1, "a.png": 2}, "bo": {"x.webp": 3}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for each person, with what else lies about in such folders."""
    for person, photos in PEOPLE.items():
        for name, seed in photos.items():
            path = tmp_path / "people" / person / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(seed))
    (tmp_path / "people" / "anna" / "a.txt").write_text("a photo of a woman\n", encoding="utf-8")
    (tmp_path / "people" / ".hidden").mkdir()
    (tmp_path / "people" / ".hidden" / "c.jpg").write_bytes(picture(4))
    (tmp_path / "people" / "notes.md").touch()
    return tmp_path / "people"


def write_lines(folder: Path) -> Path:
    path = folder.parent / "photos.jsonl"
    lines = [
        {"file": "people/anna/b.jpg", "person": "anna"},
        {"file": "people/bo/x.webp", "person": "bo", "bbox": [1, 2, 3, 4]},
        {"file": "people/anna/a.png", "person": "anna", "caption": "a photo of a woman"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    return path


def write_shard(folder: Path) -> Path:
    """WebDataset's layout: 000.png with 000.json, 001.jpg with 001.person, and so on."""
    path = folder.parent / "shards" / "00.tar"
    path.parent.mkdir()
    members = {
        "000.jpg": picture(1),
        "000.person": b"anna",
        "001.png": picture(2),
        "001.json": json.dumps({"person": "anna", "caption": "a photo of a woman"}).encode(),
        "002.json": json.dumps({"person": "bo"}).encode(),
        "002.webp": picture(3),
        "003.txt": b"no photo",
    }
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_folders_lines_and_shards_list_the_same_photos(folder: Path) -> None:
    shard = write_shard(folder)
    for place, captions in (
        (folder, True),
        (write_lines(folder), False),
        (shard, False),
        (shard.parent, False),
    ):
        found = list_sources(place, captions)
        assert [source.person for source in found] == ["anna", "anna", "bo"]
        assert sorted(source.read() for source in found) == sorted(picture(n) for n in (1, 2, 3))
        captioned = {source.read(): source.caption for source in found}
        assert captioned == {
            picture(1): "",
            picture(2): "a photo of a woman",
            picture(3): "",
        }
    assert all(source.caption == "" for source in list_sources(folder, captions=False))
    assert [source.box for source in list_sources(write_lines(folder), False)][2] == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": "people/bo/x.webp"}', "line 1: 'person'"),
        ('{"file": "people/bo/x.webp", "person": "bo", "box": 1}', "unknown key 'box'"),
        ('{"file": "people/bo/none.webp", "person": "bo"}', "No such file"),
        ('{"file": "people/bo/x.webp", "person": "bo", "bbox": [1]}', "not enough values"),
        ("[1]", "line 1: 'list'"),
        ("{", "line 1: "),
    ],
)
def test_a_wrong_line_is_named(folder: Path, line: str, message: str) -> None:
    path = write_lines(folder)
    path.write_text(line, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        list_sources(path, captions=False)


def test_a_folder_without_people_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder for each person"):
        list_sources(tmp_path, captions=False)
    (tmp_path / "a.jpg").write_bytes(picture(0))
    with pytest.raises(UserError, match="1 photos that lie in no person's folder"):
        list_sources(tmp_path, captions=False)
    with pytest.raises(UserError, match="There is no"):
        list_sources(tmp_path / "none", captions=False)
    (tmp_path / "a.tar").write_bytes(b"no tar" * 100)
    with pytest.raises(UserError, match="damaged or no tar"):
        list_sources(tmp_path / "a.tar", captions=False)


# --- Decoding ---------------------------------------------------------------------------------


def test_photos_are_decoded_upright() -> None:
    """A camera's note says how it was held; 6 is a quarter turn."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(encode(pixels, exif=exif), Limits())
    assert turned.shape == (16, 8, 3)
    assert turned[0, 0].tolist() == [0, 0, 255], "BGR, red on top"
    assert turned[-1, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3), (9, 7, 4)])
def test_grey_and_transparent_photos_have_three_channels(shape: tuple[int, ...]) -> None:
    assert decode(encode(np.full(shape, 200)), Limits()).shape == (9, 7, 3)


GREY = np.linspace(0, 255, 63).round().astype(np.uint8).reshape(9, 7)


@pytest.mark.parametrize(
    ("kind", "levels"),
    [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32), ("PPM", np.int32)],
)
def test_grey_photos_of_more_than_8_bits_are_no_lighter(kind: str, levels: Any) -> None:
    file = io.BytesIO()
    Image.fromarray(GREY.astype(levels) * levels(257)).save(file, kind)
    assert (decode(file.getvalue(), Limits()) == GREY[..., None]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str) -> None:
    """As in the nodes: a face that nobody sees is none."""
    file = io.BytesIO()
    if mode == "P":
        Image.fromarray(GREY).convert("P").save(file, "PNG", transparency=int(GREY[0, 0]))
    else:
        seen = Image.fromarray((GREY[0, 0] < GREY).astype(np.uint8) * 255)
        photo = Image.fromarray(GREY).convert(mode)
        photo.putalpha(seen)
        photo.save(file, "PNG")
    expected = GREY.copy()
    expected[0, 0] = 255
    assert (decode(file.getvalue(), Limits()) == expected[..., None]).all()


@pytest.mark.parametrize(
    ("levels", "told"),
    [(np.float32(0.5), "floating-point"), (np.int32(70_000), "16 bits"), (np.int32(-1), "16 bits")],
)
def test_pixels_of_an_unknown_range_are_rejected(levels: Any, told: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((9, 7), levels)).save(file, "TIFF")
    with pytest.raises(Rejected, match=told):
        decode(file.getvalue(), Limits())


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "unreadable"),
        (b"no picture", "unreadable"),
        (picture(0)[:100], "unreadable"),
        (encode(np.zeros((3000, 3000))), "too large"),
    ],
)
def test_damaged_and_huge_pictures_are_rejected(data: bytes, kind: str) -> None:
    with pytest.raises(Rejected) as caught:
        decode(data, Limits(megapixels=8))
    assert caught.value.kind == kind


def test_huge_and_missing_files_are_rejected_unread(tmp_path: Path) -> None:
    large = Source("anna", "a", tmp_path / "none", 0, 200_000_000, 0)
    with pytest.raises(Rejected, match="200 MB"):
        read(large, Limits())
    with pytest.raises(Rejected, match="cannot be read"):
        read(Source("anna", "a", tmp_path / "none", 0, 2, 0), Limits())


# --- Choosing ---------------------------------------------------------------------------------


def make_record(n: int, hash_: int | None = None) -> dict[str, Any]:
    own = (0x0F1E2D3C4B5A6978 * (2 * n + 1)) % 2**64 if hash_ is None else hash_
    return {
        "person": "anna",
        "name": f"anna/{n}",
        "digest": f"digest {n}",
        "picture": f"{own:016x}",
        "kind": "",
        "reason": "",
    }


def make_vectors(*people: int, spread: float = 0.6) -> np.ndarray[Any, Any]:
    """Face vectors whose cosine is about 1 / (1 + spread^2) within a person, and 0 between."""
    rng, centre = np.random.default_rng(0), np.random.default_rng(1)
    centres = centre.normal(size=(max(people) + 1, 512))
    noise = rng.normal(size=(len(people), 512))
    return (20 * (centres[list(people)] + spread * noise)).astype(np.float32)


def kinds(records: list[dict[str, Any]]) -> list[str]:
    return [record["kind"] for record in records]


def test_strangers_are_found_whoever_comes_first() -> None:
    records = [make_record(n) for n in range(6)]
    done = choose(records, make_vectors(1, 0, 0, 2, 0, 0), Choice(), {})
    assert kinds(done) == ["stranger", "", "", "stranger", "", ""]
    assert "somebody else?" in done[0]["reason"]
    assert kinds(records) == [""] * 6, "the given records are left as they are"


def test_of_a_folder_of_strangers_nobody_is_left() -> None:
    done = choose([make_record(n) for n in range(4)], make_vectors(0, 1, 2, 3), Choice(), {})
    assert sorted(kinds(done)) == ["alone", "stranger", "stranger", "stranger"]


def test_doubles_are_found_by_file_and_by_picture() -> None:
    records = [make_record(n) for n in range(5)]
    records[2]["digest"] = records[0]["digest"]
    records[3]["picture"] = f"{int(records[1]['picture'], 16) ^ 0b101:016x}"
    vectors = make_vectors(0, 0, 0, 0, 0)
    vectors[3] = vectors[1] * 1.5
    seen = {"digest 4": "bo/7"}
    done = choose(records, vectors, Choice(), seen)
    assert kinds(done) == ["", "", "double", "double", "double"]
    assert "same file as anna/0" in done[2]["reason"]
    assert "same picture as anna/1" in done[3]["reason"]
    assert "same file as bo/7" in done[4]["reason"]
    assert seen == {"digest 4": "bo/7", "digest 0": "anna/0", "digest 1": "anna/1"}


def test_another_face_in_the_same_place_is_no_double() -> None:
    """Studio photos have the same hash."""
    records = [make_record(n, hash_=7) for n in range(3)]
    assert kinds(choose(records, make_vectors(0, 0, 0), Choice(), {})) == ["", "", ""]


def test_people_with_one_photo_are_dropped_or_paired_with_their_mirror_image() -> None:
    assert kinds(choose([make_record(0)], make_vectors(0), Choice(), {})) == ["alone"]
    alone = choose([make_record(0)], make_vectors(0), Choice(pair_with_flip=True), {})
    assert kinds(alone) == [""]


# --- Cutting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "step"), [(1024, 64), (512, 64), (128, 32), (64, 64)])
def test_buckets_have_the_size_of_the_stage(size: int, step: int) -> None:
    found = list_buckets(size, step)
    assert (size, size) in found
    for height, width in found:
        assert height % step == width % step == 0
        assert height * width <= size * size < height * (width + step)
        assert max(height, width) <= 2 * min(height, width)


def test_a_photo_goes_into_the_bucket_of_its_shape() -> None:
    assert choose_bucket(3000, 3000, 1024, 64) == (1024, 1024)
    assert choose_bucket(4000, 3000, 1024, 64) == (1152, 896)
    assert choose_bucket(3000, 4000, 1024, 64) == (896, 1152)
    assert choose_bucket(100, 5000, 512, 64)[0] == min(b[0] for b in list_buckets(512, 64))


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (64, 64), (1000, 100), (65, 64)])
def test_the_cut_keeps_the_face(shape: tuple[int, int]) -> None:
    """A white face near a corner of a black photo is in the cut, where the offset says."""
    photo = np.zeros((*shape, 3), np.uint8)
    box = np.array([2, shape[0] - 42, 32, shape[0] - 2], np.float32)
    left, top, right, bottom = box.astype(int)
    photo[top:bottom, left:right] = 255
    bucket = choose_bucket(*shape, 128, 32)
    piece = cut(photo, box, bucket)
    assert piece.pixels.shape == (*bucket, 3)
    scale = max(bucket[0] / shape[0], bucket[1] / shape[1])
    rows, columns = np.nonzero(piece.pixels[..., 0] > 127)
    assert abs(rows.min() + piece.top - top * scale) < 2
    assert abs(columns.min() + piece.left - left * scale) < 2
    assert (piece.top == 0) or (piece.left == 0)
    assert abs(len(rows) / scale**2 / ((bottom - top) * (right - left)) - 1) < 0.1


# --- The report -------------------------------------------------------------------------------


def test_names_of_files_are_text_in_the_report(tmp_path: Path) -> None:
    """Names are strangers' text; and the page needs no other file."""
    evil = "<script>alert(1)</script>"
    numbers = {"face": 100.0, "sharpness": 50.0}
    kept = [{"person": evil, "name": f"{evil}/{n}", **numbers} for n in range(2)]
    rejected = [{"person": "bo", "name": evil, "kind": "blurred", "reason": evil}]
    write_report(tmp_path / "report.html", kept, rejected, lambda _: {})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "2 of 3 photos are used, of 1 people" in page
    assert "http" not in page
