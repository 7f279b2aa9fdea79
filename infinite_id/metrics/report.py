"""An evaluation as files: `scores.csv`, `figures.json`, and `report.html`, which needs no other."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes

from ..files import write_text
from ..photos.look import Limits, Rejected, decode
from .evaluate import Evaluation, Row
from .features import Nets
from .people import to_text
from .scores import Measure
from .statistics import FEWEST_PEOPLE, Interval

CSV, JSON, HTML = "scores.csv", "figures.json", "report.html"
SHOWN = 100
"""Pictures with thumbnails among the best, and among the worst."""
_TABLE_BYTES = 20_000_000
"""The most bytes of the table of all pictures. The whole page may have 40 MB."""
_THUMBNAIL, _QUALITY = 128, 80
_BINS = 24
_TEMPLATE = Path(__file__).with_name("report.html")


def write_all(out: Path, evaluation: Evaluation, nets: Nets, against: str) -> None:
    """Write the three files.

    Args:
        against: the method that the others are compared with.

    Raises:
        UserError: if a file cannot be written.
    """
    write_text(out / CSV, _to_csv(evaluation))
    figures = to_json(evaluation, nets, against)
    write_text(out / JSON, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    write_text(out / HTML, _to_html(out, evaluation, figures))


def _to_csv(evaluation: Evaluation) -> str:
    """A line for each picture, whatever became of it."""
    columns = _columns(evaluation)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "person", "prompt", "seed", "file", *columns, "problem"])
    for row in evaluation.rows:
        p = row.picture
        values = [_shorten(row.scores.get(column)) for column in columns]
        file = to_text(p.path.as_posix())
        writer.writerow([p.method, p.person, p.prompt, p.seed, file, *values, row.problem])
    return text.getvalue()


def _columns(evaluation: Evaluation) -> list[str]:
    """Return the measures of single pictures, in the order of the evaluation's measures."""
    found = {name for row in evaluation.rows for name in row.scores}
    return [measure for measure in evaluation.measures if measure in found]


def _shorten(value: float | None) -> float | None:
    """Four decimals; None for what is not known."""
    return None if value is None or math.isnan(value) else round(value, 4)


def to_json(evaluation: Evaluation, nets: Nets, against: str) -> dict[str, Any]:
    """Everything but the single pictures, as plain JSON values; None for what is not known."""
    return {
        "pictures": len(evaluation.rows),
        "nets": describe_nets(nets),
        "counting": "A picture without a face counts 0 in similarities and in % of own; in "
        "'clipped' negative similarities count 0 as well. Copy-paste scores are means over "
        "pictures with a face. Missing and unreadable pictures count for nothing.",
        "intervals": "95 %, bootstrapped over people; differences are paired by person",
        "fewest_people": FEWEST_PEOPLE,
        "warnings": list(evaluation.warnings),
        "problems": list(evaluation.problems),
        "methods": {
            method: {
                measure: _figure(evaluation, method, measure, against)
                for measure in evaluation.measures
            }
            for method in evaluation.methods
        },
        "against": against,
        "baselines": {
            net: {
                person: {"own": _shorten(b.own), "strangers": _shorten(b.strangers)}
                for person, b in own.items()
            }
            for net, own in evaluation.baselines.items()
        },
    }


def describe_nets(nets: Nets) -> list[dict[str, str]]:
    """Describe the nets that judged, exactly enough to repeat the evaluation."""
    found = [
        {
            "name": net.name,
            "kind": "face net",
            "sha256": net.digest,
            "licence": net.licence,
            "scale": "cosine, -1 to 1" if net.measure is Measure.COSINE else net.measure.value,
            "input": "the largest face",
        }
        for net in nets.faces
    ]
    if nets.clip is not None:
        found.append(
            {
                "name": nets.clip.name,
                "kind": "CLIP",
                "sha256": nets.clip.digest,
                "licence": "of the given weights",
                "scale": "cosine, -1 to 1",
                "input": f"whole pictures; {nets.clip.preprocessing}",
            }
        )
    return found


def _figure(evaluation: Evaluation, method: str, measure: str, against: str) -> dict[str, Any]:
    difference = None if method == against else evaluation.difference(method, against, measure)
    return {
        "people": len(evaluation.figures[method][measure]),
        "mean": _interval(evaluation.interval(method, measure)),
        "difference": _interval(difference),
    }


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {
        "mean": _shorten(interval.mean),
        "low": _shorten(interval.low),
        "high": _shorten(interval.high),
    }


