"""What strangers give the command: odd tables, files, names, folders and nets."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pack.infinite_id.errors import UserError
from pack.infinite_id.faces.face import Photo
from pack.infinite_id.metrics import command, features
from pack.infinite_id.metrics.calibrate import calibrate, describe
from pack.infinite_id.metrics.features import Store
from pack.infinite_id.metrics.material import read_material
from pack.infinite_id.metrics.scores import Measure, Vector
from PIL import Image


class Net:
    """A face net that sees colours."""

    name, digest, licence, measure = "net", "0", "none", Measure.COSINE

    def look(self, photo: Photo) -> Vector | None:
        return photo[0, 0].astype(np.float32) + 1


@pytest.fixture(autouse=True)
def one_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_load_faces", lambda _: [Net()])


def paint(path: Path, *colour: int, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    paint(tmp_path / "photo.png", 250, 100, 10)
    paint(tmp_path / "other.png", 240, 120, 30)
    paint(tmp_path / "a.png", 200, 90, 60)
    return tmp_path


def write(folder: Path, *lines: str, head: str = "file,kind,person,method,prompt,seed") -> Path:
    path = folder / "own.csv"
    text = "\r\n".join([head, *lines]) + "\r\n"
    path.write_bytes(text.encode("utf-8-sig"))
    return path


PHOTO = "photo.png,photo,anna"


def score(table: Path, *options: str) -> int:
    return command.main(["score", str(table), "--out", str(table.parent / "out"), *options])


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "out" / "scores.csv").open(encoding="utf-8", newline="") as file:
        return {Path(row["file"]).name: row for row in csv.DictReader(file)}


def figures(folder: Path) -> Any:
    return json.loads((folder / "out" / "figures.json").read_text(encoding="utf-8"))


def test_tables_of_all_kinds(folder: Path) -> None:
    """A mark at the start, Windows' line ends, empty lines, quotes, paths of all kinds."""
    paint(folder / "sub" / "zoë & co <1>.png", 1, 2, 3)
    paint(folder / "abs.png", 9, 8, 7)
    table = write(
        folder,
        PHOTO,
        "",
        'a.png,picture,anna,m,"smiling, ""in"" the\nrain",7',
        f"{folder / 'abs.png'},picture,anna,m,p,1",
        f"sub/../../{folder.name}/sub/zoë & co <1>.png,picture,anna,m,p,2",
    )
    assert score(table) == 0
    found = rows(folder)
    assert found["a.png"]["prompt"] == 'smiling, "in" the\nrain'
    assert [row["problem"] for row in found.values()] == ["", "", ""]
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "zo%C3%AB%20%26%20co%20%3C1%3E.png" in page


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a.png,picture,anna,m,a man, smiling"], "line 2 has more fields.*in quotes"),
        (["a.png,picture,anna,m,a man, smiling,3"], "line 2 has more fields.*in quotes"),
        (["a.png,picture,anna,m,p,1", "a.png,picture,anna,m,p,2"], "picture of line 2 again"),
        ([",picture,anna"], "line 2: file and person must be there"),
    ],
)
def test_lines_that_say_something_else_than_they_mean(
    folder: Path, lines: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        read_material(write(folder, *lines))


@pytest.mark.parametrize(
    "data",
    [
        "file,kind,person\nzoë.png,picture,a\n".encode("latin-1"),
        "file,kind,person\n".encode("utf-16"),
        b'file,kind,person\n"' + b"x" * 200_000 + b'",picture,a\n',
    ],
    ids=["latin-1", "utf-16", "long"],
)
def test_a_table_that_cannot_be_read(folder: Path, data: bytes) -> None:
    (folder / "own.csv").write_bytes(data)
    with pytest.raises(UserError, match="Expected a CSV file with commas, in UTF-8"):
        read_material(folder / "own.csv")


def test_a_column_that_is_named_twice(folder: Path) -> None:
    with pytest.raises(UserError, match="each once"):
        read_material(write(folder, "a,b,c,d", head="file,kind,person,file"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="it has no pipes that lie in folders")
def test_files_that_are_no_pictures(folder: Path) -> None:
    (folder / "folder.png").mkdir()
    (folder / "text.png").write_text("no picture")
    Image.new("1", (20_000, 6_000)).save(folder / "huge.png")
    Image.new("1", (60_000, 6_000)).save(folder / "bomb.png")
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    os.mkfifo(folder / "pipe.png")
    names = ["folder.png", "text.png", "huge.png", "bomb.png", "moving.gif", "pipe.png", "x\0.png"]
    names += ["n" * 300 + ".png"]
    table = write(folder, PHOTO, *(f"{name},picture,anna,m,p,{n}" for n, name in enumerate(names)))
    assert score(table) == 0
    problems = {name: row["problem"] for name, row in rows(folder).items()}
    assert [problems[name] for name in names] == [
        "it is no file",
        "it is damaged or no picture",
        "the picture has 20000x6000 pixels",
        "the picture has too many pixels",
        "",
        "it is no file",
        "the file is missing",
        "the file cannot be read: File name too long",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all names are text")
def test_a_name_that_is_no_text(folder: Path) -> None:
    """Bytes that are not UTF-8: in a folder of pictures, and in the name of that folder."""
    root = folder / os.fsdecode(b"p\xff")
    plan = {
        "people": {"anna": {"photos": ["photo.png"], "noun": "woman"}},
        "prompts": {"p": "x"},
        "seeds": [0],
        "methods": {"m": {"workflow": "none.json", "inputs": {}}},
    }
    paint(root / "photo.png", 1, 2, 3)
    paint(root / "m" / "anna" / "p" / "0.png", 1, 2, 3)
    paint(root / "m" / os.fsdecode(b"\xfe.png"), 1, 2, 3)
    (root / "plan.json").write_text(json.dumps(plan))
    assert command.main(["score", str(root), "--out", str(root / "out")]) == 0
    found = json.loads((root / "out" / "figures.json").read_text(encoding="utf-8"))
    assert found["problems"][0].startswith("m/\\udcfe.png: the plan has no such picture")


def test_a_second_copy_of_a_photo_says_nothing_new(folder: Path) -> None:
    """It would make the person's own photos look more alike, and divide by an angle of 0."""
    (folder / "copy.png").write_bytes((folder / "photo.png").read_bytes())
    table = write(folder, PHOTO, "copy.png,photo,anna", "a.png,picture,anna")
    assert score(table) == 0
    assert figures(folder)["problems"] == ["copy.png: a second copy of a photo of anna"]
    assert figures(folder)["baselines"]["net"]["anna"]["own"] is None
    assert "copy-paste net" not in rows(folder)["a.png"]


def test_the_first_picture_does_not_decide_the_columns(folder: Path) -> None:
    """Its person has no photo, and so no score."""
    table = write(folder, "a.png,picture,zoe", PHOTO, "other.png,photo,anna", "a.png,picture,anna")
    assert score(table) == 0
    with (folder / "out" / "scores.csv").open() as file:
        head = file.readline().strip().split(",")
    assert head[5:] == ["similarity net", "% of own net", "copy-paste net", "problem"]


def test_warnings_tell_what_an_interval_is_of(folder: Path) -> None:
    lines = [PHOTO.replace("anna", f"p{n}") for n in range(12)]
    lines += [f"a.png,picture,p{n},one,x" for n in range(12)]
    lines += [f"a.png,picture,p{n},two,x" for n in range(11)]
    assert score(write(folder, *lines, "other.png,photo,p3")) == 0
    assert figures(folder)["warnings"] == [
        "one: too few people for an interval of % of own net, copy-paste net (1); the true one is "
        "wider. Score 10 or more.",
        "two: too few people for an interval of % of own net, copy-paste net (1); the true one is "
        "wider. Score 10 or more.",
        "The methods have pictures of different people or prompts: part of what their figures "
        "differ by may be due to that.",
        "Some people have a single photo: they have no baseline and no copy-paste score.",
    ]


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (["similarity net=0.1"], 0),
        (["similarity net=0.9999", "similarity net=0.1"], 2),
        (["copy-paste net=0"], 2),
        (["similarity net=nan"], 1),
        (["similarity net"], 1),
        (["similarity net=much"], 1),
        (["CLIP-T=0.2"], 1),
    ],
)
def test_limits(folder: Path, limits: list[str], code: int) -> None:
    """The stricter of two counts; what is not known is below any; no number is no limit."""
    options = [part for limit in limits for part in ("--fail-under", limit)]
    assert score(write(folder, PHOTO, "a.png,picture,anna"), *options) == code


def damage(path: Path) -> None:
    """In the middle: it opens, and fails when it is read."""
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)


