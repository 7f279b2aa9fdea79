"""Small faces drawn again by one node: as the nodes that it is made of draw them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
import nodes
import numpy as np
import pytest
import torch
from pack.dev.photos import photos
from pack.infinite_id.application import Application
from pack.infinite_id.faces.model_pack import list_packs, load_analysis
from pack.infinite_id.host.patch import apply
from pack.infinite_id.identities.mixing import interpolate
from pack.nodes.faces import CropFaces, PasteFaces
from pack.nodes.refine_faces import RefineFaces
from PIL import Image

if TYPE_CHECKING:
    from pack.tests.host.world import World

SETTINGS: dict[str, Any] = {
    "seed": 5,
    "steps": 2,
    "cfg": 5.0,
    "sampler_name": "euler",
    "scheduler": "normal",
    "denoise": 0.5,
    "size": 128,
    "max_face": 130,
}


@pytest.fixture(scope="module")
def analysis() -> Any:
    packs = list_packs([Path(os.environ["INFINITE_ID_FACE_ROOT"])])
    return load_analysis(packs["yunet-fr"], "auto", 640)


@pytest.fixture(scope="module")
def group() -> torch.Tensor:
    """Six faces, of which some are less than 130 pixels high."""
    pixels = np.asarray(Image.open(photos()["group"]).convert("RGB")).copy()
    return torch.from_numpy(pixels).float()[None] / 255


@pytest.fixture(autouse=True)
def previews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))


def refine(world: World, own_vae: Any, analysis: Any, image: torch.Tensor, **changes: Any) -> Any:
    inputs = {
        "model": world.patch(),
        "positive": world.positive,
        "negative": world.negative,
        "vae": own_vae,
        "face_analysis": analysis,
        "image": image,
    }
    with torch.inference_mode():
        return RefineFaces.execute(**{**inputs, **SETTINGS, **changes}).result


def test_it_does_what_the_single_nodes_do(
    least: World, vae: Any, analysis: Any, group: torch.Tensor
) -> None:
    image, info = refine(least, vae, analysis, group)
    with torch.inference_mode():
        crops, masks, face_crops, expected_info = CropFaces.execute(
            analysis, group, 128, 130, 2.0, 1.2, 0.1, 8
        ).result
        latent = nodes.VAEEncode().encode(vae, crops)[0]
        latent = nodes.SetLatentNoiseMask().set_mask(latent, masks)[0]
        drawn = nodes.KSampler().sample(
            least.patch(), 5, 2, 5.0, "euler", "normal", least.positive, least.negative, latent, 0.5
        )[0]
        decoded = nodes.VAEDecode().decode(vae, drawn)[0]
        expected = PasteFaces.execute(face_crops, decoded).result[0]
    assert 0 < len(crops) < 6
    assert info == expected_info
    assert torch.equal(image, expected)
    changed = (image != group).any(-1).float().mean()
    assert 0 < changed < 0.2, "elsewhere not a pixel changes"


def test_without_small_faces_nothing_is_drawn(
    least: World, vae: Any, analysis: Any, group: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("something was sampled")

    monkeypatch.setattr(nodes, "common_ksampler", forbidden)
    image, info = refine(least, vae, analysis, group, max_face=20)
    assert image is group
    assert "No face less than 20 pixels high" in info


def test_what_would_draw_wrong_faces_is_refused(
    least: World, vae: Any, analysis: Any, group: torch.Tensor
) -> None:
    masked = least.patch(mask=torch.ones(1, 64, 64))
    people = interpolate([least.identity, least.other], [0, 1])
    sweep = apply(least.model, Application(people))
    for changes, message in (
        ({"model": masked}, "a person with a mask, which is of the whole picture"),
        ({"model": sweep}, "a sweep of several identities"),
        ({"vae": None}, "there is no VAE"),
    ):
        with pytest.raises(ValueError, match=f"Refine Faces: .*{message}"):
            refine(least, vae, analysis, group, **changes)
