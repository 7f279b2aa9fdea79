"""The launcher: which ComfyUI it finds, and that help needs nothing at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pack.infinite_id import launch

ROOT = Path(__file__).parents[2]


def make_host(folder: Path) -> Path:
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    return folder.resolve()


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A ComfyUI in each of the places where one is looked for."""
    made = {
        name: make_host(tmp_path / folder)
        for name, folder in {
            "given": "given",
            "around": "around",
            "COMFYUI_PATH": "named",
            "old": "cache/comfyui-0.9.1",
            "cache": "cache/comfyui-0.30.0",
        }.items()
    }
    (made["around"] / "custom_nodes").mkdir()
    monkeypatch.setenv("COMFYUI_PATH", str(made["COMFYUI_PATH"]))
    monkeypatch.setenv("INFINITE_ID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(launch, "PACK", made["around"] / "custom_nodes" / "ComfyUI-Infinite-ID")
    return made


def test_places_are_looked_through_in_order(
    hosts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launch.find_host(hosts["given"]) == hosts["given"]
    assert launch.find_host() == hosts["around"]
    monkeypatch.setattr(launch, "PACK", ROOT / "somewhere" / "else")
    assert launch.find_host() == hosts["COMFYUI_PATH"]
    monkeypatch.delenv("COMFYUI_PATH")
    assert launch.find_host() == hosts["cache"]
    monkeypatch.setenv("INFINITE_ID_CACHE", str(ROOT))
    with pytest.raises(launch.HostError, match="--host"):
        launch.find_host()


def test_a_pack_that_is_linked_into_a_host_finds_it(
    hosts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = hosts["around"] / "custom_nodes" / "linked-pack"
    link.symlink_to(ROOT, target_is_directory=True)
    monkeypatch.setattr(launch, "PACK", link)
    assert launch.find_host() == hosts["around"]


def test_a_chosen_folder_that_is_no_host_is_named(
    hosts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(launch.HostError, match=r"--host .*no ComfyUI"):
        launch.find_host(tmp_path)
    monkeypatch.setattr(launch, "PACK", ROOT / "somewhere" / "else")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "cache"))
    with pytest.raises(launch.HostError, match=r"COMFYUI_PATH .*no ComfyUI"):
        launch.find_host()
    assert hosts


@pytest.mark.parametrize("verb", [[], ["prepare"], ["train"]])
def test_help_needs_no_host_and_no_package(tmp_path: Path, verb: list[str]) -> None:
    """Without site-packages there is no torch either; the folder's name has a hyphen."""
    pack = tmp_path / "ComfyUI-Infinite-ID"
    pack.symlink_to(ROOT, target_is_directory=True)
    environment = {k: v for k, v in os.environ.items() if k != "COMFYUI_PATH"}
    for command in (
        [sys.executable, "-S", str(pack / "infinite_id" / "training"), *verb, "--help"],
        [sys.executable, "-S", "-m", "infinite_id.training", *verb, "--help"],
    ):
        folder = pack if "-m" in command else tmp_path
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=folder, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert "usage: python -m infinite_id.training" in done.stdout
