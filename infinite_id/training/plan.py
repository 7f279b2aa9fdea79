"""`plan`: what a run takes on a set-up, before anybody pays for it. Sizes are in bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .settings import Settings

if TYPE_CHECKING:
    from .host_count import Counts

GB = 10**9
SHARE = 0.4
"""The share of a card's stated peak that training reaches: a usual figure, not measured here."""
SHARE_OF_PRODUCT = 0.5
"""The share of the speed of large matrix products, which reach about .8 of the peak."""
CONTEXT = 1.5 * GB
"""Bytes of the driver and of the allocator's gaps: a usual figure, not counted."""


@dataclass(frozen=True)
class Card:
    """A GPU, or a CPU with its memory.

    Attributes:
        speed: floating-point operations a second in training.
        source: where the speed is from, in words.
    """

    name: str
    memory: float
    speed: float
    source: str

    @classmethod
    def stated(cls, name: str, gigabytes: float, teraflops: float) -> Card:
        """Make a card from its data sheet: memory, and peak in dense bfloat16 with float32 sums."""
        source = f"{SHARE:g} of {teraflops:g} TFLOP/s, the stated peak"
        return cls(name, gigabytes * 2**30, SHARE * teraflops * 1e12, source)

    @classmethod
    def measured(cls, name: str, memory: float, products: float) -> Card:
        """Make a card from the measured speed of matrix products, FLOP/s."""
        source = f"{SHARE_OF_PRODUCT:g} of {products / 1e12:.3g} TFLOP/s, products measured"
        return cls(name, memory, SHARE_OF_PRODUCT * products, source)


A100 = Card.stated("A100 80 GB", 80, 312)
RTX_4090 = Card.stated("RTX 4090", 24, 165)


@dataclass(frozen=True)
class Setup:
    """A run on some cards."""

    name: str
    card: Card
    cards: int
    settings: Settings


@dataclass(frozen=True)
class Memory:
    """The memory of one card, without the activations.

    Attributes:
        state: a card's part of the weights, their average, and AdamW's two moments.
        exchange: DDP's copy of the gradients, or FSDP's whole weights.
    """

    unet: int
    state: int
    exchange: int

    @property
    def resident(self) -> float:
        return self.unet + self.state + self.exchange + CONTEXT


def count_resident(setup: Setup, counts: Counts) -> Memory:
    """What is on each card throughout."""
    sharded = setup.settings.run.sharded and setup.cards > 1
    moments = {"adamw": 2.0, "adamw8bit": 0.5}[setup.settings.optimiser.kind]
    state = int((2 + moments) * counts.adapter) // (setup.cards if sharded else 1)
    return Memory(counts.unet, state, counts.adapter if setup.cards > 1 else 0)


def count_total(setup: Setup, counts: Counts) -> float:
    """The most that a card holds at once."""
    peak = counts.peak(setup.settings.run.at_once)
    return count_resident(setup, counts).resident + max(peak, 2 * counts.adapter)  # AdamW's step


def count_fitting(setup: Setup, counts: Counts) -> int:
    """How many samples at once a card has room for; 0 if none."""
    room = setup.card.memory - count_resident(setup, counts).resident
    if room < max(2 * counts.adapter, counts.peak(1)):
        return 0
    return int((room - counts.fixed) // counts.sample)


def steps_a_second(setup: Setup, counts: Counts) -> float:
    """Return the steps a second, without the cost of the network between the cards."""
    flops = setup.settings.run.batch / setup.cards * counts.flops
    return setup.card.speed / flops


def count_photo(size: int, face_width: int, clip: tuple[int, int]) -> int:
    """Bytes of one photo in prepared data, at most.

    Args:
        size: pixels.
        clip: tokens and width of the CLIP states.
    """
    latents = 4 * (size // 8) ** 2
    return face_width * 4 + 2 * (clip[0] * clip[1] + 2 * latents)  # the photo and its mirror image


def describe(plans: Sequence[tuple[Setup, Counts]]) -> str:
    """A table with a column for each set-up."""
    rows: list[tuple[str, Callable[[Setup, Counts], str]]] = [
        ("", lambda s, _: s.name),
        ("cards", lambda s, _: f"{s.cards} x {s.card.name}"),
        ("samples of a step", lambda s, _: str(s.settings.run.batch)),
        ("samples at once", lambda s, _: str(s.settings.run.at_once)),
        ("activations", lambda s, _: "twice" if s.settings.run.checkpointing else "kept"),
        ("memory of a card, GB", lambda s, _: f"{s.card.memory / GB:.1f}"),
        ("  frozen UNet", lambda _, c: f"{c.unet / GB:.1f}"),
        ("  adapter, average, AdamW", lambda s, c: f"{count_resident(s, c).state / GB:.1f}"),
        ("  exchange between cards", lambda s, c: f"{count_resident(s, c).exchange / GB:.1f}"),
        ("  gradients, activations", lambda s, c: f"{c.peak(s.settings.run.at_once) / GB:.1f}"),
        ("  driver, gaps (stated)", lambda *_: f"{CONTEXT / GB:.1f}"),
        ("  in all at the most", lambda s, c: f"{count_total(s, c) / GB:.1f}"),
        ("at once at the most", lambda s, c: str(count_fitting(s, c) or "does not fit")),
        ("TFLOP of a sample", lambda _, c: f"{c.flops / 1e12:.1f}"),
        ("steps a second", lambda s, c: f"{steps_a_second(s, c):.3g}"),
        ("steps", lambda s, _: f"{s.settings.run.steps:,}"),
        ("days", lambda s, c: f"{s.settings.run.steps / steps_a_second(s, c) / 86400:.3g}"),
        ("checkpoints on disk, GB", _describe_checkpoints),
    ]
    cells = [[label, *(tell(s, c) for s, c in plans)] for label, tell in rows]
    widths = [max(len(line[n]) for line in cells) for n in range(len(plans) + 1)]
    lines = [
        "  ".join(
            cell.rjust(w) if n else cell.ljust(w)
            for n, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    speeds = [f"{setup.card.name}: {setup.card.source}" for setup, _ in plans]
    return "\n".join([*lines, "", "Speed: " + "; ".join(speeds) + ".", ""])


def _describe_checkpoints(setup: Setup, counts: Counts) -> str:
    return f"{4 * counts.adapter * (setup.settings.run.keep + 1) / GB:.1f}"  # and the best
