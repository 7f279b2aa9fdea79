"""Save Identity and Load Identity in the host's folders, and the pictures before and after."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
import pytest
import torch
from comfy_api.latest import io
from pack.infinite_id.adapters import formats
from pack.infinite_id.adapters.formats import FormatError
from pack.infinite_id.application import Application
from pack.infinite_id.host.patch import apply
from pack.infinite_id.identities import mixing
from pack.infinite_id.identities.identity import Identity, Source
from pack.nodes import folders
from pack.nodes.identity_files import LoadIdentity, SaveIdentity
from pack.nodes.identity_gallery import SIDE, IdentityGallery
from PIL import Image

if TYPE_CHECKING:
    from pack.infinite_id.adapters.adapter import Adapter
    from pack.tests.host.world import World


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's folders, fresh: output, input, temp and the pack's own."""
    for name in ("output", "input", "temp"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {})
    (tmp_path / "models" / "infinite_id_identities").mkdir(parents=True)
    folders.register()
    return tmp_path


def save(identity: Identity, prefix: str = "identities/person", **changes: Any) -> dict[str, Any]:
    """What the node shows."""
    settings = {"overwrite": "number", "include_thumbnail": True} | changes
    shown = SaveIdentity.execute(identity, prefix, **settings).ui
    assert isinstance(shown, dict)
    return shown


def load(name: str, adapter: Adapter) -> tuple[Identity, torch.Tensor, str]:
    assert LoadIdentity.validate_inputs(name) is True
    identity, thumbnails, info = LoadIdentity.execute(name, adapter).args
    return identity, thumbnails, info


def picture(world: World, identity: Identity) -> torch.Tensor:
    return world.sample(apply(world.model, Application(identity)))


@pytest.mark.parametrize("kind", ["identity", "stack", "sweep"])
def test_the_picture_is_the_same_to_the_last_bit(least: World, base: Path, kind: str) -> None:
    """Identity and adapter both through files."""
    pair = [least.identity, least.other]
    saved = {
        "identity": lambda: least.identity,
        "stack": lambda: mixing.stack(pair, [0.3, 0.7]),
        "sweep": lambda: mixing.cross_fade(pair, [0.2, 0.8]),
    }[kind]()
    save(saved)
    formats.save(saved.adapter, base / "adapter.safetensors", torch.float32)
    adapter = formats.load(base / "adapter.safetensors")
    loaded, _, _ = load("identities/person_00001_.safetensors [output]", adapter)
    assert loaded.adapter is adapter
    expected = picture(least, saved)
    assert torch.equal(picture(least, loaded), expected)
    assert not torch.equal(expected, least.sample(least.model))


def test_an_adapter_of_another_precision_is_refused(least: World, base: Path) -> None:
    save(least.identity)
    formats.save(least.identity.adapter, base / "half.safetensors", torch.float16)
    with pytest.raises(FormatError, match=r"'unsaved adapter'.*connected is 'half.safetensors'"):
        load(
            "identities/person_00001_.safetensors [output]",
            formats.load(base / "half.safetensors"),
        )


# --- Where files go ------------------------------------------------------------------------------


def test_numbers_count_up_and_replace_replaces(least: World, base: Path) -> None:
    shown = [save(least.identity), save(least.identity)]
    shown += [save(identity, overwrite="replace") for identity in (least.identity, least.other)]
    names = ["person_00001_", "person_00002_", "person", "person"]
    for ui, name in zip(shown, names, strict=True):
        assert ui["identities"] == [
            {"filename": f"{name}.safetensors", "subfolder": "identities", "type": "output"}
        ]
    files = sorted(path.name for path in (base / "output" / "identities").iterdir())
    assert files == sorted({f"{name}.safetensors" for name in names})
    loaded, _, _ = load("identities/person.safetensors [output]", least.other.adapter)
    assert torch.equal(loaded.tokens, least.other.tokens)


def test_says_where_and_how_large(least: World, base: Path) -> None:
    (text,) = save(least.identity, "identities/friends/anna")["text"]
    size = (base / "output" / "identities" / "friends" / "anna_00001_.safetensors").stat().st_size
    assert text == f"Saved output/identities/friends/anna_00001_.safetensors, {size / 1e6:.2f} MB."


@pytest.mark.parametrize("prefix", ["", " ", "identities/..", "."])
def test_a_file_without_a_name(least: World, base: Path, prefix: str) -> None:
    with pytest.raises(ValueError, match="give the file a name in filename_prefix"):
        save(least.identity, prefix)
    assert list(base.rglob("*.safetensors")) == []


