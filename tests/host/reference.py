"""Infinite-ID on an SDXL UNet, once more, in plain torch and from the formulas alone.

Neither the pack's code nor the host's is called: weights come as a state dict with SDXL's key
names, everything else is written out here. The two streams go through the net side by side, as a
pair `(identity, text)` of feature maps `(b, c, h, w)` or token rows `(b, l, c)`. One guidance
branch (positive or negative) is one forward; nothing is batched. Where the text stream is left out,
it is computed all the same, and what comes out of it is not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor

Weights = dict[str, Tensor]
Pair = tuple[Tensor, Tensor]

LATENT_SCALE = 0.13025  # SDXL's latents are smaller by this factor inside the model
HEAD_CHANNELS = 32  # the miniature's; SDXL has 64


@dataclass(frozen=True)
class Setting:
    """What the user chose. `mask` is `(b or 1, h, w)` at the latent's resolution."""

    mixing: str = "mixed"  # or "mutual", "off"
    style: str = "photo"  # or "mean", "full"
    style_in_cross: bool = False
    weight: float = 1.0
    mask: Tensor | None = None


@dataclass(frozen=True)
class Prompt:
    """One guidance branch: text tokens `(1, l, d)`, pooled text `(1, d)`, c_id `(1, n, d)`."""

    tokens: Tensor
    pooled: Tensor
    identity: Tensor


@dataclass(frozen=True)
class Saving:
    """When the text stream runs: at each so-manyth step, until this share, for which branches.

    `deep`: the net's deeper levels run at each so-manyth step, and `every` counts those.
    """

    every: int = 1
    until: float = 1.0
    guided: bool = True
    deep: int = 1


@dataclass(frozen=True)
class Net:
    """The UNet's weights, the adapter's, and the setting.

    `text` is what the identity stream's self-attention reads: "own", the text stream as it runs
    beside; "kept", its keys and values of another step; "none", itself alone. `kept` has those of
    the last step with "own", by layer. `deep` has what the last step with all levels handed up to
    the outermost one; `is_deep` says whether this is one.
    """

    unet: Weights
    adapter: Weights
    setting: Setting
    text: str = "own"
    kept: dict[str, Pair] = field(default_factory=dict)
    deep: list[Pair] = field(default_factory=list)
    is_deep: bool = True


# --- The latents' way: schedule, guidance, Euler ---------------------------------------------


def sample(
    net: Net,
    noise: Tensor,
    sigmas: Tensor,
    prompts: tuple[Prompt, Prompt],
    cfg: float,
    saving: Saving = Saving(),
) -> Pair:
    """Advance both streams from the same noise by Euler's method; `prompts`: positive, negative.

    In steps without a text stream its latents go on as in the last step with one; a step without
    deeper levels has a text stream if the last one with them had. Without guidance
    they follow the positive branch alone. Once nothing is mixed any more, nobody sees them.
    """
    start = noise * (1 + sigmas[0] ** 2).sqrt()
    identity, text = start, start.clone()
    kept: tuple[dict[str, Pair], dict[str, Pair]] = ({}, {})
    deep: tuple[list[Pair], list[Pair]] = ([], [])
    slope = torch.zeros_like(text)
    for number, (now, then) in enumerate(pairwise(sigmas)):
        has_ended = bool(now <= noise_level(saving.until))
        fresh = number // saving.deep % saving.every == 0
        branches = []
        mixing = (True, saving.guided)
        for prompt, features, handed, mixes in zip(prompts, kept, deep, mixing, strict=True):
            reads = "none" if has_ended or not mixes else "own" if fresh else "kept"
            is_deep = number % saving.deep == 0
            there = replace(net, text=reads, kept=features, deep=handed, is_deep=is_deep)
            branches.append(predict_noise(there, (identity, text), now, prompt))
        (positive, text_positive), (negative, text_negative) = branches
        if fresh:
            slope = text_negative + cfg * (text_positive - text_negative)
            slope = slope if saving.guided else text_positive
        identity = identity + (then - now) * (negative + cfg * (positive - negative))
        text = text + (then - now) * slope
    return identity / LATENT_SCALE, text / LATENT_SCALE


