"""Leads wires around nodes that would hide them, by points that the page calls reroutes.

Slots, curves and boxes have the sizes of the page's canvas, in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

TITLE, SLOT = 30, 20
MARGIN, GAP = 8, 14
"""How far a wire keeps from nodes, and from wires beside it."""
GROUP_TITLE = 40
SAMPLES = 48


class Point(NamedTuple):
    x: float
    y: float


class Box(NamedTuple):
    """A node with its title."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, point: Point, margin: float = 0) -> bool:
        across = self.left - margin < point.x < self.right + margin
        return across and self.top - margin < point.y < self.bottom + margin


Path = list[Point]


def box(node: Mapping[str, Any]) -> Box:
    """Return a node's place, from its entry in a workflow file."""
    (left, top), (width, height) = node["pos"], node["size"]
    return Box(left, top - TITLE, left + width, top + height)


def ends(workflow: Mapping[str, Any], link: list[Any]) -> tuple[Point, Point]:
    """Return where a wire leaves one node and enters another."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    _, source, output, target, input_, _ = link
    (x, y), (width, _) = nodes[source]["pos"], nodes[source]["size"]
    start = Point(x + width, y + (output + 0.7) * SLOT)
    x, y = nodes[target]["pos"]
    return start, Point(x, y + (input_ + 0.7) * SLOT)


def draw(start: Point, end: Point) -> Path:
    """Return the page's curve from an output to an input."""
    reach = math.dist(start, end) / 4
    a, b = Point(start.x + reach, start.y), Point(end.x - reach, end.y)
    found = []
    for index in range(SAMPLES + 1):
        t = index / SAMPLES
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        corners = list(zip(weights, (start, a, b, end), strict=True))
        found.append(Point(sum(w * p.x for w, p in corners), sum(w * p.y for w, p in corners)))
    return found


def walk(corners: Path) -> Path:
    """Return points on straight lines between corners."""
    found = []
    for (x, y), (x2, y2) in pairwise(corners):
        steps = max(2, int(math.dist((x, y), (x2, y2)) / 6))
        found += [Point(x + (x2 - x) * i / steps, y + (y2 - y) * i / steps) for i in range(steps)]
    return found


def hits(path: Path, boxes: list[Box], margin: float = 0) -> bool:
    """Whether a path runs behind a box; its two ends, at the joined nodes, do not count."""
    first, last = path[0], path[-1]
    free = [p for p in path if min(abs(p.x - first.x), abs(p.x - last.x)) > 2 or p.y != first.y]
    return any(b.holds(p, margin) for p in free for b in boxes)


def lead(workflow: dict[str, Any]) -> None:
    """Add the points to `extra` for every wire that needs them.

    Raises:
        ValueError: if there is no way around for a wire.
    """
    boxes = {node["id"]: box(node) for node in workflow["nodes"]}
    reroutes: list[dict[str, Any]] = []
    extensions: list[dict[str, int]] = []
    taken: list[tuple[float, float, float]] = []
    for link in workflow["links"]:
        start, end = ends(workflow, link)
        others = [b for node, b in boxes.items() if node not in (link[1], link[3])]
        own = [boxes[link[1]], boxes[link[3]]]
        if not hits(draw(start, end), others + own):
            continue
        corners = _find_way(start, end, others, own, taken)
        if corners is None:
            kinds = [node["type"] for node in workflow["nodes"] if node["id"] in link[1:4:2]]
            raise ValueError(f"{workflow['id']}: no way for the wire between {' and '.join(kinds)}")
        for index, corner in enumerate(corners):
            parent = {"parentId": reroutes[-1]["id"]} if index else {}
            point = {"id": len(reroutes) + 1, **parent, "pos": [*corner], "linkIds": [link[0]]}
            reroutes.append(point)
        extensions.append({"id": link[0], "parentId": reroutes[-1]["id"]})
    if reroutes:
        workflow["extra"] |= {"reroutes": reroutes, "linkExtensions": extensions}


def _find_way(
    start: Point,
    end: Point,
    others: list[Box],
    own: list[Box],
    taken: list[tuple[float, float, float]],
) -> Path | None:
    """Return the corners of a way in the free lane nearest to both ends, and take the lane."""
    for lane in sorted(_lanes(others + own), key=lambda y: abs(y - start.y) + abs(y - end.y)):
        used = [y for y, left, right in taken if left < end.x and start.x < right]
        if any(abs(lane - y) < GAP for y in used):
            continue
        for step in range(3):
            left, right = start.x + 16 + GAP * step, end.x - 16 - GAP * step
            corners = [
                Point(left, start.y),
                Point(left, lane),
                Point(right, lane),
                Point(right, end.y),
            ]
            if not hits(walk([start, *corners, end]), others, MARGIN) and not hits(
                walk(corners), own, MARGIN
            ):
                taken.append((lane, min(left, right), max(left, right)))
                return corners
    return None


def _lanes(boxes: list[Box]) -> Iterator[float]:
    """Yield heights below nodes, and heights above a group title over each node."""
    for b in boxes:
        for step in range(1, 6):
            yield b.top - GROUP_TITLE - GAP * step
            yield b.bottom + GAP * step