@pytest.mark.parametrize("prefix", ["../person", "identities/../../person", "/person", "a/../../b"])
@pytest.mark.parametrize("overwrite", ["number", "replace"])
def test_nothing_is_saved_outside_the_output_folder(
    least: World, base: Path, prefix: str, overwrite: str
) -> None:
    before = sorted(base.rglob("*"))
    with pytest.raises(Exception, match="outside the output folder"):
        save(least.identity, prefix, overwrite=overwrite)
    assert sorted(base.rglob("*")) == before


# --- Where files are found -----------------------------------------------------------------------


def test_saved_uploaded_and_kept_files_are_listed(least: World, base: Path) -> None:
    save(least.identity, "identities/friends/anna")
    save(least.identity, "elsewhere/anna")
    source = base / "output" / "identities" / "friends" / "anna_00001_.safetensors"
    kept = base / "models" / "infinite_id_identities"
    (kept / "family").mkdir()
    for target in (base / "input" / "b.safetensors", kept / "family" / "c.safetensors"):
        target.write_bytes(source.read_bytes())
    for other in ("photo.png", "d.bin", ".e.safetensors.part"):
        (base / "input" / other).touch()
        (kept / other).touch()
        (base / "output" / "identities" / other).touch()
    names = [
        str(Path("family", "c.safetensors")),
        "identities/friends/anna_00001_.safetensors [output]",
        "b.safetensors [input]",
    ]
    assert folders.list_identities() == names
    (combo, _) = LoadIdentity.define_schema().inputs
    assert isinstance(combo, io.Combo.Input)
    assert combo.options == names
    for name in names:
        assert torch.equal(load(name, least.identity.adapter)[0].tokens, least.identity.tokens)


def test_a_folder_that_the_user_has_set(least: World, base: Path) -> None:
    """As by extra_model_paths.yaml, which the host reads before the packs."""
    save(least.identity, "a")
    shared = base / "shared"
    shared.mkdir()
    (base / "output" / "a_00001_.safetensors").rename(shared / "shared.safetensors")
    (shared / "notes.txt").touch()
    folder_paths.folder_names_and_paths.clear()
    folder_paths.add_model_folder_path("infinite_id_identities", str(shared))
    folders.register()
    assert folders.list_identities() == ["shared.safetensors"]
    load("shared.safetensors", least.identity.adapter)


def test_a_file_that_is_gone_is_explained(least: World, base: Path) -> None:
    name = "identities/person_00001_.safetensors [output]"
    save(least.identity)
    assert LoadIdentity.validate_inputs(name) is True
    (base / "output" / "identities" / "person_00001_.safetensors").unlink()
    said = LoadIdentity.validate_inputs(name)
    assert isinstance(said, str)
    assert re.search(r"no identity file 'identities/person_00001_.* models/infinite_id_ident", said)
    with pytest.raises(FileNotFoundError, match="Put it into models/infinite_id_identities"):
        LoadIdentity.execute(name, least.identity.adapter)


def test_no_other_file_is_opened(least: World, base: Path) -> None:
    """Names out of a stranger's workflow."""
    save(least.identity, "secret", overwrite="replace")
    save(least.identity)
    secret = (base / "output" / "secret.safetensors").rename(base / "secret.safetensors")
    for name in (
        "../secret.safetensors [output]",
        "identities/../../secret.safetensors [output]",
        "../secret.safetensors [input]",
        "../secret.safetensors [temp]",
        "../../secret.safetensors",
        str(secret),
        f"{secret} [output]",
        "identities [output]",
        "secret\0.safetensors [output]",
        "",
    ):
        assert isinstance(LoadIdentity.validate_inputs(name), str), name
        with pytest.raises(FileNotFoundError):
            LoadIdentity.execute(name, least.identity.adapter)


def test_a_name_from_another_node_is_checked_when_it_is_known() -> None:
    assert LoadIdentity.validate_inputs(None) is True


def test_a_replaced_file_is_read_again(least: World, base: Path) -> None:
    save(least.identity, overwrite="replace")
    path = base / "output" / "identities" / "person.safetensors"
    name = "identities/person.safetensors [output]"
    first = LoadIdentity.fingerprint_inputs(name)
    assert LoadIdentity.fingerprint_inputs(name) == first
    save(least.other, overwrite="replace")
    os.utime(path, ns=(first[1] + 1, first[1] + 1))  # the same size, and hardly later
    assert LoadIdentity.fingerprint_inputs(name) != first