def predict_noise(net: Net, streams: Pair, sigma: Tensor, prompt: Prompt) -> Pair:
    """Epsilon of both streams: the net sees latents of unit variance and a timestep."""
    inputs = each(lambda x: x / (1 + sigma**2).sqrt(), streams)
    return run_unet(net, inputs, timestep(sigma), prompt)


def timestep(sigma: Tensor) -> int:
    """The training step whose noise level is nearest."""
    return int((noise_levels().log() - sigma.double().log()).abs().argmin())


def noise_level(share: float) -> float:
    """The noise level at a share of the training steps, from the noisiest on; ends are open."""
    if share in (0, 1):
        return math.inf if share == 0 else 0.0
    place = 999 * (1 - share)
    below, logs = math.floor(place), noise_levels().log()
    return math.exp(torch.lerp(logs[below], logs[below + 1], place - below))


def noise_levels() -> Tensor:
    """Sigma of each training step, on SDXL's 'scaled linear' schedule: `(1000,)`, rising."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    return ((1 - kept) / kept).sqrt()


# --- The UNet --------------------------------------------------------------------------------


def run_unet(net: Net, streams: Pair, step: int, prompt: Prompt) -> Pair:
    """Down, middle, up, with skip connections; the layers are read off the keys.

    Without the deeper levels, what is handed up to the outermost one is what was last.
    """
    outer = count_outer(net.unet)
    emb = embed(net.unet, step, prompt.pooled, size=streams[0].shape[-2:])
    skips: list[Pair] = []
    for number in count(net.unet, "input_blocks"):
        streams = run_block(net, f"input_blocks.{number}", ("input", number), streams, emb, prompt)
        skips.append(streams)
    streams = run_block(net, "middle_block", ("middle", 0), streams, emb, prompt)
    for number in count(net.unet, "output_blocks"):
        if len(skips) == outer and net.is_deep:
            net.deep[:] = [streams]
        if len(skips) == outer:
            (streams,) = net.deep
        skip = skips.pop()
        streams = (torch.cat([streams[0], skip[0]], 1), torch.cat([streams[1], skip[1]], 1))
        size = skips[-1][0].shape[-2:] if skips else None
        name = f"output_blocks.{number}"
        streams = run_block(net, name, ("output", number), streams, emb, prompt, size)
    return each(
        lambda x: conv(net.unet, "out.2", F.silu(group_norm(net.unet, "out.0", x))), streams
    )


def count_outer(w: Weights) -> int:
    """Blocks before the first that halves the picture."""
    return next(n for n in count(w, "input_blocks") if f"input_blocks.{n}.0.op.weight" in w)


def run_block(
    net: Net,
    name: str,
    place: tuple[str, int],
    streams: Pair,
    emb: Tensor,
    prompt: Prompt,
    size: torch.Size | None = None,
) -> Pair:
    """One entry of SDXL's block lists: residual blocks, transformers, up- and downsampling."""
    w = net.unet
    for index in count(w, name):
        layer = f"{name}.{index}"
        if f"{layer}.in_layers.0.weight" in w:
            streams = each(lambda x, layer=layer: residual(w, layer, x, emb), streams)
        elif f"{layer}.proj_in.weight" in w:
            streams = transformer(net, layer, place, streams, prompt)
        elif f"{layer}.op.weight" in w:
            streams = each(lambda x, layer=layer: conv(w, f"{layer}.op", x, stride=2), streams)
        elif f"{layer}.conv.weight" in w:
            streams = each(lambda x, layer=layer: upsample(w, layer, x, size), streams)
        elif f"{layer}.weight" in w:
            streams = each(lambda x, layer=layer: conv(w, layer, x), streams)
    return streams


