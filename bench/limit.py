"""The least cost of a UNet evaluation, in closed form from the UNet's shape.

FLOPs are counted as by PyTorch's counter: two for each multiplication with addition, only in
convolutions, linear layers and attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..infinite_id.attention.mixed import Mixing
from ..infinite_id.host.text_stream import TextRows
from .modes import Evaluation, Mode, list_evaluations

SIDE = 3  # of a convolution's kernel


@dataclass(frozen=True)
class UNet:
    """The shape of an SDXL-like UNet, as the host's configuration has it.

    Attributes:
        down: by level, the finest first: the depth of each residual block's transformer.
        up: the same, with one more block for each level.
    """

    inputs: int
    outputs: int
    widths: tuple[int, ...]
    down: tuple[tuple[int, ...], ...]
    middle: int
    up: tuple[tuple[int, ...], ...]
    context: int
    adm: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> UNet:
        """Read the shape from the host's `unet_config`."""
        blocks = config["num_res_blocks"]
        return cls(
            inputs=config["in_channels"],
            outputs=config["out_channels"],
            widths=tuple(config["model_channels"] * m for m in config["channel_mult"]),
            down=_group(config["transformer_depth"], blocks),
            middle=config["transformer_depth_middle"],
            up=_group(config["transformer_depth_output"], [n + 1 for n in blocks]),
            context=config["context_dim"],
            adm=config["adm_in_channels"],
        )

    @property
    def embedding(self) -> int:
        return 4 * self.widths[0]


def _group(depths: list[int], sizes: list[int]) -> tuple[tuple[int, ...], ...]:
    left = iter(depths)
    return tuple(tuple(next(left) for _ in range(size)) for size in sizes)


@dataclass(frozen=True)
class Work:
    """One evaluation's sizes.

    Attributes:
        batch: latents asked for; tokens: of each identity; identities: applied to one model.
        attention: the price of an attention FLOP, in FLOPs of convolutions and linear layers.
    """

    height: int
    width: int
    batch: int = 1
    tokens: int = 258
    identities: int = 1
    text: int = 77
    attention: float = 1.0


def count_limit(unet: UNet, work: Work, mode: Mode | None, evaluation: Evaluation) -> float:
    """Return the FLOPs of an evaluation; without a mode, those of the plain model."""
    chunks = len(evaluation.conds)
    if mode is None:
        return chunks * work.batch * count_row(unet, work)
    identity = chunks * work.batch * mode.people
    text = (1 if evaluation.is_alike else chunks) * work.batch * evaluation.has_text
    if evaluation.is_shallow:
        return (identity + text) * count_outermost(unet, work)
    image = sum(_attention(work, n, c, work.tokens) for n, c in list_layers(unet, work))
    found = (identity + text) * count_row(unet, work) + identity * image * work.identities
    reads_text = evaluation.has_text or evaluation.text_rows is TextRows.RECALLED
    if mode.mixing is Mixing.MIXED and reads_text:
        found += identity * sum(_attention(work, n, c, n) for n, c in list_layers(unet, work))
    return found


def count_step(unet: UNet, work: Work, mode: Mode | None) -> float:
    """Return the FLOPs of a step at guidance above 1, as the mean over the mode's period."""
    evaluations = list_evaluations(mode)
    return sum(n * count_limit(unet, work, mode, e) for e, n in evaluations.items())


def count_row(unet: UNet, work: Work) -> float:
    """FLOPs of one row of the plain UNet."""
    embedding, first = unet.embedding, unet.widths[0]
    found = count_attention(unet, work)
    found += _linear(first + unet.adm + 2 * embedding, embedding)
    for cin, cout, depth, pixels in _list_blocks(unet, work):
        found += _residual(cin, cout, embedding, pixels)
        found += _transformer(cout, depth, pixels, unet.context, work.text)
    for level in range(1, len(unet.widths)):
        coarse, fine = _pixels(work, level), _pixels(work, level - 1)
        found += _convolution(unet.widths[level - 1], unet.widths[level - 1], coarse)
        found += _convolution(unet.widths[level], unet.widths[level], fine)
    ends = _convolution(unet.inputs, first, 1) + _convolution(first, unet.outputs, 1)
    return found + ends * _pixels(work, 0)


def count_outermost(unet: UNet, work: Work) -> float:
    """FLOPs of the outermost level, which has no transformers, on one row."""
    embedding, first, finest = unet.embedding, unet.widths[0], _pixels(work, 0)
    assert not any((*unet.down[0], *unet.up[0]))
    found = _linear(first + unet.adm + 2 * embedding, embedding)
    found += sum(
        _residual(cin, cout, embedding, pixels)
        for cin, cout, _, pixels in _list_blocks(unet, work)
        if pixels == finest
    )
    ends = _convolution(unet.inputs, first, 1) + _convolution(first, unet.outputs, 1)
    return found + ends * finest


def count_attention(unet: UNet, work: Work) -> float:
    """Return the part of `count_row` that is attention to the row itself and to the text."""
    return sum(_attention(work, n, c, n + work.text) for n, c in list_layers(unet, work))


def _attention(work: Work, pixels: int, width: int, keys: int) -> float:
    return work.attention * 4 * pixels * width * keys


def _list_blocks(unet: UNet, work: Work) -> Iterator[tuple[int, int, int, int]]:
    """Each residual block: channels in and out, depth of the transformer behind it, pixels."""
    width = unet.widths[0]
    skips = [width]
    for level, depths in enumerate(unet.down):
        for depth in depths:
            yield width, unet.widths[level], depth, _pixels(work, level)
            width = unet.widths[level]
            skips.append(width)
        if level + 1 < len(unet.down):
            skips.append(width)
    last = len(unet.down) - 1
    yield width, width, unet.middle, _pixels(work, last)
    yield width, width, 0, _pixels(work, last)
    for level in reversed(range(len(unet.up))):
        for depth in reversed(unet.up[level]):
            yield width + skips.pop(), unet.widths[level], depth, _pixels(work, level)
            width = unet.widths[level]


def list_layers(unet: UNet, work: Work) -> Iterator[tuple[int, int]]:
    """Tokens and width of each transformer block."""
    for _, width, depth, pixels in _list_blocks(unet, work):
        yield from [(pixels, width)] * depth


def _pixels(work: Work, level: int) -> int:
    return -(-work.height // 2**level) * -(-work.width // 2**level)


def _linear(cin: int, cout: int, rows: int = 1) -> int:
    return 2 * cin * cout * rows


def _convolution(cin: int, cout: int, pixels: int) -> int:
    return _linear(SIDE**2 * cin, cout, pixels)


def _residual(cin: int, cout: int, embedding: int, pixels: int) -> int:
    skip = _linear(cin, cout, pixels) if cin != cout else 0
    both = _convolution(cin, cout, pixels) + _convolution(cout, cout, pixels)
    return both + skip + _linear(embedding, cout)


def _transformer(width: int, depth: int, pixels: int, context: int, text: int) -> int:
    if not depth:
        return 0
    # q, k, v and out; q and out of cross-attention; the feed-forward, 8 times as wide, then 4.
    linear = _linear(width, (4 + 2 + 8 + 4) * width, pixels) + _linear(context, 2 * width, text)
    return _linear(width, 2 * width, pixels) + depth * linear
