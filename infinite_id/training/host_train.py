"""`train` and `warm-start`: the parts put together, with the diffusion model by ComfyUI."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from comfy import model_management
from comfy.model_base import BaseModel

from ..adapters import formats
from ..adapters.adapter import Adapter, check_fits
from ..adapters.mappers import MapperConfig
from ..attention.blocks import context_width, list_layers
from ..errors import UserError
from ..files import file_digest, write_text
from ..host.models import autoencoder_digest, find_file, load_model, load_text_encoders, place_model
from . import checkpoints
from .data import Pairs, Prepared
from .export import make_averaged
from .host_frozen import HostFrozen
from .host_pictures import Pictures
from .initialise import new_adapter
from .loop import Loop
from .objective import Objective
from .processes import Alone, join
from .settings import Settings
from .trainee import Trainee
from .warm_start import Taken, take_over
from .watch import watch_signals

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_MAY_CHANGE = {
    "run": {
        "steps",
        "at_once",
        "checkpointing",
        "sharded",
        "log_every",
        "save_every",
        "keep",
        "validate_every",
        "validation",
        "tensorboard",
    },
    "optimiser": {"rate", "schedule", "final", "clip", "warm_up"},
    "pictures": {"people", "prompt", "steps", "guidance"},
}
"""Settings that may change when a run goes on."""


def train(data: Path, model: str, out: Path, settings: Settings) -> bool:
    """Train an adapter, or go on. Return whether the last step was done.

    Raises:
        UserError: with what the user is to do.
    """
    prepared = Prepared(data, settings.data.size)
    path = find_file("--model", "checkpoints", model)
    _check_autoencoder(prepared, path)
    processes = join(model_management.get_torch_device(), settings.run.sharded)
    try:
        loop = build(prepared, path, out, settings, processes)
        step = loop.resume()
        if processes.rank == 0:
            _announce(loop, step)
        with watch_signals() as watch:
            return loop.train(watch)
    finally:
        processes.end()


def warm_start(source: Path, data: Path, model: str, out: Path, settings: Settings) -> Taken:
    """Begin a run at step 0 with parts of an adapter file; `train` goes on from there.

    Raises:
        UserError: if the file is none that the pack reads, or of another kind of model; or if
            the run has begun already.
    """
    if checkpoints.list_checkpoints(out):
        raise UserError(f"{out} holds a run that has begun. Choose another --out.")
    prepared = Prepared(data, settings.data.size)
    path = find_file("--model", "checkpoints", model)
    _check_autoencoder(prepared, path)
    loaded = load_model(path)
    adapter = make_adapter(prepared, loaded, settings)
    try:
        other = formats.load(source)
        check_fits(other, list_layers(loaded.diffusion_model), adapter.config.mapper.token_width)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"warm-start: {error}") from error
    taken = take_over(adapter, other)
    state = {
        f"{kind}.{name}": weight.detach().clone()
        for kind in ("adapter", "average")
        for name, weight in adapter.named_parameters()
    }
    metadata = describe_run(adapter, prepared, file_digest(path), settings) | {
        "step": 0,
        "lowest": float("inf"),
        "warm_start": {"name": source.name, "digest": file_digest(source), **asdict(taken)},
    }
    checkpoints.save(out, checkpoints.Checkpoint(state, metadata), settings.run.keep)
    return taken


def build(prepared: Prepared, path: Path, out: Path, settings: Settings, processes: Alone) -> Loop:
    """A run at its first step."""
    training, held_out = (Pairs(prepared, part) for part in prepared.split(settings.data.held_out))
    model = load_model(path)
    adapter = make_adapter(prepared, model, settings)
    place_model(model, processes.device, DTYPES[settings.run.precision])
    text = load_text_encoders(path) if settings.objective.text else None
    frozen = HostFrozen(model, settings.run.checkpointing, text)
    objective = Objective(adapter, frozen, settings.objective.min_snr)
    trainee = Trainee(objective, processes, settings.optimiser)
    metadata = describe_run(adapter, prepared, file_digest(path), settings)
    loop = Loop(
        out,
        settings,
        trainee,
        training,
        held_out,
        processes,
        len(frozen.alphas_cumprod),
        metadata,
    )
    if settings.pictures.people and held_out:
        loop.show = _make_show(loop, model, path, prepared)
    return loop


def _make_show(
    loop: Loop, model: BaseModel, path: Path, prepared: Prepared
) -> Callable[[], Mapping[str, float]]:
    """Make a function that draws in the first process while the others wait."""
    is_first = loop.processes.rank == 0
    held_out = prepared.split(loop.settings.data.held_out)[1]
    pictures = Pictures(path, prepared, held_out, loop.settings.pictures) if is_first else None

    def show() -> Mapping[str, float]:
        checkpoint = loop.trainee.capture(loop.metadata)
        told: Mapping[str, float] = {}
        if pictures is not None:
            adapter = make_averaged(checkpoint)
            told = pictures.draw(model, adapter, checkpoint.step, loop.out)
        loop.processes.wait()
        return told

    return show


def make_adapter(prepared: Prepared, model: BaseModel, settings: Settings) -> Adapter:
    """The adapter that a fresh run begins with, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.run.seed)
        unet = model.diffusion_model
        return new_adapter(unet, _mapper(prepared, unet, settings))


