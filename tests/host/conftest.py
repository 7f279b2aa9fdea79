"""The miniature worlds, each loaded once a session."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import folder_paths
import nodes
import pytest
import torch

if "COMFYUI_PATH" not in os.environ:
    raise pytest.UsageError(
        "tests/host needs a ComfyUI: set COMFYUI_PATH to one, or run `python -m dev test`."
    )

from pack.tests.host.world import World, load

# Small nets gain nothing from more threads, and lose much on a machine that is busy.
torch.set_num_threads(1)

if TYPE_CHECKING:
    Loader = Callable[..., World]


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> None:
    """The host collects garbage whenever a model has gone; what stays need not be looked at."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    """`worlds(variant, dtype)`: 'least' with 4 transformer blocks, 'tiny' 11, 'deep' SDXL's 70."""
    folder = tmp_path_factory.mktemp("miniature")

    @cache
    def get(variant: str, dtype: torch.dtype = torch.float32) -> World:
        return load(folder, variant, dtype)

    return get


@pytest.fixture(scope="session")
def least(worlds: Loader) -> World:
    return worlds("least")


@pytest.fixture(scope="session")
def tiny(worlds: Loader) -> World:
    return worlds("tiny")


@pytest.fixture(scope="session")
def precise(worlds: Loader) -> World:
    """The tiny model in float64, where differences of rounding vanish."""
    return worlds("tiny", torch.float64)


@pytest.fixture(scope="session")
def deep(worlds: Loader) -> World:
    return worlds("deep")


@pytest.fixture(scope="module")
def vae(worlds: Loader, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The miniature's autoencoder, by the stock node."""
    from pack.miniature.random_weights import write

    worlds("least")
    folder = tmp_path_factory.mktemp("vae")
    checkpoint = write(folder, "least")["checkpoint"]
    folder_paths.add_model_folder_path("checkpoints", str(folder))
    with torch.inference_mode():
        return nodes.CheckpointLoaderSimple().load_checkpoint(checkpoint.name)[2]