def _to_html(out: Path, evaluation: Evaluation, figures: Mapping[str, Any]) -> str:
    from jinja2 import Environment

    # Names of files and people are strangers' text: autoescape keeps them text.
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    columns = _columns(evaluation)
    ranked = _rank(evaluation, columns)
    best = ranked[: min(SHOWN, len(ranked) - len(ranked) // 2)]
    worst = ranked[::-1][: min(SHOWN, len(ranked) // 2)]
    table = [_cells(row, columns, out) for row in evaluation.rows]
    data, shown = _fit(table)
    return template.render(
        figures=figures,
        measures=evaluation.measures,
        plots=[_plot(figures, measure) for measure in evaluation.measures],
        histograms=[_histogram(evaluation, name) for name in columns],
        rank=columns[0] if columns else "",
        best=[_thumbnail(row, columns[0], out) for row in best],
        worst=[_thumbnail(row, columns[0], out) for row in worst],
        columns=columns,
        data=data,
        shown=shown,
        csv=CSV,
    )


def _rank(evaluation: Evaluation, columns: Sequence[str]) -> list[Row]:
    """Pictures that have the first score, best first; those without a face count 0."""
    known = [row for row in evaluation.rows if columns and columns[0] in row.scores]

    def value(row: Row) -> float:
        score = row.scores[columns[0]]
        return 0.0 if math.isnan(score) else score

    return sorted(known, key=value, reverse=True)


def _cells(row: Row, columns: Sequence[str], out: Path) -> list[Any]:
    p = row.picture
    values = [_shorten(row.scores.get(column)) for column in columns]
    return [p.method, p.person, p.prompt, p.seed, *values, row.problem, _link(p.path, out)]


def _link(path: Path, out: Path) -> str:
    """Return the path from the report's folder to a file, or its address if drives differ."""
    try:
        return quote(os.fsencode(Path(os.path.relpath(path, out)).as_posix()))
    except ValueError:
        return path.absolute().as_uri()


def _fit(table: Sequence[Sequence[Any]]) -> tuple[str, int]:
    """Return the rows that fit the page, as JSON that is safe in HTML, and their number."""
    lines: list[str] = []
    size = 0
    for cells in table:
        line = json.dumps(cells, ensure_ascii=False).replace("<", "\\u003c")
        size += len(line.encode()) + 2
        if size > _TABLE_BYTES:
            break
        lines.append(line)
    return "[" + ",\n".join(lines) + "]", len(lines)


def _thumbnail(row: Row, rank: str, out: Path) -> dict[str, Any]:
    p = row.picture
    return {
        "label": f"{p.method}, {p.person}, {p.prompt}, {p.seed}",
        "score": _shorten(row.scores[rank]),
        "link": _link(p.path, out),
        "data": _as_data(p.path),
    }


def _as_data(path: Path) -> str:
    """A JPEG as a data address; not in base64, which the registry forbids in published code."""
    from PIL import Image

    try:
        picture = Image.fromarray(decode(path.read_bytes(), Limits())[..., ::-1].copy())
    except (OSError, Rejected):  # it was there when it was scored
        return ""
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg," + quote_from_bytes(file.getvalue(), safe="")


def _plot(figures: Mapping[str, Any], measure: str) -> dict[str, Any]:
    """Where the means and intervals lie on an axis, in 0..1, for the template to draw."""
    found = {
        method: own[measure]["mean"]
        for method, own in figures["methods"].items()
        if own[measure]["mean"]
    }
    bounds = [x for i in found.values() for x in (i["low"], i["high"])] or [0.0]
    low, high = min(0.0, *bounds), max(0.0, *bounds)
    width = (high - low) or 1.0
    return {
        "measure": measure,
        "low": low,
        "high": high,
        "lines": [
            {"method": m, **i, **{f"{k}_at": (i[k] - low) / width for k in ("mean", "low", "high")}}
            for m, i in found.items()
        ],
    }


def _histogram(evaluation: Evaluation, column: str) -> dict[str, Any]:
    """How the pictures' scores are spread, by method: heights in 0..1 of the highest bar."""
    values = {
        method: [
            row.scores[column]
            for row in evaluation.rows
            if row.picture.method == method and not math.isnan(row.scores.get(column, math.nan))
        ]
        for method in evaluation.methods
    }
    everything = [x for own in values.values() for x in own] or [0.0]
    low, high = min(everything), max(everything)
    width = (high - low) / _BINS or 1.0
    counts = {}
    for method, own in values.items():
        counts[method] = [0] * _BINS
        for x in own:
            counts[method][min(int((x - low) / width), _BINS - 1)] += 1
    highest = max((n for own in counts.values() for n in own), default=1) or 1
    return {
        "column": column,
        "low": low,
        "high": high,
        "bars": {method: [n / highest for n in own] for method, own in counts.items()},
    }
