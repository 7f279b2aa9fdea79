"""*Train Infinite-ID Adapter*: a run of the trainer inside a graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..adapters import formats
from ..adapters.adapter import Adapter, check_fits
from ..files import digest_of
from ..host.patch import read_unet
from .data import Batch, Pairs, Prepared
from .draws import time_of_preview
from .export import export
from .host_frozen import HostFrozen
from .host_graph import GraphWatch, train_interruptibly
from .host_load import digest_model, load_for_training, training
from .host_train import describe_run, make_adapter
from .loop import Loop
from .objective import Objective
from .processes import Alone
from .settings import Settings
from .stats import read_losses
from .trainee import Trainee
from .warm_start import take_over


def train(
    model: ModelPatcher,
    data: Path,
    start: Adapter | None,
    settings: Settings,
    runs: Path,
    file: Path,
    node: str,
) -> tuple[Adapter, list[float], str]:
    """Train an adapter on prepared photos, or go on.

    Args:
        start: an adapter; the parts of it that fit are copied, see `warm_start`.
        runs: a folder for runs; the same inputs go on where they were stopped.
        file: where the adapter is written, and its model card beside it.
        node: the node's id, for progress.

    Returns:
        The adapter, the losses, and what was done, in words.

    Raises:
        InterruptProcessingException: if the user interrupts; the state is stored before.
        UserError: with what the user is to do.
        ValueError: if `start` is for another kind of model.
    """
    prepared = Prepared(data, settings.data.size)
    layers, width = read_unet(model)
    if start is not None:
        check_fits(start, layers, width)
    with training():
        name = digest_model(model)
        patcher = load_for_training(model)
        adapter = make_adapter(prepared, patcher.model, settings)
        metadata = describe_run(adapter, prepared, name, settings)
        if start is not None:
            take_over(adapter, start)
            metadata["warm_start"] = {"name": start.name, "fingerprint": start.fingerprint}
        frozen = HostFrozen(patcher.model, settings.run.checkpointing)
        device, times = patcher.load_device, len(frozen.alphas_cumprod)
        objective = Objective(adapter, frozen, settings.objective.min_snr)
        processes = Alone(device)
        trainee = Trainee(objective, processes, settings.optimiser)
        own, held_out = (Pairs(prepared, part) for part in prepared.split(settings.data.held_out))
        out = runs / f"train-{digest_of(metadata)[:16]}"
        loop = Loop(out, settings, trainee, own, held_out, processes, times, metadata)
        watch = GraphWatch(
            settings.run.steps, loop.resume(), node, device, patcher.model.latent_format
        )
        shown = _choose_shown(held_out or own, times).to(device)
        watch.show = lambda: _denoise(trainee, objective, shown)
        train_interruptibly(loop, watch)
        step = export(out, file, newest=True)
    lowest = f", lowest validation loss {loop.lowest:.4f}" if held_out else ""
    info = f"{file.name}: {step} steps, {len(own)} photos{lowest}; the run is in {out.name}"
    return formats.load(file), read_losses(out), info


def _choose_shown(pairs: Pairs, times: int) -> Batch:
    draw = pairs.fixed(1, times)[0]
    return pairs.data.load([replace(draw, time=time_of_preview(times))])


def _denoise(trainee: Trainee, objective: Objective, batch: Batch) -> Tensor:
    with trainee.averaged():
        return objective.denoise(batch)
