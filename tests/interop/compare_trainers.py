"""A training step of tencent-ailab/IP-Adapter beside ours, on the same UNet with the same weights.

Not a test: it runs other people's code, of which nothing is kept here. Give a checkout of
tencent-ailab/IP-Adapter and a ComfyUI, and install diffusers beside the pack's requirements:

    COMFYUI_PATH=... IP_ADAPTER_PATH=... python tests/interop/compare_trainers.py

The UNet is SDXL's with narrower and fewer layers, made by diffusers and by ComfyUI; it is checked
that both predict the same. A step is forward, backward and AdamW's update of what trains; the
encoders' outputs are there before, although the peer's script computes them in each step. In
"identity-enhanced" the text attention is left out, as the paper has it; in "with text" ours does
all that the peer does. Steps of the three alternate; printed are medians of samples a second, with
the quartiles of the ratio to the peer's step beside it, and the most bytes that a step makes at
once.
"""

from __future__ import annotations

import argparse
import os
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))  # the host, and the pack as `pack`

import comfy.utils  # noqa: E402
import diffusers  # noqa: E402
import diffusers.pipelines.controlnet  # noqa: E402
import torch  # noqa: E402
from pack.infinite_id.adapters.mappers import MapperConfig  # noqa: E402
from pack.infinite_id.count import PeakMemory  # noqa: E402
from pack.infinite_id.training.data import Batch  # noqa: E402
from pack.infinite_id.training.host_count import UNET, make_model  # noqa: E402
from pack.infinite_id.training.host_frozen import HostFrozen  # noqa: E402
from pack.infinite_id.training.initialise import new_adapter  # noqa: E402
from pack.infinite_id.training.objective import Objective  # noqa: E402
from pack.infinite_id.training.processes import Alone  # noqa: E402
from pack.infinite_id.training.settings import Optimiser  # noqa: E402
from pack.infinite_id.training.trainee import Trainee  # noqa: E402
from torch import Tensor  # noqa: E402

BATCH, SIDE = 4, 32  # samples, and the side of their latents
CONTEXT, POOLED, FACE = 256, 64, 512
NARROW: dict[str, Any] = UNET | {
    "model_channels": 64,
    "transformer_depth": [0, 0, 2, 2, 4, 4],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 4, 4, 4],
    "transformer_depth_middle": 4,
    "context_dim": CONTEXT,
    "adm_in_channels": POOLED + 6 * 256,
}
RATE = 1e-4