def embed(w: Weights, step: int, pooled: Tensor, size: torch.Size) -> Tensor:
    """Timestep plus pooled text, picture size, crop and target size: `(1, d)`."""
    like = w["time_embed.0.weight"]
    height, width = (8 * side for side in size)
    numbers = [waves(n, 256) for n in (height, width, 0, 0, height, width)]
    label = torch.cat([pooled.to(like), torch.cat(numbers, 1).to(like)], 1)
    time = waves(step, like.shape[1]).to(like)
    return mlp(w, "time_embed.0", "time_embed.2", time) + mlp(
        w, "label_emb.0.0", "label_emb.0.2", label
    )


def waves(number: float, channels: int) -> Tensor:
    """Sinusoids of a number, `(1, channels)`, float32 as SDXL was trained with."""
    half = channels // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = torch.tensor([[float(number)]]) * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


def residual(w: Weights, name: str, x: Tensor, emb: Tensor) -> Tensor:
    h = conv(w, f"{name}.in_layers.2", F.silu(group_norm(w, f"{name}.in_layers.0", x)))
    h = h + linear(w, f"{name}.emb_layers.1", F.silu(emb))[..., None, None]
    h = conv(w, f"{name}.out_layers.3", F.silu(group_norm(w, f"{name}.out_layers.0", h)))
    skip = f"{name}.skip_connection"
    return h + (conv(w, skip, x) if f"{skip}.weight" in w else x)


def upsample(w: Weights, name: str, x: Tensor, size: torch.Size | None) -> Tensor:
    assert size is not None
    return conv(w, f"{name}.conv", F.interpolate(x, size=size, mode="nearest"))


# --- Transformers: where Infinite-ID is --------------------------------------------------------


def transformer(net: Net, name: str, place: tuple[str, int], streams: Pair, prompt: Prompt) -> Pair:
    w, (height, width) = net.unet, streams[0].shape[-2:]

    def enter(x: Tensor) -> Tensor:
        x = rearrange(group_norm(w, f"{name}.norm", x, eps=1e-6), "b c h w -> b (h w) c")
        return linear(w, f"{name}.proj_in", x)

    def leave(x: Tensor) -> Tensor:
        x = linear(w, f"{name}.proj_out", x)
        return rearrange(x, "b (h w) c -> b c h w", h=height, w=width)

    rows = each(enter, streams)
    for index in count(w, f"{name}.transformer_blocks"):
        block = f"{name}.transformer_blocks.{index}"
        address = f"{place[0]}_{place[1]}_{index}"
        rows = add(rows, self_attention(net, block, rows))
        rows = add(rows, cross_attention(net, block, address, rows, prompt, (height, width)))
        rows = add(rows, each(lambda x, block=block: feed_forward(w, block, x), rows))
    return add(streams, each(leave, rows))


def self_attention(net: Net, block: str, rows: Pair) -> Pair:
    """Mixed attention in the identity stream, the stock attention in the text stream."""
    w, setting = net.unet, net.setting
    n_id, n_t = each(lambda x: layer_norm(w, f"{block}.norm1", x), rows)
    q_id, q_t = (linear(w, f"{block}.attn1.to_q", n) for n in (n_id, n_t))
    keys_values = []
    own = each(lambda name: linear(w, f"{block}.attn1.{name}", n_t), ("to_k", "to_v"))
    if net.text == "own" and net.is_deep:
        net.kept[block] = own
    for place, name in enumerate(("to_k", "to_v")):
        x_id, x_t = linear(w, f"{block}.attn1.{name}", n_id), own[place]
        if net.text == "none":
            keys_values.append((x_id, x_t))
            continue
        read = net.kept[block][place]
        styled = stylise(setting.style, x_id, read)
        mixed = {"mixed": torch.cat([styled, read], 1), "mutual": read, "off": styled}
        keys_values.append((mixed[setting.mixing], x_t))
    (k, k_t), (v, v_t) = keys_values
    out = (attention(q_id, k, v), attention(q_t, k_t, v_t))
    return each(lambda x: linear(w, f"{block}.attn1.to_out.0", x), out)