# --- What is shown -------------------------------------------------------------------------------


def with_photos(identity: Identity, *thumbnails: torch.Tensor | None) -> Identity:
    sources = [Source(f"photo {n}", "0" * 64, x) for n, x in enumerate(thumbnails)]
    return Identity(identity.tokens, identity.unconditional, identity.adapter, tuple(sources))


@pytest.mark.usefixtures("base")
def test_thumbnails_and_info(least: World) -> None:
    grey = torch.full((8, 6, 3), 128, dtype=torch.uint8)
    drawn = torch.arange(144).reshape(8, 6, 3).byte()
    large = torch.arange(12 * 16 * 3).remainder(256).reshape(16, 12, 3).byte()
    save(with_photos(least.identity, drawn, None, grey, large))
    name = "identities/person_00001_.safetensors [output]"
    _, thumbnails, info = load(name, least.identity.adapter)
    assert thumbnails.shape == (3, 8, 6, 3)
    assert torch.equal(thumbnails[0], drawn / 255)
    assert torch.equal(thumbnails[1], grey / 255)
    corner = (large[:2, :2] / 255).mean(dim=(0, 1))
    torch.testing.assert_close(thumbnails[2, 0, 0], corner)
    assert info.splitlines() == [
        "person_00001_.safetensors is an identity of 21 tokens, made with unsaved adapter from:",
        *(f"- photo {n}" for n in range(4)),
    ]


def test_previews(least: World, base: Path) -> None:
    drawn = torch.randint(256, (8, 6, 3)).byte()
    person = with_photos(least.identity, drawn)
    (shown,) = save(person)["images"]
    pixels = Image.open(base / "temp" / shown["subfolder"] / shown["filename"])
    assert pixels.size == (6, 8)
    assert "images" not in save(person, include_thumbnail=False)
    adapter = least.identity.adapter
    ui = LoadIdentity.execute("identities/person_00001_.safetensors [output]", adapter).ui
    assert len(ui["images"]) == 1
    name = "identities/person_00002_.safetensors [output]"
    assert "images" not in LoadIdentity.execute(name, adapter).ui
    _, thumbnails, _ = load(name, adapter)
    assert torch.equal(thumbnails, torch.zeros(1, 64, 64, 3))


# --- Gallery -----------------------------------------------------------------------------------


def with_face(identity: Identity, colour: int) -> Identity:
    face = torch.zeros(64, 64, 3, dtype=torch.uint8)
    face[..., 0] = colour
    return replace(identity, sources=(Source(f"photo {colour}", 64 * "0", face),))


def test_the_gallery_shows_every_file(base: Path, least: World) -> None:
    """Faces by name, a grey cell without one, and a line for what cannot be read."""
    for name, colour in (("anna", 50), ("bert", 100)):
        save(with_face(least.identity, colour), f"identities/{name}")
    save(with_face(least.identity, 150), "identities/carl", include_thumbnail=False)
    (base / "input" / "text.safetensors").write_text("not an identity")
    sheet, info = IdentityGallery.execute("").args
    lines = dict(line.split(": ", 1) for line in info.splitlines())
    names = {re.split(r"[/_]", name)[1] if "/" in name else name: name for name in lines}
    assert lines[names["anna"]] == f"1 photo, made with {least.identity.adapter.name}"
    assert lines["text.safetensors [input]"].startswith("PROBLEM: text.safetensors is no identity")
    reds = [
        round(255 * red)
        for red in sheet[..., 0][sheet[..., 1] == 0].unique().tolist()
        if (sheet[..., 0] == red).sum() >= SIDE * SIDE - SIDE
    ]
    assert {50, 100} <= set(reds)
    assert 150 not in reds
    assert ((sheet * 255).round() == 204).all(-1).sum() >= SIDE * SIDE
    (only, line) = IdentityGallery.execute("BERT").args
    assert len(line.splitlines()) == 1
    assert only.shape[2] < sheet.shape[2]


def test_an_empty_gallery_says_so(base: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no identity file with 'x' in its name yet"):
        IdentityGallery.execute("x")
    (base / "input" / "text.safetensors").write_text("not an identity")
    with pytest.raises(ValueError, match=r"writes one\. text.safetensors \[input\]: PROBLEM"):
        IdentityGallery.execute("")