def other_version(path: Path) -> None:
    path.unlink()
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE features (content TEXT, vector BLOB)")
    base.close()


def no_base(path: Path) -> None:
    path.write_bytes(b"no base at all" * 100)


@pytest.mark.parametrize("spoil", [damage, other_version, no_base])
def test_stored_features_that_are_of_no_use(
    folder: Path, spoil: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(folder, PHOTO, "a.png,picture,anna")
    assert score(table) == 0
    spoil(folder / "out" / "features.sqlite")
    assert score(table) == 1
    assert "features.sqlite cannot be used" in capsys.readouterr().err
    (folder / "out" / "features.sqlite").unlink()
    assert score(table) == 0


def test_a_report_folder_that_is_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").write_text("")
    assert score(write(folder, PHOTO, "a.png,picture,anna")) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_a_locked_store_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_PATIENCE", 0.1)
    store = Store(tmp_path / "f.sqlite")
    other = sqlite3.connect(tmp_path / "f.sqlite")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match=r"locked.*no other command is using the file"):
        store.put([("net", "content", None)])
    other.rollback()
    store.put([("net", "content", None)])
    assert store.has("net", "content")
    store.close()
    other.close()


def test_several_commands_share_a_store(tmp_path: Path) -> None:
    """Eight begin at once, on a file that is not there yet."""

    def work(number: int) -> None:
        store = Store(tmp_path / "f.sqlite")
        for n in range(20):
            store.put([(str(number), str(n), None)])
        store.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    store = Store(tmp_path / "f.sqlite")
    assert all(store.has(str(n), str(m)) for n in range(8) for m in range(20))
    store.close()


def test_a_calibration_of_few(folder: Path) -> None:
    """Two pairs of two people, one of one: no correlation, and no 0.1 %."""
    photos: Sequence[tuple[str, Path]] = [
        ("anna", folder / "photo.png"),
        ("anna", folder / "other.png"),
        ("bert", folder / "a.png"),
    ]

    class Second(Net):
        name, digest = "second", "2"

    store = Store(folder / "f.sqlite")
    page = describe(calibrate(photos, [Net(), Second()], store))
    store.close()
    assert "| threshold at 1 % false accepts | too few pairs | too few pairs |" in page
    assert "unknown over pairs of one person" in page
    assert "nan" not in page