def cross_attention(
    net: Net, block: str, address: str, rows: Pair, prompt: Prompt, grid: tuple[int, int]
) -> Pair:
    """Text attention in both streams, plus image attention in the identity stream."""
    w, setting = net.unet, net.setting
    q_id, q_t = (linear(w, f"{block}.attn2.to_q", layer_norm(w, f"{block}.norm2", x)) for x in rows)
    batch = q_id.shape[0]
    text = repeat(prompt.tokens, "1 l d -> b l d", b=batch)
    k_t, v_t = (linear(w, f"{block}.attn2.{name}", text) for name in ("to_k", "to_v"))
    face = repeat(prompt.identity, "1 l d -> b l d", b=batch)
    k_id, v_id = (
        linear(net.adapter, f"layers.{address}.{name}", face) for name in ("to_k", "to_v")
    )
    if setting.style_in_cross:
        k_id, v_id = stylise(setting.style, k_id, k_t), stylise(setting.style, v_id, v_t)
    image = setting.weight * attention(q_id, k_id, v_id)
    if setting.mask is not None:
        image = image * average(setting.mask, grid)
    out = (attention(q_id, k_t, v_t) + image, attention(q_t, k_t, v_t))
    return each(lambda x: linear(w, f"{block}.attn2.to_out.0", x), out)


def stylise(style: str, x: Tensor, y: Tensor) -> Tensor:
    """AdaIN-mean `x - mean(x) + mean(y)`, or full AdaIN with the standard deviations as well."""
    if style == "photo":
        return x
    mean_x, mean_y = reduce(x, "b l c -> b 1 c", "mean"), reduce(y, "b l c -> b 1 c", "mean")
    if style == "mean":
        return x - mean_x + mean_y
    deviation_x = (reduce((x - mean_x) ** 2, "b l c -> b 1 c", "mean") + 1e-5).sqrt()
    deviation_y = (reduce((y - mean_y) ** 2, "b l c -> b 1 c", "mean") + 1e-5).sqrt()
    return (x - mean_x) / deviation_x * deviation_y + mean_y


def average(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """The share of each token's square that the mask covers; the grid divides the latent."""
    rows, columns = (side // cells for side, cells in zip(mask.shape[-2:], grid, strict=True))
    return reduce(mask, "b (h r) (w c) -> b (h w) 1", "mean", r=rows, c=columns)


def feed_forward(w: Weights, block: str, x: Tensor) -> Tensor:
    """GEGLU."""
    n = linear(w, f"{block}.ff.net.0.proj", layer_norm(w, f"{block}.norm3", x))
    value, gate = n.chunk(2, -1)
    return linear(w, f"{block}.ff.net.2", value * F.gelu(gate))


# --- Primitives ------------------------------------------------------------------------------


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, per head."""
    q, k, v = (rearrange(x, "b l (n d) -> b n l d", d=HEAD_CHANNELS) for x in (q, k, v))
    scores = torch.einsum("b n i d, b n j d -> b n i j", q, k) / math.sqrt(HEAD_CHANNELS)
    out = torch.einsum("b n i j, b n j d -> b n i d", scores.softmax(-1), v)
    return rearrange(out, "b n l d -> b l (n d)")


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def mlp(w: Weights, first: str, second: str, x: Tensor) -> Tensor:
    return linear(w, second, F.silu(linear(w, first, x)))


def conv(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    kernel = w[f"{name}.weight"]
    return F.conv2d(x, kernel, w[f"{name}.bias"], stride, padding=kernel.shape[-1] // 2)


def group_norm(w: Weights, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    return F.group_norm(x, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps)


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def each(function: Callable[[Tensor], Tensor], pair: Pair) -> Pair:
    return function(pair[0]), function(pair[1])


def add(a: Pair, b: Pair) -> Pair:
    return a[0] + b[0], a[1] + b[1]


def count(w: Weights, prefix: str) -> Iterator[int]:
    """0, 1, 2, ... up to the largest number that follows the prefix in the keys."""
    start = f"{prefix}."
    numbers = [key[len(start) :].split(".")[0] for key in w if key.startswith(start)]
    return iter(range(1 + max((int(n) for n in numbers if n.isdigit()), default=-1)))
