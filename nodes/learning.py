"""Shared parts of the nodes that learn: category, inputs, the loss, and a run's folder."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

CATEGORY = "model/training"
LossMap = io.Custom("LOSS_MAP")
LARGEST_SEED = 2**63 - 1


def rate_input(default: float, least: float, tooltip: str) -> io.Float.Input:
    """The learning rate; `least` is its lowest value, and its step."""
    return io.Float.Input(
        "learning_rate",
        default=default,
        min=least,
        max=1.0,
        step=least,
        round=False,
        tooltip=tooltip,
    )


def seed_input(learnt: str) -> io.Int.Input:
    """The input for the seed of a run; `learnt` names what the run learns.

    It is not named `seed`: the page would change it at each queue, and no run could be resumed.
    """
    return io.Int.Input(
        "training_seed",
        default=0,
        min=0,
        max=LARGEST_SEED,
        tooltip=f"Of everything that is drawn; the same seed gives the same {learnt}.",
    )


def checkpointing_input() -> io.Boolean.Input:
    """The input that says whether activations are computed twice."""
    return io.Boolean.Input(
        "gradient_checkpointing",
        default=True,
        tooltip="Compute activations twice: much less memory, a third slower.",
    )


def loss_output() -> io.Output:
    """The output with the loss of each step, as the host's own training nodes have it."""
    return LossMap.Output("loss_map", display_name="loss_map", tooltip="For Plot Loss Graph.")


def output_folder(folder: str) -> Path:
    """Return the path of a folder in the host's output folder."""
    return Path(folder_paths.get_output_directory(), folder)
