"""What is random in training: each number is a function of the seed, the step and the sample.

A step has `run.batch` samples, numbered through all processes. So it is the same whatever the
number of processes, and a run that goes on from a checkpoint draws what it would have drawn.
"""

from dataclasses import dataclass
from hashlib import sha256

import torch


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """A generator on the CPU; different for each purpose and numbers."""
    text = f"{seed} {purpose} {' '.join(str(number) for number in numbers)}"
    words = int.from_bytes(sha256(text.encode()).digest()[:8], "little")
    return torch.Generator().manual_seed(words % 2**63)


@dataclass(frozen=True)
class Draw:
    """One sample of a step.

    Attributes:
        target, source: numbers of photos; the same if a person has one photo alone.
        mirrored: whether the target is mirrored.
        dropped: whether the identity is left out.
        time: the timestep.
        noise: the seed of the noise.
        untold: whether the caption is left out.
    """

    target: int
    source: int
    mirrored: bool
    dropped: bool
    time: int
    noise: int
    untold: bool = False


def draw_index(count: int, random: torch.Generator) -> int:
    """A number from 0 to `count - 1`."""
    return int(torch.randint(count, (), generator=random))


def draw_chance(probability: float, random: torch.Generator) -> bool:
    return float(torch.rand((), generator=random)) < probability


def time_of_preview(times: int) -> int:
    """Return the timestep of previews. There the face is visible, but not yet settled."""
    return int(0.6 * times)
