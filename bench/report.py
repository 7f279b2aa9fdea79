"""The record of measurements, and `docs/benchmark.md`, which is written from it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import plot
from .modes import MODES
from .plot import Panel, Series
from .texts import ATTENTION, COUNTS, FLOPS, INTRODUCTION, MOVED, PEERS, TIMED, table

PAGE, RECORD = "benchmark.md", "benchmark.json"
Found = Mapping[str, Any]


class Record:
    """Measurements, part by part. A part that is measured again replaces the earlier one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / RECORD
        self._parts: dict[str, Any] = (
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        )

    def note(self, part: str, found: Found) -> None:
        self._parts[part] = found

    def write(self) -> str:
        """Write record, page and plots; return the page."""
        record = json.dumps(self._parts, indent=1) + "\n"
        (self._folder / RECORD).write_text(record, encoding="utf-8")
        sections = [INTRODUCTION]
        for part, section in SECTIONS.items():
            for found in self._list(part):
                sections.append(f"{section(found)}\n\n{_about(found['about'])}")
        page = "\n\n".join(sections) + "\n"
        for name, text in ({PAGE: page} | self._draw()).items():
            (self._folder / name).write_text(text, encoding="utf-8")
        return page

    def _list(self, part: str) -> list[Found]:
        """List the measurements of a part, by model, dtype and size."""
        found = (each for name, each in self._parts.items() if name.partition("-")[0] == part)
        return sorted(found, key=lambda f: (f.get("model"), f.get("dtype"), f.get("size")))

    def _draw(self) -> dict[str, str]:
        drawn = {
            f"benchmark-{found['model']}.svg": plot.draw(_draw_scaling(found))
            for found in self._list("scaling")
        }
        for found in self._list("deviation"):
            drawn["benchmark-deviation.svg"] = plot.draw(_draw_deviation(found))
        return drawn


def _about(about: Found) -> str:
    return f"`{about['command']}`, {math.ceil(about['minutes'])} min: {about['machine']}."


def _ratio(spread: Found) -> str:
    return f"{spread['middle']:.3f} ({spread['low']:.3f} to {spread['high']:.3f})"


def _show_counts(found: Found) -> str:
    sizes, brought = found["sizes"], f"{found['identity'] / 1e6:.0f} MB"
    first = next(iter(sizes.values()))
    names = [row["mode"] for row in first]
    flops = [
        [name, *(_show_flops(rows[i]) for rows in sizes.values())] for i, name in enumerate(names)
    ]
    moved = [
        [
            name,
            *(
                f"{rows[i]['bytes']:.3f}, {rows[i]['extra'] / 1e6:+.0f} MB"
                for rows in sizes.values()
            ),
        ]
        for i, name in enumerate(names)
    ]
    plain = [rows[0]["plain"] for rows in sizes.values()]
    columns = ["", *(f"{size} px" for size in sizes)]
    absolute = [
        ["TFLOPs", *(f"{p['flops'] / 1e12:.3f}" for p in plain)],
        ["GB moved", *(f"{p['bytes_moved'] / 1e9:.1f}" for p in plain)],
        ["peak MB", *(f"{p['peak'] / 1e6:.0f}" for p in plain)],
    ]
    return "\n\n".join(
        [
            f"## Counted: SDXL at true size\n\n{COUNTS}",
            table(["plain step", *columns[1:]], absolute),
            FLOPS,
            table(["FLOPs", *columns[1:]], flops),
            MOVED.format(brought=brought),
            table(["bytes, memory", *columns[1:]], moved),
        ]
    )


def _show_flops(row: Found) -> str:
    found, limit = f"{row['flops']:.4f}", f"{row['limit']:.4f}"
    return found if found == limit else f"{found} / {limit}"


def _title(found: Found) -> str:
    size = [f"{found['size']} px"] if "size" in found else []
    return ", ".join([MODELS[found["model"]], found["dtype"], *size])


def _show_modes(found: Found) -> str:
    plain = found["plain"]
    is_targeted = (found["model"], found["size"]) == TARGETED
    targets = {mode.name: mode.target for mode in MODES} if is_targeted else {}
    rows = [
        [
            *_show_mode(mode, row),
            f"{found['limit'][mode]:.3f}",
            *([f"{targets[mode]:.2f}" if targets[mode] else ""] if targets else []),
            *_show_waits(found, row),
        ]
        for mode, row in found["modes"].items()
    ]
    columns = [*COLUMNS, "least FLOPs", *(["at most"] if targets else []), *_waits(found)]
    parts = [
        f"## Timed: {_title(found)}",
        f"{found['weights'] / 1e9:.2f} billion weights, random; a plain step takes "
        f"{plain['middle']:.3f} s ({plain['low']:.3f} to {plain['high']:.3f})."
        + TIMED[found["model"]],
        table(["mode", *columns], rows),
        f"An identity's K', V', projected once for all samplings: {found['project']:.2f} s.",
    ]
    if "peer" in found:
        parts += _show_peer(found["peer"])
    return "\n\n".join(parts)


