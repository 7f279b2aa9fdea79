"""Folders and files that cannot be read: a sentence, and every node is there all the same."""

from __future__ import annotations

import asyncio
import builtins
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import folder_paths
import pack.nodes
import pytest
import torch
from pack.bench import adapter_files
from pack.infinite_id.adapters import formats
from pack.infinite_id.adapters.formats import FormatError
from pack.infinite_id.faces.face import FaceError
from pack.infinite_id.faces.model_pack import list_packs
from pack.infinite_id.tensor_files import open_tensors, write_tensors
from pack.nodes import diagnose, finding, folders, inventory, slow_folders
from pack.nodes.identity_files import SaveIdentity
from pack.nodes.load import LoadFaceAnalysis, LoadInfiniteIDModel

ERRORS = {
    "permission": (PermissionError(errno.EACCES, "Permission denied"), "Give the account"),
    "drive": (OSError(errno.EHOSTDOWN, "Host is down"), "Connect the drive"),
    "time": (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "Connect the drive"),
    "loop": (OSError(errno.ELOOP, "Too many levels of symbolic links"), "Remove the link"),
}
KINDS = (*folders.ADAPTERS, folders.FACE_MODELS, folders.IDENTITIES)
SNAPSHOT = Path(__file__).parents[1] / "unit" / "nodes_snapshot.json"
NODES = len(json.loads(SNAPSHOT.read_text(encoding="utf-8")))


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A models folder with an adapter in each kind's folder, the only one that is searched."""
    root = tmp_path / "models"
    monkeypatch.setattr(folder_paths, "models_dir", str(root))
    known = folder_paths.folder_names_and_paths
    empty: dict[str, Any] = {name: ([], set(endings)) for name, (_, endings) in known.items()}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", empty)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for kind in ("output", "input"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    folders.register()
    for name in ("clip_vision", "custom_nodes"):
        folder_paths.add_model_folder_path(name, str(root / name))
    for name in KINDS:
        (root / name).mkdir(parents=True)
        (root / name / "a.safetensors").write_bytes(b"none")
    pack_folder = root / folders.FACE_MODELS / "models" / "buffalo_l"
    pack_folder.mkdir(parents=True)
    (pack_folder / "net.onnx").write_bytes(b"none")
    slow_folders.warn.cache_clear()
    yield root
    slow_folders.warn.cache_clear()


def fail_below(monkeypatch: pytest.MonkeyPatch, folder: Path, error: OSError) -> None:
    """Every call of the file system below a folder fails, as a drive that is down does."""

    def spoil(call: Callable[..., Any]) -> Callable[..., Any]:
        def spoiled(path: Any = ".", *args: Any, **options: Any) -> Any:
            if isinstance(path, str | os.PathLike) and Path(path).is_relative_to(folder):
                raise type(error)(error.errno, error.strerror, str(path))
            return call(path, *args, **options)

        return spoiled

    for name in ("scandir", "listdir", "stat", "lstat", "open"):
        monkeypatch.setattr(os, name, spoil(getattr(os, name)))
    monkeypatch.setattr(os.path, "getmtime", spoil(os.path.getmtime))
    monkeypatch.setattr(builtins, "open", spoil(builtins.open))


def schemas() -> list[Any]:
    extension = pack.nodes.InfiniteIDExtension()
    nodes = asyncio.run(extension.get_node_list())
    return [node.define_schema() for node in nodes]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ERRORS)
