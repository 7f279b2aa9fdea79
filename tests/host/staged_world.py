"""What the tests of staged words share: random words, and an independent reference.

The reference knows nothing of the host's patches: it takes the input of the UNet's own layers
`to_k` and `to_v` away and gives them the context of the stage instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sd
import nodes
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from pack.infinite_id.staged_identity import staged_file
from pack.infinite_id.staged_identity.host_apply import apply_staged
from pack.infinite_id.staged_identity.host_prompt import encode
from pack.infinite_id.staged_identity.stages import Words
from pack.infinite_id.words.files import Origin, Rows
from pack.infinite_id.words.host_text import list_encoders, read_table
from pack.tests.host.world import Conditioning, World
from safetensors.torch import save_file
from torch import Tensor

STAGES = 5
PROMPT = "a photo of V* on the beach"
UNTOLD = Origin("r", {}, {})


def make_words(clip: comfy.sd.CLIP, stages: int = STAGES, rows: int = 1, seed: int = 0) -> Words:
    """Words so far apart that each stage is another picture."""
    random = torch.Generator().manual_seed(seed)

    def draw(width: int) -> Tensor:
        return torch.randn(stages, rows, width, generator=random)

    widths = {key: read_table(x).shape[1] for key, x in list_encoders(clip).items()}
    keys, values = ({key: draw(width) for key, width in widths.items()} for _ in range(2))
    return Words(keys, values)


def make_equal(clip: comfy.sd.CLIP, stages: int = STAGES, rows: int = 1) -> tuple[Words, Rows]:
    """Words that are the same at all stages, for keys and values; and the same as an embedding."""
    first = make_words(clip, 1, rows, seed=3)
    same = {key: x.expand(stages, -1, -1).contiguous() for key, x in first.keys.items()}
    return Words(same, same), {key: x[0] for key, x in first.keys.items()}


def write_embedding(rows: Rows, folder: Path, name: str) -> str:
    """An ordinary embedding, by nothing of ours; what a prompt says."""
    path = folder / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: x.contiguous() for key, x in rows.items()}, path)
    return f"embedding:{name}"


def write_words(words: Words, folder: Path, name: str) -> None:
    staged_file.save(
        staged_file.Staged(words, UNTOLD), folder / f"{name}.safetensors", replaces=True
    )


@dataclass(frozen=True)
class StagedWorld:
    """A world with its text encoders, and a prompt with a staged person.

    Attributes:
        embeddings: the folder in which its prompts look for embeddings.
    """

    world: World
    clip: comfy.sd.CLIP
    embeddings: Path
    words: Words

    @property
    def positive(self) -> Conditioning:
        return encode(self.clip, PROMPT, {"V*": self.words})

    @property
    def applied(self) -> ModelPatcher:
        return apply_staged(self.world.model, 1.0)

    def sample(self, model: ModelPatcher | None = None, **changes: Any) -> Tensor:
        """With the staged prompt, and the model that reads it."""
        given = {"positive": self.positive, **changes}
        return self.world.sample(self.applied if model is None else model, **given)

    def plain_text(self, text: str) -> Conditioning:
        with torch.inference_mode():
            conditioning: Conditioning = nodes.CLIPTextEncode().encode(self.clip, text)[0]
        return conditioning


@dataclass
class Seen:
    """What the reference saw: timesteps, and the stages that it took."""

    times: list[int]
    stages: list[int]


def stage_of(table: np.ndarray[Any, Any], sigma: float, stages: int) -> tuple[int, int]:
    """`floor(stages * t / 1000)`; t is the nearest in the logarithms of a model's noise levels."""
    time = int(np.abs(np.log(table) - np.log(sigma)).argmin())
    return time, stages * time // len(table)


@contextmanager
def reference(
    model: ModelPatcher,
    pairs: Callable[[int], tuple[Tensor, Tensor]],
    stages: int = STAGES,
    positive: int = 0,
) -> Iterator[tuple[ModelPatcher, Seen]]:
    """The model of which the positive rows read the contexts of `pairs(stage)`, by layer."""
    seen = Seen([], [])
    table = model.model.model_sampling.sigmas.double().numpy()
    now: dict[str, Tensor] = {}

    def run(apply_model: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        time, stage = stage_of(table, float(given["timestep"][0]), stages)
        seen.times.append(time)
        seen.stages.append(stage)
        context = given["c"]["c_crossattn"]
        chunks = context.chunk(len(given["cond_or_uncond"]))
        for name, own in zip(("to_k", "to_v"), pairs(stage), strict=True):
            now[name] = torch.cat(
                [
                    own.expand(len(chunk), -1, -1) if group == positive else chunk
                    for group, chunk in zip(given["cond_or_uncond"], chunks, strict=True)
                ]
            )
        out: Tensor = apply_model(given["input"], given["timestep"], **given["c"])
        return out

    patched = model.clone()
    patched.set_model_unet_function_wrapper(run)

    def put(name: str) -> Callable[..., tuple[Tensor]]:
        return lambda _, args: (now[name].to(args[0]),)

    layers = dict(model.model.diffusion_model.named_modules())
    hooks = [
        layer.register_forward_pre_hook(put(side))
        for side in ("to_k", "to_v")
        for name, layer in layers.items()
        if name.endswith(f"attn2.{side}")
    ]
    try:
        yield patched, seen
    finally:
        for hook in hooks:
            hook.remove()


def encode_stage(world: StagedWorld, words: Words, stage: int, folder: Path) -> list[Tensor]:
    """The contexts of one stage, for keys and values, by stock nodes and embeddings as files."""
    contexts = []
    for side, own in (("k", words.keys), ("v", words.values)):
        name = write_embedding({key: x[stage] for key, x in own.items()}, folder, f"{side}{stage}")
        contexts.append(world.plain_text(PROMPT.replace("V*", name))[0][0])
    return contexts
