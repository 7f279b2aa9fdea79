"""Small plots as SVG, with numbers as they are on paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 46
COLOURS = ("#555555", "#1b6ca8", "#c2452d", "#2e8b57", "#8a5cb8", "#b8860b")
STYLE = "font-family='sans-serif' font-size='11' fill='#222222'"
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points, and a line through `line`; `labels` are written beside the points."""

    name: str
    points: Sequence[Point] = ()
    line: Sequence[Point] = ()
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Panel:
    """One plot; ticks are the values that are written on the axes."""

    title: str
    across: str
    up: str
    series: Sequence[Series]
    ticks: tuple[Sequence[float], Sequence[float]]
    is_log: bool = True
    size: tuple[int, int] = (360, 300)


def draw(panels: Sequence[Panel]) -> str:
    """Draw panels side by side, with a legend of the colours below."""
    names = [series.name for series in panels[0].series if series.name]
    wide, high = panels[0].size
    width, height = wide * len(panels), high + 20 * len(names)
    parts = [_draw_panel(panel, wide * place) for place, panel in enumerate(panels)]
    for row, name in enumerate(names):
        y = high + 20 * row + 6
        parts.append(f"<circle cx='{LEFT}' cy='{y}' r='4' fill='{COLOURS[row]}'/>")
        parts.append(f"<text x='{LEFT + 12}' y='{y + 4}' {STYLE}>{escape(name)}</text>")
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}'>\n<rect width='100%' height='100%' fill='#ffffff'/>\n"
        f"{body}\n</svg>\n"
    )


def make_ticks(highest: float, count: int = 5) -> list[float]:
    """Return ticks from 0 past the highest value, in steps of 1, 2 or 5 times a power of ten."""
    least = highest / (count - 1)
    power = 10 ** math.floor(math.log10(least))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= least)
    return [step * n for n in range(count)]


def _draw_panel(panel: Panel, left: float) -> str:
    width, height = panel.size
    across, up = (_scale(ticks, panel.is_log) for ticks in panel.ticks)

    def place(point: Point) -> Point:
        x = left + LEFT + across(point[0]) * (width - LEFT - RIGHT)
        return x, height - BOTTOM - up(point[1]) * (height - TOP - BOTTOM)

    parts = [_axes(panel, place)]
    for colour, series in zip(COLOURS, panel.series, strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, series.line))
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}'/>")
        for index, (x, y) in enumerate(map(place, series.points)):
            parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='{colour}'/>")
            if index < len(series.labels):
                on_the_right = x > left + width / 2  # on the left there is room for the label
                at, anchor = (x - 7, "end") if on_the_right else (x + 7, "start")
                parts.append(_text(at, y - 5, series.labels[index], anchor))
    return "\n".join(parts)


def _scale(ticks: Sequence[float], is_log: bool) -> Callable[[float], float]:
    """Return a function that maps the first tick to 0 and the last to 1."""
    of = math.log if is_log else float
    first, last = of(ticks[0]), of(ticks[-1])
    return lambda value: (of(value) - first) / (last - first)


def _axes(panel: Panel, place: Callable[[Point], Point]) -> str:
    xs, ys = panel.ticks
    corner, right, top = place((xs[0], ys[0])), place((xs[-1], ys[0])), place((xs[0], ys[-1]))
    middle = (corner[0] + right[0]) / 2
    frame = " ".join(f"{x:.1f},{y:.1f}" for x, y in (top, corner, right))
    parts = [
        f"<polyline points='{frame}' fill='none' stroke='#888888'/>",
        _text(middle, TOP - 14, panel.title, "middle"),
        _text(middle, panel.size[1] - 8, panel.across, "middle"),
        _text(top[0] - 46, TOP - 14, panel.up, "start"),
    ]
    for value in xs:
        x, y = place((value, ys[0]))
        parts.append(_text(x, y + 16, f"{value:g}", "middle"))
    for value in ys:
        x, y = place((xs[0], value))
        parts.append(f"<line x1='{x}' x2='{right[0]}' y1='{y}' y2='{y}' stroke='#eeeeee'/>")
        parts.append(_text(x - 6, y + 4, f"{value:g}", "end"))
    return "\n".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {STYLE}>{escape(text)}</text>"