def make_peers_unet() -> Any:
    across, down = "CrossAttn", ("DownBlock2D",)
    return diffusers.UNet2DConditionModel(  # type: ignore[attr-defined]
        sample_size=SIDE,
        block_out_channels=(64, 128, 256),
        down_block_types=(*down, f"{across}DownBlock2D", f"{across}DownBlock2D"),
        up_block_types=(f"{across}UpBlock2D", f"{across}UpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 4),
        attention_head_dim=(1, 2, 4),  # how many heads
        cross_attention_dim=CONTEXT,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=POOLED + 6 * 256,
    )


def make_our_model(unet: Any) -> Any:
    """ComfyUI's UNet with the weights of the peer's."""
    model = make_model(NARROW, torch.float32, torch.device("cpu"))
    own = model.diffusion_model
    theirs = unet.state_dict()
    names = comfy.utils.unet_to_diffusers(NARROW)
    named = {names[name]: x for name, x in theirs.items() if name in names}
    own.load_state_dict(named)
    assert sum(x.numel() for x in own.parameters()) == sum(x.numel() for x in theirs.values())
    return model


def make_batch() -> Batch:
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(BATCH, 4, SIDE, SIDE, generator=random)
    return Batch(
        latents=latents,
        noise=torch.randn(latents.shape, generator=random),
        times=torch.tensor([900, 500, 100, 3]),
        face=torch.randn(BATCH, FACE, generator=random),
        clip=torch.randn(BATCH, 0, 64, generator=random),  # four tokens, as the peer has them
        sizes=torch.full((BATCH, 6), 8.0 * SIDE),
        names=("",) * BATCH,
        captions=("",) * BATCH,
    )


class Captions:
    """The text encoders' outputs, computed before."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(1)
        self.context = torch.randn(BATCH, 77, CONTEXT, generator=random)
        self.pooled = torch.randn(BATCH, POOLED, generator=random)

    def encode(self, _: Any) -> tuple[Tensor, Tensor]:
        return self.context, self.pooled


def make_our_step(model: Any, text: Captions | None) -> Callable[[], float]:
    mapper = MapperConfig(face_width=FACE, clip_width=64, token_width=CONTEXT)
    frozen = HostFrozen(model, checkpointing=False)
    frozen._text = text  # type: ignore[assignment]
    objective = Objective(new_adapter(model.diffusion_model, mapper), frozen)
    trainee = Trainee(objective, Alone(torch.device("cpu")), Optimiser(rate=RATE, warm_up=0))
    batch = make_batch()

    def step() -> float:
        loss = trainee.module(batch).mean()
        loss.backward()
        trainee.descend(10**9)
        return float(loss.detach())

    return step


def make_peers_step(unet: Any, text: Captions) -> Callable[[], float]:
    """As `main` of the peer's script puts it together."""
    peer: Any = import_peer()
    unet.requires_grad_(False)
    widths = {"down_blocks": (64, 128, 256), "up_blocks": (256, 128, 64)}
    layers, weights = {}, unet.state_dict()
    for name in unet.attn_processors:
        if name.endswith("attn1.processor"):
            layers[name] = peer.AttnProcessor()
            continue
        part, _, rest = name.partition(".")
        width = widths[part][int(rest[0])] if part in widths else 256
        layer = peer.IPAttnProcessor(hidden_size=width, cross_attention_dim=CONTEXT, num_tokens=4)
        path = name.removesuffix(".processor")
        layer.load_state_dict({f"to_{x}_ip.weight": weights[f"{path}.to_{x}.weight"] for x in "kv"})
        layers[name] = layer
    unet.set_attn_processor(layers)
    projection = peer.ImageProjModel(CONTEXT, FACE, 4)
    modules = torch.nn.ModuleList(unet.attn_processors.values())
    adapter = peer.IPAdapter(unet, projection, modules)
    trained = [*projection.parameters(), *modules.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=1e-2)
    scheduler: Any = diffusers.DDPMScheduler(  # type: ignore[attr-defined]
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    batch = make_batch()
    conditions = {"text_embeds": text.pooled, "time_ids": batch.sizes}

    def step() -> float:
        noised = scheduler.add_noise(0.13025 * batch.latents, batch.noise, batch.times)
        output = adapter(noised, batch.times, text.context, conditions, batch.face)
        loss = torch.nn.functional.mse_loss(output.float(), batch.noise)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    return step


def import_peer() -> Any:
    sys.path.insert(0, os.environ["IP_ADAPTER_PATH"])
    pipelines: Any = diffusers.pipelines.controlnet
    pipelines.MultiControlNetModel = diffusers.MultiControlNetModel  # type: ignore[attr-defined]
    import tutorial_train_sdxl as peer  # type: ignore[import-not-found]

    return peer


def check_same(unet: Any, model: Any, text: Captions) -> float:
    """The relative difference of both UNets' predictions."""
    batch = make_batch()
    sizes = model.embedder(batch.sizes.flatten()).reshape(BATCH, -1)
    with torch.no_grad():
        theirs = unet(
            batch.latents,
            batch.times,
            text.context,
            added_cond_kwargs={"text_embeds": text.pooled, "time_ids": batch.sizes},
        ).sample
        ours = model.diffusion_model(
            batch.latents,
            batch.times.float(),
            context=text.context,
            y=torch.cat([text.pooled, sizes], dim=1),
        )
    return float((ours - theirs).norm() / theirs.norm())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    unet, text = make_peers_unet(), Captions()
    model = make_our_model(unet)
    print(f"both UNets predict the same to {check_same(unet, model, text):.1e}")
    steps = SimpleNamespace(
        **{
            "identity-enhanced": make_our_step(model, None),
            "with text": make_our_step(make_our_model(unet), text),
        }
    )
    own = vars(steps)
    peer = make_peers_step(unet, text)
    for step in (peer, *own.values()):
        step()
    seconds: dict[str, list[float]] = {name: [] for name in ("peer", *own)}
    ratios: dict[str, list[float]] = {name: [] for name in own}
    for _ in range(options.repeats):
        for name, step in own.items():
            seconds["peer"].append(measure(peer))
            seconds[name].append(measure(step))
            ratios[name].append(seconds["peer"][-1] / seconds[name][-1])
    print(f"batch {BATCH}, latents {SIDE}x{SIDE}, float32, {options.threads} threads")
    for name, step in (("peer", peer), *own.items()):
        speed = BATCH / statistics.median(seconds[name])
        low, middle, high = statistics.quantiles(ratios.get(name, [1.0, 1.0]), n=4)
        with PeakMemory() as memory:
            step()
        print(
            f"{name:18} {speed:6.2f} samples/s, {middle:.2f} times the peer's speed "
            f"({low:.2f} to {high:.2f}), peak {memory.peak / 1e6:.0f} MB"
        )


def measure(step: Callable[[], float]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
