"""Nodes that train; they follow the host's conventions for training nodes."""

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

from ..infinite_id.adapters.adapter import Adapter
from ..infinite_id.faces.photo import read_photos
from ..infinite_id.identities.identity import Identity
from . import folders, sockets
from .learning import (
    CATEGORY,
    checkpointing_input,
    loss_output,
    output_folder,
    rate_input,
    seed_input,
)
from .node import Node


class TrainAdapter(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDTrainAdapter",
            display_name="Train Infinite-ID Adapter",
            category=CATEGORY,
            description="Trains an adapter on prepared photos of many people (identity-enhanced "
            "training). Interrupted, it stores what was learnt; queued again with the same inputs, "
            "it goes on. The adapter is written into output/infinite_id.",
            search_aliases=["train adapter", "identity-enhanced training", "train ipadapter"],
            is_experimental=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The SDXL model; it stays as it is."),
                io.Combo.Input(
                    "data",
                    options=folders.list_prepared(),
                    tooltip="A folder in ComfyUI's datasets folder that `python -m "
                    "infinite_id.training prepare` has written, with this model's autoencoder.",
                ),
                io.String.Input(
                    "name", default="my_adapter", tooltip="Of the file in output/infinite_id."
                ),
                io.Int.Input(
                    "steps",
                    default=1000,
                    min=1,
                    max=10_000_000,
                    tooltip="Updates of the weights, in all. Raise it to go on with a run.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=4,
                    min=1,
                    max=1024,
                    tooltip="Samples that go through the model at once: more take more memory.",
                ),
                io.Int.Input(
                    "grad_accumulation_steps",
                    default=1,
                    min=1,
                    max=1024,
                    tooltip="Batches of an update. The paper's update has 64 samples.",
                ),
                rate_input(
                    1e-4, 1e-7, "1e-4 is the paper's; 1e-5 for a second run at 1024 pixels."
                ),
                seed_input("adapter"),
                checkpointing_input(),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=4096,
                    step=64,
                    tooltip="Pixels, one of the sizes that were prepared. 0: the largest.",
                    advanced=True,
                ),
                sockets.Adapter.Input(
                    "start_from",
                    optional=True,
                    tooltip="An adapter to begin with, of any kind: what fits of it is taken.",
                ),
            ],
            outputs=[
                sockets.Adapter.Output(
                    "adapter", display_name="adapter", tooltip="The trained adapter."
                ),
                loss_output(),
                io.String.Output("info", display_name="info", tooltip="What was done."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, data: str | None, **_: Any) -> Any:
        """The photos may be prepared anew under the same name."""

        def find(name: str) -> Path:
            return folders.find_prepared(name) / folders.PREPARED

        return folders.fingerprint(find, data)

    @classmethod
    def execute(
        cls,
        model: Any,
        data: str,
        name: str,
        steps: int,
        batch_size: int,
        grad_accumulation_steps: int,
        learning_rate: float,
        training_seed: int,
        gradient_checkpointing: bool,
        size: int,
        start_from: Adapter | None = None,
    ) -> io.NodeOutput:
        from ..infinite_id.training.host_graph_train import train
        from ..infinite_id.training.settings import Data, Optimiser, Run, Settings

        settings = Settings(
            data=Data(size=size),
            optimiser=Optimiser(rate=learning_rate, warm_up=min(1000, steps // 10)),
            run=Run(
                steps=steps,
                batch=batch_size * grad_accumulation_steps,
                at_once=batch_size,
                seed=training_seed,
                checkpointing=gradient_checkpointing,
                log_every=1,
                save_every=500,
                keep=1,
                validate_every=500,
                tensorboard=False,
            ),
        )
        adapter, losses, info = train(
            model,
            folders.find_prepared(data),
            start_from,
            settings,
            output_folder(folders.RUNS),
            output_folder(folders.TRAINED) / f"{_file_name(name)}.safetensors",
            cls.hidden.unique_id,
        )
        return io.NodeOutput(adapter, {"loss": losses}, info)


class RefineIdentity(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDRefineIdentity",
            display_name="Refine Identity",
            category=CATEGORY,
            description="A few hundred training steps on the tokens of one identity, from the "
            "person's own photos. The result is an ordinary identity. Interrupted, it stores what "
            "was learnt; queued again with the same inputs, it goes on.",
            search_aliases=["fine-tune identity", "improve likeness", "train identity"],
            is_experimental=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The SDXL model; it stays as it is."),
                io.Vae.Input("vae", tooltip="The model's autoencoder."),
                sockets.Identity.Input(
                    "identity",
                    tooltip="A single identity, from Encode Identity or Load Identity.",
                ),
                io.Image.Input(
                    "images",
                    tooltip="Photos of the person, from three on: different places, clothes and "
                    "light. What is the same in all of them is learnt as part of the person.",
                ),
                io.Int.Input(
                    "steps",
                    default=200,
                    min=1,
                    max=100_000,
                    tooltip="Updates of the tokens, in all. Raise it to go on.",
                ),
                io.Int.Input(
                    "batch_size", default=2, min=1, max=64, tooltip="Photos of an update."
                ),
                rate_input(
                    2e-3, 1e-6, "Larger learns faster, and the photos' places and clothes as well."
                ),
                seed_input("identity"),
                io.Int.Input(
                    "size",
                    default=768,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Photos are scaled to about this many pixels squared, in their shape.",
                ),
                checkpointing_input(),
            ],
            outputs=[
                sockets.Identity.Output(
                    "identity", display_name="identity", tooltip="For Apply Infinite-ID."
                ),
                loss_output(),
                io.String.Output("info", display_name="info", tooltip="What was done."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        identity: Identity,
        images: torch.Tensor,
        steps: int,
        batch_size: int,
        learning_rate: float,
        training_seed: int,
        size: int,
        gradient_checkpointing: bool,
    ) -> io.NodeOutput:
        from ..infinite_id.training.host_graph import PREVIEW_EVERY, make_follow
        from ..infinite_id.training.host_refine import make_settings, refine

        settings = make_settings(
            steps, batch_size, learning_rate, training_seed, gradient_checkpointing
        )
        photos = read_photos([images])
        refined, losses, done = refine(
            model,
            vae,
            identity,
            photos,
            size,
            settings,
            output_folder(folders.RUNS),
            make_follow(cls.hidden.unique_id, PREVIEW_EVERY),
        )
        info = f"{done} steps on {len(photos)} photos; mean loss of the last ten "
        info += f"{sum(losses[-10:]) / len(losses[-10:]):.4f}"
        return io.NodeOutput(refined, {"loss": losses}, info)


def _file_name(name: str) -> str:
    """A name without folders. Raises ValueError for anything else."""
    if not name.strip() or Path(name).name != name or name.startswith("."):
        raise ValueError(f"name is '{name}'; give the name of a file, without folders.")
    return name.strip().removesuffix(".safetensors")