def describe_run(
    adapter: Adapter, prepared: Prepared, model: str, settings: Settings
) -> dict[str, Any]:
    """Describe a run, for its checkpoints. A run goes on only if this is the same."""
    return {
        "layers": {str(block): width for block, width in adapter.config.layers.items()},
        "mapper": asdict(cast(MapperConfig, adapter.config.mapper)),
        "model": model,
        "data": prepared.digest,
        **_name_models(prepared),
        **_fixed(settings),
    }


def _mapper(prepared: Prepared, unet: torch.nn.Module, settings: Settings) -> MapperConfig:
    return MapperConfig(
        face_width=prepared.face_width,
        clip_width=prepared.nothing.shape[-1],
        token_width=context_width(unet),
        face_tokens=settings.adapter.face_tokens,
        face_hidden=settings.adapter.face_hidden,
        clip_hidden=settings.adapter.clip_hidden,
    )


def _name_models(prepared: Prepared) -> dict[str, str]:
    """The frozen nets of the data by name, such as `{"clip_vision": ...}`."""
    return {kind: model["name"] for kind, model in prepared.settings["models"].items()}


def _fixed(settings: Settings) -> dict[str, object]:
    """The settings that a run must keep, such as `{"run.seed": 0}`."""
    return {
        f"{table}.{key}": value
        for table, values in settings.to_json().items()
        for key, value in values.items()
        if key not in _MAY_CHANGE.get(table, set())
    }


def _check_autoencoder(prepared: Prepared, path: Path) -> None:
    own = prepared.settings["models"]["autoencoder"]
    if own["digest"] != autoencoder_digest(path):
        raise UserError(
            f"{prepared.folder} was prepared with the autoencoder of {own['name']}, and that of "
            f"{path.name} is another: its latents mean something else. Train on {own['name']}, or "
            "prepare again with --model " + path.name + "."
        )


def _announce(loop: Loop, step: int) -> None:
    write_text(loop.out / "settings.json", _as_text(loop.settings))
    whole, here = loop.trainee.count_weights()
    shared = f", a part of them in each of {loop.processes.count} processes"
    print(
        f"{len(loop.samples)} photos to train on, {len(loop.held_out or ())} of people held out; "
        f"{whole / 1e6:.1f} M weights{shared if here < whole else ''}; "
        + (f"going on after step {step}" if step else "from the start"),
        flush=True,
    )


def _as_text(settings: Settings) -> str:
    return json.dumps(settings.to_json(), indent=2) + "\n"
