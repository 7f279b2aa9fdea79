"""The command on drawn people with the miniature's face net: every picture scored or reported."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pack.infinite_id.faces import detection, model_pack
from pack.infinite_id.metrics import command, features
from pack.infinite_id.metrics.faces import PackNet
from pack.miniature.faces import render
from pack.miniature.shapes import WEIGHTS
from pack.miniature.world.identity import draw_identity
from pack.miniature.world.scene import draw_scene

PACK = WEIGHTS / "insightface" / "models" / "miniature"
PEOPLE, PROMPTS, SEEDS = ("anna", "bert"), {"a": "a {noun}", "b": "a {noun} outside"}, (0, 1)


def draw(person: int, n: int) -> Any:
    """BGR, in which the miniature's detector finds a face."""
    return render(draw_identity(40 + person), draw_scene(300 + 17 * person + n, "photo")).pixels[
        ..., ::-1
    ]


def write(path: Path, picture: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.ascontiguousarray(picture))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods: one draws the person, the other the other person; three files are bad."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, person in enumerate(PEOPLE):
        for n in range(3):
            write(folder / "photos" / person / f"{n}.png", draw(number, n))
        for method in ("right", "wrong"):
            shown = number if method == "right" else 1 - number
            for p, prompt in enumerate(PROMPTS):
                for seed in SEEDS:
                    write(
                        folder / method / person / prompt / f"{seed}.png",
                        draw(shown, 3 + 2 * p + seed),
                    )
    plan = {
        "people": {
            person: {"photos": [f"photos/{person}/{n}.png" for n in range(3)], "noun": "person"}
            for person in PEOPLE
        },
        "prompts": PROMPTS,
        "seeds": SEEDS,
        "methods": {m: {"workflow": "none.json", "inputs": {}} for m in ("right", "wrong")},
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    write(folder / "wrong" / "anna" / "a" / "0.png", np.full((64, 64, 3), 90, np.uint8))
    (folder / "wrong" / "anna" / "a" / "1.png").write_bytes(b"\x89PNG no more")
    (folder / "wrong" / "bert" / "b" / "1.png").unlink()
    write(folder / "right" / "bert" / "b" / "7.png", draw(1, 9))
    return folder


def run(pictures: Path, out: Path, *options: str) -> int:
    nets = ["--face-pack", str(PACK), "--provider", "CPU", "--detection-size", "256"]
    return command.main(["score", str(pictures), "--out", str(out), *nets, *options])


@pytest.fixture(scope="module")
def report(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    assert run(pictures, out) == 0
    return out


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_picture_has_a_line_and_bad_ones_a_reason(report: Path) -> None:
    found = rows(report)
    assert len(found) == 16
    reasons = {
        tuple(row[name] for name in ("method", "person", "prompt", "seed")): row["problem"]
        for row in found
        if row["problem"]
    }
    assert reasons == {
        ("wrong", "anna", "a", "0"): "no face for miniature",
        ("wrong", "anna", "a", "1"): "it is damaged or no picture",
        ("wrong", "bert", "b", "1"): "the file is missing",
    }
    figures = json.loads((report / "figures.json").read_text())
    assert figures["problems"] == [
        "wrong/anna/a/1.png: it is damaged or no picture",
        "wrong/bert/b/1.png: the file is missing",
        "right/bert/b/7.png: the plan has no such picture; it is not scored",
        "wrong/anna/a/0.png: no face for miniature",
    ]
    assert any("2 of 8 pictures are missing" in warning for warning in figures["warnings"])
    assert any("too few people for an interval (2)" in warning for warning in figures["warnings"])


def test_scores_are_those_of_the_net(report: Path, pictures: Path) -> None:
    """By the analysis itself: similarity, percent and copy-paste of one picture."""
    analysis = model_pack.load_analysis(PACK, "CPU", 256)

    def embed(path: Path) -> np.ndarray:
        vector = detection.detect(analysis, cv2.imread(str(path)))[0].embedding
        return vector / np.linalg.norm(vector)

    photos = [embed(pictures / "photos" / "anna" / f"{n}.png") for n in range(3)]
    picture = embed(pictures / "wrong" / "anna" / "b" / "1.png")
    (row,) = [
        row
        for row in rows(report)
        if (row["method"], row["person"], row["prompt"], row["seed"]) == ("wrong", "anna", "b", "1")
    ]
    similarity = picture @ photos[0]
    own = np.mean([photos[0] @ photos[1], photos[0] @ photos[2], photos[1] @ photos[2]])
    others = photos[1] + photos[2]
    others /= np.linalg.norm(others)
    angles = [np.arccos(picture @ others), np.arccos(similarity), np.arccos(others @ photos[0])]
    assert float(row["similarity miniature"]) == pytest.approx(similarity, abs=1e-4)
    assert float(row["% of own miniature"]) == pytest.approx(100 * similarity / own, abs=1e-2)
    copied = (angles[0] - angles[1]) / angles[2]
    assert float(row["copy-paste miniature"]) == pytest.approx(copied, abs=1e-3)


def test_means_are_over_people_and_count_no_face_as_zero(report: Path) -> None:
    figures = json.loads((report / "figures.json").read_text())["methods"]["wrong"]
    by_person: dict[str, list[float]] = {"anna": [], "bert": []}
    for row in rows(report):
        if row["method"] == "wrong" and "face" not in row["problem"] and not row["problem"]:
            by_person[row["person"]].append(float(row["similarity miniature"]))
    by_person["anna"].append(0.0)
    means = [sum(own) / len(own) for own in by_person.values()]
    found = figures["similarity miniature"]["mean"]["mean"]
    assert found == pytest.approx(sum(means) / 2, abs=2e-4)
    assert figures["no face miniature"]["mean"]["mean"] == pytest.approx(1 / 6, abs=1e-4)


def test_the_right_person_is_more_alike(report: Path) -> None:
    figures = json.loads((report / "figures.json").read_text())
    difference = figures["methods"]["wrong"]["similarity miniature"]["difference"]
    assert figures["against"] == "right"
    assert difference["high"] < -0.3
    (net,) = figures["nets"]
    assert re.fullmatch("[0-9a-f]{64}", net["sha256"])
    assert net["licence"]


def test_the_page_needs_no_other_file(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert all(
        source.startswith("data:image/jpeg,") for source in re.findall('src="([^"]*)"', page)
    )
    assert page.count("<figure>") == 14
    assert "../" in page
    assert len(page) < 40e6


def test_names_of_strangers_stay_text(tmp_path: Path) -> None:
    name = "</script><img src=x onerror=alert(1)>"
    write(tmp_path / "photo.png", draw(0, 0))
    write(tmp_path / "picture.png", draw(0, 1))
    (tmp_path / "own.csv").write_text(
        f"file,kind,person,method,prompt\nphoto.png,photo,{name},,\npicture.png,picture,{name},m,p\n"
    )
    assert run(tmp_path / "own.csv", tmp_path / "out") == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert page.count("</script>") == 2


def test_a_second_run_computes_nothing(
    report: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (report / name).read_bytes() for name in ("scores.csv", "figures.json")}

    def refuse(*_: Any) -> Any:
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(PackNet, "look", refuse)
    assert run(pictures, report) == 0
    assert before == {name: (report / name).read_bytes() for name in before}


def test_a_killed_run_goes_on(
    report: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH", 4)
    look, calls = PackNet.look, []

    def killed(self: PackNet, photo: Any) -> Any:
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return look(self, photo)

    with monkeypatch.context() as patch:
        patch.setattr(PackNet, "look", killed)
        with pytest.raises(KeyboardInterrupt):
            run(pictures, tmp_path)
    again: list[int] = []
    monkeypatch.setattr(PackNet, "look", lambda self, p: (again.append(1), look(self, p))[1])
    assert run(pictures, tmp_path) == 0
    assert (tmp_path / "scores.csv").read_bytes() == (report / "scores.csv").read_bytes()
    assert len(again) == 15 - 8, "two batches of four were kept"


def test_fail_under(pictures: Path, report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pictures, report, "--fail-under", "similarity miniature=-1") == 0
    assert run(pictures, report, "--fail-under", "similarity miniature=0.5") == 2
    assert "below 0.5: wrong: similarity miniature is" in capsys.readouterr().err
    assert run(pictures, report, "--fail-under", "beauty=1") == 1
    assert "there is no 'beauty'; there are similarity miniature" in capsys.readouterr().err


def test_mistakes_are_explained(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.csv").write_text("file,kind,person\n")
    (tmp_path / "kind.csv").write_text("file,kind,person\na.png,movie,anna\n")
    (tmp_path / "columns.csv").write_text("file,who\n")
    for source, words in (
        ("gone", "neither a folder with a plan.json nor a .csv"),
        ("empty.csv", "names no pictures"),
        ("kind.csv", "line 2: the kind is 'movie'"),
        ("columns.csv", "Expected the columns file, kind, person"),
    ):
        assert run(tmp_path / source, tmp_path / "out") == 1
        assert words in capsys.readouterr().err
    assert command.main(["score", str(pictures), "--out", str(tmp_path / "out")]) == 1
    assert "give --face-pack, --clip or both" in capsys.readouterr().err
    assert run(pictures, tmp_path / "out", "--face-pack", str(PACK)) == 1
    assert "Two face nets are called miniature" in capsys.readouterr().err
    assert run(pictures, tmp_path / "out", "--against", "nobody") == 1
    assert "the methods are right, wrong" in capsys.readouterr().err
