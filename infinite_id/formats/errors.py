"""What goes wrong with adapter files, said so that a user can act on it."""

from collections.abc import Mapping
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]

MAX_WIDTH = 65536
"""More than any layer of an adapter has; what declares more is refused before it costs memory."""


KNOWN = (
    "Known are native Infinite-ID, InstantID, and for SDXL IP-Adapter, its Plus, Plus Face and "
    "Plus Composition, FaceID, FaceID PlusV2, FaceID Portrait and Portrait unnorm."
)
"""The adapters that `load` reads, for the user."""


class FormatError(ValueError):
    """A file is not what it should be; the message names the file and what to do."""

    __module__ = "infinite_id"  # the page shows it; as a node pack's it would be a path


def check_shapes(path: Path, found: Shapes, expected: Shapes) -> None:
    """Compare a file's tensors with what its format demands, before any is read.

    Raises:
        FormatError: listing missing, unexpected and mis-shaped keys.
    """
    problems = [
        *(f"missing: {key} {expected[key]}" for key in expected if key not in found),
        *(f"unexpected: {key} {found[key]}" for key in found if key not in expected),
        *(
            f"wrong shape: {key} is {found[key]}, expected {shape}"
            for key, shape in expected.items()
            if key in found and found[key] != shape
        ),
    ]
    if problems:
        listed = "\n  ".join(problem[:200] for problem in problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise FormatError(f"{path.name}: {len(problems)} tensors do not fit:\n  {listed}{more}")