def test_every_node_is_there(
    models: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    error, advice = ERRORS[name]
    for warm in (False, True):  # the host's list is of an earlier time
        if warm:
            schemas()
        with monkeypatch.context() as patch:
            fail_below(patch, models / kind, error)
            assert len(schemas()) == NODES
            expected = [k for k in folders.ADAPTERS if k != kind]
            found = [c.partition("/")[0] for c in folders.list_adapters()]
            assert [c if c in folders.ADAPTERS else folders.OWN for c in found] == expected
            assert (folders.list_packs() == {}) == (kind == folders.FACE_MODELS)
            text = diagnose.compose()
        assert f"{models / kind} cannot be read ({error.strerror}). {advice}" in text
        assert "## Workflows" in text
    assert len(folders.list_adapters()) == len(folders.ADAPTERS)


@pytest.mark.parametrize("name", ERRORS)
def test_the_loaders_say_which_folder(
    models: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    error, advice = ERRORS[name]
    with monkeypatch.context() as patch:
        fail_below(patch, models / "ipadapter", error)
        told = LoadInfiniteIDModel.validate_inputs("ipadapter/a.safetensors")
    assert f"{models / 'ipadapter'}" in str(told)
    assert f"cannot be read ({error.strerror}). {advice}" in str(told)
    with monkeypatch.context() as patch:
        fail_below(patch, models / "insightface", error)
        told = LoadFaceAnalysis.validate_inputs("buffalo_l")
        assert f"cannot be read ({error.strerror}). {advice}" in str(told)
    assert LoadInfiniteIDModel.validate_inputs("ipadapter/a.safetensors") is True
    assert LoadFaceAnalysis.validate_inputs("buffalo_l") is True
    assert LoadFaceAnalysis.validate_inputs(None) is True


def test_a_drive_that_never_answers(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start waits for it once and for a while, and the list is right once it is back."""
    back, scandir = threading.Event(), os.scandir

    def hang(path: Any = ".") -> Any:
        if Path(path).is_relative_to(models / "ipadapter"):
            back.wait(30)
        return scandir(path)

    monkeypatch.setattr(slow_folders, "PATIENCE", 0.2)
    monkeypatch.setattr(os, "scandir", hang)
    start = time.monotonic()
    assert folders.list_adapters() == ["a.safetensors", "instantid/a.safetensors"]
    for _ in range(20):
        folders.list_adapters()
    assert time.monotonic() - start < 2
    assert "no answer in 0.2 seconds" in "".join(folders.list_problems(["ipadapter"]))
    back.set()
    for thread in [*slow_folders._unanswered.values()]:
        thread.join()
    assert "ipadapter/a.safetensors" in folders.list_adapters()


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
@pytest.mark.parametrize("name", ["permission", "drive", "time"])
def test_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, name: str
) -> None:
    error, _ = ERRORS[name]
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"none")
    fail_below(monkeypatch, path, error)
    monkeypatch.setattr("io.open", builtins.open)
    with pytest.raises(FormatError, match=rf"a{ending} cannot be read \({error.strerror}\)"):
        formats.load(path)


def test_a_folder_named_like_a_file(models: Path) -> None:
    (models / "ipadapter" / "b.safetensors").mkdir()
    assert "ipadapter/b.safetensors" not in folders.list_adapters()
    with pytest.raises(FormatError, match="is a folder"), open_tensors(models / "ipadapter"):
        pass
    with pytest.raises(FileNotFoundError, match=r"no adapter 'b\.safetensors'"):
        folders.find_adapter("ipadapter/b.safetensors")


def test_odd_names_and_links(models: Path) -> None:
    folder = models / "ipadapter"
    odd = ["new\nline.safetensors", "\udcff.safetensors", "n" * 200 + ".safetensors"]
    for name in odd:
        os.close(os.open(folder / name, os.O_CREAT))
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self.safetensors").symlink_to(folder / "self.safetensors")
    assert {f"ipadapter/{name}" for name in odd} <= set(folders.list_adapters())
    diagnose.compose().encode()
    assert all("\n" not in slow_folders.show(name) for name in odd)
    assert len(list(slow_folders.walk(folder, lambda *_: None))) == 1 + len(odd)


def test_a_file_in_a_folders_place(models: Path) -> None:
    (models / "gone").write_bytes(b"")
    for path in (models / "gone", models / "nowhere"):
        folder_paths.add_model_folder_path("ipadapter", str(path))
        folder_paths.add_model_folder_path("insightface", str(path))
    assert len(schemas()) == NODES
    text = diagnose.compose()
    assert f"{models / 'gone'} (it is a file, not a folder)" in text
    assert f"{models / 'nowhere'} (there is no such folder)" in text


def test_saves_at_once_share_no_file(tmp_path: Path) -> None:
    path, count = tmp_path / "a.safetensors", 8
    start, taken = threading.Barrier(count), []

    def save(value: int) -> None:
        start.wait()
        try:
            write_tensors({"x": torch.full((10**5,), float(value))}, path, {}, is_new=True)
        except FileExistsError:
            taken.append(value)

    threads = [threading.Thread(target=save, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == count - 1
    with open_tensors(path) as file:
        assert len(set(file.read("x").tolist())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be written.*choose another name"):
        write_tensors({"x": torch.zeros(1)}, tmp_path / "file" / "a.safetensors", {})
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(OSError, match="cannot be written"):
        write_tensors({"x": torch.zeros(1)}, tmp_path / "a.safetensors", {})
    assert {p.name for p in tmp_path.iterdir()} == {"file", "a.safetensors"}
    write_tensors({"x": torch.zeros(1)}, tmp_path / "new" / "a.safetensors", {})
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.safetensors"]


def test_adapter_files_are_still_read(models: Path) -> None:
    tensors = adapter_files.make("FaceID", 64, lora_rank=0)
    adapter_files.write_safetensors(models / "ipadapter" / "a.safetensors", tensors)
    assert formats.load(folders.find_adapter("ipadapter/a.safetensors")).name == "a.safetensors"


@pytest.mark.parametrize("name", ["UP.SAFETENSORS", "Up.SafeTensors"])
def test_endings_in_capitals(models: Path, name: str) -> None:
    """The host lists such files, and Windows writes them."""
    tensors = adapter_files.make("FaceID", 64, lora_rank=0)
    path = adapter_files.write_safetensors(models / "ipadapter" / "b.safetensors", tensors)
    path.rename(path.with_name(name))
    assert f"ipadapter/{name}" in folders.list_adapters()
    assert formats.load(folders.find_adapter(f"ipadapter/{name}")).name == name
    for folder in (models / folders.IDENTITIES, Path(folder_paths.get_input_directory())):
        (folder / name).write_bytes(b"none")
    assert {name, f"{name} [input]"} <= set(folders.list_identities())


@pytest.mark.parametrize("name", ["a.sft", "a.SAFETENSORS", "a.SFT"])
def test_clip_vision_under_the_hosts_other_endings(models: Path, name: str) -> None:
    (models / "clip_vision").mkdir()
    tensors = {"vision_model.embeddings.class_embedding": torch.zeros(1280)}
    path = adapter_files.write_safetensors(models / "clip_vision" / "b.safetensors", tensors)
    path.rename(path.with_name(name))
    assert finding.find_clip_vision("CLIP ViT-H/14") == path.with_name(name)
    assert [line.partition("): ")[2] for line in inventory.list_clip_vision()] == ["CLIP ViT-H/14"]


SPOIL: dict[str, Callable[[Path], object]] = {
    "empty": lambda net: net.write_bytes(b""),
    "cut off": lambda net: net.write_bytes(net.read_bytes()[: net.stat().st_size // 2]),
    "a page": lambda net: net.write_bytes(b"<html>not found</html>"),
    "a folder": lambda net: (net.unlink(), net.mkdir()),
    "a dead link": lambda net: (net.unlink(), net.symlink_to(net.with_name("gone"))),
}


@pytest.mark.parametrize("how", SPOIL)
@pytest.mark.parametrize("net", ["det_yunet.onnx", "rec_fr.onnx", "further.onnx"])
def test_a_face_pack_with_a_damaged_net(models: Path, how: str, net: str) -> None:
    """The sentence names the file, and does not say that another one were missing."""
    source = list_packs([Path(os.environ["INFINITE_ID_FACE_ROOT"])])["yunet-fr"]
    folder = models / folders.FACE_MODELS / "models" / "hurt"
    folder.mkdir()
    for path in source.glob("*.onnx"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "further.onnx").write_bytes((source / "rec_fr.onnx").read_bytes())
    SPOIL[how](folder / net)
    with pytest.raises(FaceError, match=rf"{net} in the face model folder 'hurt' .*nothing else"):
        LoadFaceAnalysis.execute("hurt", "CPU", 640)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", ["a\0b", "\ud800", "n" * 5000])
def test_names_that_no_file_has(name: str) -> None:
    assert "There is no adapter" in str(LoadInfiniteIDModel.validate_inputs(name))
    assert "There is no adapter" in str(LoadInfiniteIDModel.validate_inputs(f"ipadapter/{name}"))
    if len(name) < 5000:
        nobody: Any = None
        with pytest.raises(ValueError, match="give the file a name"):
            SaveIdentity.execute(nobody, f"identities/{name}", "number", False)


@pytest.mark.usefixtures("models")
def test_diagnose_of_an_account_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container under a number that no user has."""

    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    assert "## Workflows" in diagnose.compose()


@pytest.mark.parametrize("name", ["permission", "drive", "time"])
def test_one_of_the_prepared_folders_cannot_be_read(
    models: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    error, advice = ERRORS[name]
    root = models / "data"
    folder_paths.add_model_folder_path(folders.DATASETS, str(root))
    for part in "abc":
        (root / part).mkdir(parents=True)
        (root / part / folders.PREPARED).write_bytes(b"")
    with monkeypatch.context() as patch:
        fail_below(patch, root / "b", error)
        assert folders.list_prepared() == ["a", "c"]
        assert folders.find_prepared("c") == root / "c"
        with pytest.raises(FileNotFoundError, match=rf"no prepared photos 'b'.*{advice}"):
            folders.find_prepared("b")
    assert folders.find_prepared("b") == root / "b"
