"""Reports the results of the soak: a summary, `docs/soak.md` and its plot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, linear_regression, median

from ...dev.cache import ROOT
from .prompts import Plan

WARM_UP = 50
HELD_EVERY = 20
"""Prompts between two measurements of what the server holds."""
TOLERANCE = 0.03
"""The allowed growth over 1,000 prompts, as a share of the memory after the warm-up."""
BLOCKS = 8
"""The trend is taken over means of this many blocks, as memory of adjacent prompts is similar."""
STUDENT = 2.447
"""Two-sided 95% of Student's t with BLOCKS - 2 degrees of freedom."""
DOCUMENT = ROOT / "docs" / "soak.md"
PLOT = ROOT / "docs" / "soak.png"
KINDS = {"new": "grey", "repeat": "tab:blue", "interrupt": "tab:red"}


@dataclass(frozen=True)
class Held:
    """What the server still held after everything had been freed.

    Attributes:
        resident, tensors: megabytes, of the process and of all tensors.
        objects: the number that the garbage collector knows.
    """

    resident: float
    tensors: float
    objects: int


@dataclass
class Turn:
    """The outcome of one prompt."""

    number: int
    kind: str  # "new", "repeat" or "interrupt"
    plan: Plan
    seconds: float = 0.0
    memory: float = 0.0  # the server's resident megabytes afterwards
    problem: str = ""
    stopped_at: str = ""  # the class of the node that an interrupt stopped
    held: Held | None = None  # measured after some prompts only
    way: str = ""  # what made a repeat compute anew, or what was interrupted


@dataclass(frozen=True)
class Memory:
    """The server's memory after the warm-up, in megabytes."""

    before: float  # the median of the first prompts after it
    after: float  # the median of as many prompts at the end
    window: int
    trend: float  # per 100 prompts
    margin: float  # half of the trend's 95% interval
    highest: float

    @property
    def growth(self) -> float:
        return self.after / self.before - 1

    @property
    def is_flat(self) -> bool:
        """Whether the interval rules out a growth above the tolerance within 1,000 prompts."""
        return 10 * (self.trend + self.margin) <= TOLERANCE * self.before

    @property
    def grows(self) -> bool:
        """Whether the interval rules out constant memory, and `is_flat` does not hold."""
        return self.trend - self.margin > 0 and not self.is_flat