def _show_mode(name: str, row: Found) -> list[str]:
    return [name, _ratio(row["ratio"]), _ratio(row["cpu"]), f"{row['extra'] / 1e6:+.1f}"]


def _waits(measured: Found) -> list[str]:
    return ["waits"] if measured["has_gpu"] else []


def _show_waits(measured: Found, row: Found) -> list[str]:
    return [str(row["waits"])] if measured["has_gpu"] else []


def _show_peer(found: Found) -> list[str]:
    rows = [
        [*_show_mode(name, row), f"{found['megabytes'][name]:.1f}", *_show_waits(found, row)]
        for name, row in found["modes"].items()
    ]
    columns = [*COLUMNS, "MB kept beside the UNet", *_waits(found)]
    return [PEERS, table(["", *columns], rows)]


def _show_attention(found: Found) -> str:
    rows = [
        [mode, f"{row['flops']:.3f}", f"{row['time']:.3f}"] for mode, row in found["modes"].items()
    ]
    return "\n\n".join(
        [
            f"## What attention's speed allows: {_title(found)}",
            ATTENTION.format(**found),
            table(["mode", "least FLOPs", "least time"], rows),
        ]
    )


def _show_scaling(found: Found) -> str:
    return (
        f"## How it grows: {_title(found)}\n\n![cost against batch, tokens, identities and "
        f"resolution](benchmark-{found['model']}.svg)\n\nPoints are timed, lines are the least "
        "FLOPs; both in plain steps of one latent at 512 px. Scales are logarithmic."
    )


def _draw_scaling(found: Found) -> list[Panel]:
    panels = []
    for name, points in found["curves"].items():
        values = [point["value"] for point in points]
        series = [
            Series(
                mode,
                points=[(point["value"], point["timed"][mode]) for point in points],
                line=[(point["value"], point["limit"][mode]) for point in points],
            )
            for mode in points[0]["timed"]
        ]
        panels.append(Panel(name, name, "plain steps", series, (values, UP)))
    return panels


def _show_nodes(found: Found) -> str:
    rows = [
        ["Encode Identity, another photo", _show_milliseconds(found["encode"]), ""],
        ["Apply, another weight", _show_milliseconds(found["apply"]), "10"],
        ["the whole graph, nothing changed", _show_milliseconds(found["again"]), "10"],
    ]
    return (
        "## Through the nodes\n\nMilliseconds on a real server with the miniature's nets: what "
        "the pack adds outside the sampler.\n\n"
        + table(["", "ms", "at most"], rows)
        + f"\n\nNodes that ran when nothing had changed: {found['executed']}."
    )


def _show_milliseconds(spread: Found) -> str:
    return f"{spread['middle']:.1f} ({spread['low']:.1f} to {spread['high']:.1f})"


def _show_deviation(found: Found) -> str:
    rows = [
        [
            row["way"],
            f"{row['cost']:.3f}",
            f"{row['rmse']:.4f}",
            f"{row['likeness']:+.3f} ± {row['spread']:.3f}",
        ]
        for row in found["ways"]
    ]
    faithful = ["faithful", f"{found['faithful']:.3f}", "0", "0"]
    columns = ["", "FLOPs, in plain samplings", "RMSE of pixels", "likeness, change"]
    return (
        "## What the savings change\n\n![cost against deviation](benchmark-deviation.svg)\n\n"
        f"{found['pictures']} pictures of the trained miniature for each, of the same people, "
        "prompts and noise as the faithful ones. FLOPs are SDXL's at 512 px. Pixels are 0 to 1. "
        "Likeness is the cosine of the face's features to the photo's; mean and standard "
        "deviation of its change where a face is found in both.\n\n"
        + table(columns, [faithful, *rows])
    )


def _draw_deviation(found: Found) -> list[Panel]:
    rows = [*found["ways"], {"way": "faithful", "cost": found["faithful"], "rmse": 0.0}]
    series = Series(
        "",
        points=[(row["cost"], row["rmse"]) for row in rows],
        labels=[row["way"] for row in rows],
    )
    ticks = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25), plot.make_ticks(max(row["rmse"] for row in rows))
    title, size = "cost against deviation", (760, 440)
    return [Panel(title, "FLOPs", "RMSE", [series], ticks, is_log=False, size=size)]


MODELS = {"sdxl": "SDXL at true size", "small": "SDXL's 70 layers, narrow"}
TARGETED = ("sdxl", 512)  # the modes' targets hold for this
COLUMNS = ["wall", "processor", "MB more"]
UP = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
SECTIONS: dict[str, Callable[[Found], str]] = {
    "count": _show_counts,
    "modes": _show_modes,
    "attention": _show_attention,
    "scaling": _show_scaling,
    "nodes": _show_nodes,
    "deviation": _show_deviation,
}