def judge(memory: Sequence[float], every: int = 1) -> Memory | None:
    """Judge the memory after each prompt, or after every n-th; None for too few prompts."""
    warm_up = WARM_UP // every
    late = memory[warm_up:]
    if len(late) < BLOCKS:
        return None
    window = min(warm_up, len(late) // 2)
    trend, margin = find_trend(late)
    return Memory(
        before=median(late[:window]),
        after=median(late[-window:]),
        window=window * every,
        trend=100 / every * trend,
        margin=100 / every * margin,
        highest=max(late),
    )


def find_trend(memory: Sequence[float]) -> tuple[float, float]:
    """Return the slope per prompt, and half of its 95% interval, from means of equal blocks."""
    size = len(memory) // BLOCKS
    starts = range(len(memory) - BLOCKS * size, len(memory), size)
    levels = [fmean(memory[start : start + size]) for start in starts]
    slope, offset = linear_regression(starts, levels)
    left = sum((y - offset - slope * x) ** 2 for x, y in zip(starts, levels, strict=True))
    spread = size**2 * (BLOCKS**3 - BLOCKS) / 12
    return slope, STUDENT * sqrt(left / (BLOCKS - 2) / spread)


def write_report(turns: Sequence[Turn], version: str) -> int:
    """Print and write the summary; return 1 if anything did not hold."""
    held = [turn.held for turn in turns if turn.held is not None]
    memory = judge([one.resident for one in held], HELD_EVERY)
    table = _summarise(turns, held, memory)
    for name, value in table.items():
        print(f"{name}: {value}")
    DOCUMENT.write_text(_document(turns, version, table), encoding="utf-8")
    _plot(turns)
    print(f"Wrote {DOCUMENT.relative_to(ROOT)} and {PLOT.relative_to(ROOT)}")
    failed = any(turn.problem for turn in turns) or (memory is not None and memory.grows)
    return int(failed)


def _summarise(
    turns: Sequence[Turn], held: Sequence[Held], memory: Memory | None
) -> dict[str, str]:
    repeats = [turn for turn in turns if turn.kind == "repeat"]
    interrupts = [turn for turn in turns if turn.kind == "interrupt"]
    return {
        "prompts": f"{len(turns)} in {sum(turn.seconds for turn in turns) / 60:.0f} minutes",
        "errors": _count(turn for turn in turns if turn.kind == "new" and turn.problem),
        "repeated prompts that gave the same bits": _share(repeats),
        "interrupts that stopped the node they were meant for": _share(interrupts),
        "memory held when all is freed": _describe(memory),
        "tensors and objects among it": _compare(held[WARM_UP // HELD_EVERY :]),
        "memory from prompt to prompt": _list_levels([turn.memory for turn in turns]),
    }


def _count(turns: Iterable[Turn]) -> str:
    return str(sum(1 for _ in turns))


def _share(turns: Sequence[Turn]) -> str:
    good = Counter(turn.way for turn in turns if not turn.problem)
    ways = ", ".join(f"{way} {number}" for way, number in sorted(good.items()))
    return f"{good.total()} of {len(turns)}" + (f" ({ways})" if ways else "")


def _describe(memory: Memory | None) -> str:
    if memory is None:
        return f"not judged: fewer than {WARM_UP + BLOCKS * HELD_EVERY} prompts"
    verdict = _judge_trend(memory)
    return (
        f"{verdict}: median of {memory.window} prompts {memory.before:.0f} MB after the first "
        f"{WARM_UP}, {memory.after:.0f} MB at the end ({memory.growth:+.1%}); trend "
        f"{memory.trend:+.1f} ± {memory.margin:.1f} MB per 100 prompts (95%); highest "
        f"{memory.highest:.0f} MB"
    )


def _compare(held: Sequence[Held]) -> str:
    if len(held) < 2:
        return "not looked for"
    first, last = held[0], held[-1]
    return (
        f"{first.tensors:.1f} MB of tensors and {first.objects} objects at first, "
        f"{last.tensors:.1f} MB and {last.objects} at the end"
    )


def _list_levels(memory: Sequence[float]) -> str:
    """Medians of equal parts, lowest and highest: the allocator's habits are in it."""
    late = memory[WARM_UP:]
    size = max(1, len(late) // BLOCKS)
    medians = [f"{median(late[i : i + size]):.0f}" for i in range(0, len(late) - size + 1, size)]
    if not medians:
        return "not looked for"
    return f"medians {', '.join(medians)} MB in turn; {min(late):.0f} to {max(late):.0f} MB"


def _judge_trend(memory: Memory) -> str:
    if memory.is_flat:
        return f"flat (1,000 prompts add less than {TOLERANCE:.0%})"
    if memory.grows:
        return "GROWS"
    return "not decided: the trend's interval allows growth as well as none"


def _document(turns: Sequence[Turn], version: str, table: dict[str, str]) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    problems = [f"- prompt {t.number} ({t.kind} {t.way}): {t.problem}" for t in turns if t.problem]
    return f"""# Soak

Written by `python -m dev soak --prompts {len(turns)}`: random prompts through the API of one
ComfyUI {version} (`--cache-classic`: it keeps the last prompt's results, not as many as fit into
memory) with the trained miniature. Some are repeated, their photos renamed or the
server's caches freed, so that they are computed anew; some are interrupted at the first progress
that sampling, encoding or a sweep reports. Behind every {HELD_EVERY}th prompt the server unloads
its models, drops the last results and its history, and gives free memory back to the system: what
it still holds must not grow.

| | |
|---|---|
{rows}

![The server's resident memory after each prompt](soak.png)

What the prompts were made of, with how often each occurred:

| | |
|---|---|
{_list_traits(turns)}

## What did not hold

{chr(10).join(problems) or "Nothing."}
"""


def _list_traits(turns: Sequence[Turn]) -> str:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for turn in turns:
        for trait, value in turn.plan.traits.items():
            found[trait][value] += 1
    return "\n".join(
        f"| {trait} | {', '.join(f'{value} {n}' for value, n in sorted(values.items()))} |"
        for trait, values in found.items()
    )


def _plot(turns: Sequence[Turn]) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 3.5), layout="constrained")
    axes.plot([t.number for t in turns], [t.memory for t in turns], color="silver", linewidth=1)
    for kind, colour in KINDS.items():
        some = [turn for turn in turns if turn.kind == kind]
        axes.scatter([t.number for t in some], [t.memory for t in some], 10, colour, label=kind)
    looks = [(turn.number, turn.held.resident) for turn in turns if turn.held is not None]
    axes.plot(*zip(*looks, strict=True), color="black", marker=".", label="held when all is freed")
    axes.axvspan(0, min(WARM_UP, len(turns)), color="whitesmoke", label="warm-up")
    axes.set(xlabel="prompt", ylabel="resident memory of the server, MB", ylim=(0, None))
    axes.legend(ncols=5, loc="lower right")
    figure.savefig(PLOT, dpi=100)
