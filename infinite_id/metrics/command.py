"""The command: `score` measures pictures of people, `draw` makes them by a plan, `calibrate` says
what a face net's numbers mean.
"""

# torch and ComfyUI are imported inside the functions: `--help` needs neither.

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .. import launch
from ..errors import UserError
from ..options import add_face_net_options

if TYPE_CHECKING:
    from .clips import Clip
    from .evaluate import Evaluation
    from .faces import FaceNet
    from .features import Nets

_SCORE = """Measures pictures and writes scores.csv, figures.json and report.html. Features are
stored by the files' contents: give the same command again after an interruption, and it goes on."""
_MATERIAL = """a folder of pictures with a plan.json, as `draw` leaves it, or a .csv file whose
columns are file, kind ("picture" or "photo"), person, method, prompt and seed"""
_DRAW = """Draws every person x prompt x seed x method of a plan that is not there yet, through
one or several ComfyUI servers. A server may go and come back: no picture is lost, none is drawn
twice."""
_CALIBRATE = """Compares all pairs of photos, and prints how alike one person's and two people's
are, the thresholds at 1 % and 0.1 % false accepts, and how face nets correlate, as Markdown."""
_EXIT = "The exit code is 0, 1 after an error, and 2 if a mean lies below a --fail-under."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 done, 1 an error, 2 below --fail-under."""
    options = _parse(arguments)
    lacking = [name for name in ("aiohttp", "jinja2", "tqdm") if find_spec(name) is None]
    if lacking:
        print(
            f"error: {' and '.join(lacking)} must be installed: `pip install -r "
            "requirements/metrics.txt` in this pack's folder.",
            file=sys.stderr,
        )
        return 1
    return launch.run(_VERBS[options.verb], options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infinite_id.metrics",
        description="Says how alike, how obedient and how varied pictures of people are.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_score(
        verbs.add_parser("score", help="pictures -> a report", description=_SCORE, epilog=_EXIT)
    )
    _add_draw(verbs.add_parser("draw", help="a plan -> pictures", description=_DRAW))
    _add_calibrate(
        verbs.add_parser("calibrate", help="photos -> thresholds", description=_CALIBRATE)
    )
    return parser.parse_args(arguments)


def _add_draw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", type=Path, metavar="PLAN", help="a .json; docs/metrics.md has one")
    parser.add_argument("--out", type=Path, required=True, metavar="PICTURES", help="a folder")
    parser.add_argument(
        "--server",
        action="append",
        required=True,
        metavar="URL",
        help="such as http://127.0.0.1:8188; may be given several times",
    )


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photos",
        type=Path,
        metavar="PHOTOS",
        help="a folder with a folder of photos for each person",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where features are stored"
    )
    _add_face_nets(parser)
    launch.add_options(parser)


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", type=Path, metavar="PICTURES", help=_MATERIAL)
    parser.add_argument("--out", type=Path, required=True, metavar="REPORT", help="a folder")
    _add_face_nets(parser)
    group = parser.add_argument_group("CLIP: by open_clip, or by ComfyUI")
    group.add_argument(
        "--clip",
        nargs=2,
        metavar=("MODEL", "FILE"),
        help="open_clip's name, such as ViT-L-14-quickgelu, and its weights as .safetensors",
    )
    group.add_argument("--clip-text", metavar="FILE", help="text encoder: a path or a name")
    group.add_argument("--clip-vision", metavar="FILE", help="CLIP vision: a path or a name")
    parser.add_argument(
        "--against", metavar="METHOD", help="compare the others with it; default: the first"
    )
    parser.add_argument(
        "--fail-under",
        action="append",
        default=[],
        metavar="MEASURE=VALUE",
        help="end with exit code 2 if a method's mean is lower, such as 'CLIP-T=0.25'",
    )
    launch.add_options(parser)


def _add_face_nets(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("face nets: best others than encoding and training used")
    group.add_argument(
        "--face-pack",
        action="append",
        default=[],
        metavar="PACK",
        help="InsightFace model pack, a path or a name; may be given several times",
    )
    group.add_argument("--facenet", type=Path, metavar="FILE", help="FaceNet as .onnx")
    group.add_argument("--dlib", action="store_true", help="dlib's ResNet")
    add_face_net_options(group)


def _score(options: argparse.Namespace) -> int:
    limits = [_split(text) for text in options.fail_under]
    from .material import read_material

    material = read_material(options.pictures)
    against = options.against or material.methods[0]
    if against not in material.methods:
        raise UserError(f"--against: the methods are {', '.join(material.methods)}.")
    _use_host(options)
    from .evaluate import evaluate
    from .features import Nets, Store
    from .report import HTML, write_all

    nets = Nets(_load_faces(options), _load_clip(options))
    if not nets.faces and nets.clip is None:
        raise UserError("There is no net to measure with: give --face-pack, --clip or both.")
    root = options.pictures if options.pictures.is_dir() else options.pictures.parent
    store = Store(options.out / "features.sqlite")
    evaluation = evaluate(material, nets, store, root)
    store.close()
    write_all(options.out, evaluation, nets, against)
    _print(evaluation, nets)
    print(f"{options.out / HTML}: {len(evaluation.rows)} pictures")
    return _check(evaluation, limits)


def _draw(options: argparse.Namespace) -> int:
    from .draw import draw

    outcome = draw(options.plan, options.out, options.server)
    for cell, reason in outcome.failed.items():
        print(f"failed: {cell.path.as_posix()}: {reason}", file=sys.stderr)
    for method, lacking in outcome.skipped.items():
        nodes = ", ".join(sorted(lacking))
        print(f"skipped: {method}: no server has {nodes}", file=sys.stderr)
    anew = f" ({outcome.outdated} anew: the plan has changed)" if outcome.outdated else ""
    print(f"{options.out}: {outcome.drawn} pictures drawn{anew}, {len(outcome.failed)} failed")
    return 1 if outcome.failed else 0


def _calibrate(options: argparse.Namespace) -> int:
    _use_host(options)
    from ..photos.sources import list_sources
    from .calibrate import calibrate, describe
    from .features import Store

    nets = _load_faces(options)
    if not nets:
        raise UserError("There is no net to calibrate: give --face-pack.")
    photos = [(s.person, s.path) for s in list_sources(options.photos, captions=False)]
    store = Store(options.out / "features.sqlite")
    calibration = calibrate(photos, nets, store)
    store.close()
    for problem in calibration.problems:
        print(f"not used: {problem}", file=sys.stderr)
    print(describe(calibration))
    return 0


def _use_host(options: argparse.Namespace) -> None:
    """Find ComfyUI, if a name has to be looked up in its folders or its CLIP is asked for."""
    named = [pack for pack in options.face_pack if not Path(pack).is_dir()]
    if named or getattr(options, "clip_text", None) or getattr(options, "clip_vision", None):
        launch.use_host(launch.read_options(options))


def _load_faces(options: argparse.Namespace) -> list[FaceNet]:
    from ..faces.face import FaceError
    from .faces import DlibNet, FaceNetOnnx, PackNet

    if (options.facenet or options.dlib) and not options.face_pack:
        raise UserError("--facenet and --dlib need a --face-pack, whose detector finds faces.")
    try:
        packs = [
            PackNet(_find_pack(pack), options.provider, options.detection_size)
            for pack in options.face_pack
        ]
        others: list[FaceNet] = []
        if options.facenet:
            others.append(FaceNetOnnx(options.facenet, packs[0], options.provider))
        if options.dlib:
            others.append(DlibNet(packs[0]))
    except FaceError as error:
        raise UserError(str(error)) from error
    nets = [*packs, *others]
    (name, times), *_ = Counter(net.name for net in nets).most_common(1) or [("", 0)]
    if times > 1:
        raise UserError(f"Two face nets are called {name}: rename one, or give it once.")
    return nets


def _find_pack(choice: str) -> Path:
    if Path(choice).is_dir():
        return Path(choice)
    from ..host.models import find_face_pack

    return find_face_pack(choice)


def _load_clip(options: argparse.Namespace) -> Clip | None:
    if options.clip:
        from .clips import OpenClip

        model, file = options.clip
        return OpenClip(model, Path(file), "cpu" if options.cpu else "auto")
    if not options.clip_text and not options.clip_vision:
        return None
    if not options.clip_text or not options.clip_vision:
        raise UserError("--clip-text and --clip-vision go together: give both files.")
    from ..host.models import find_file
    from .host_clip import HostClip

    return HostClip.load(
        find_file("--clip-text", "text_encoders", options.clip_text),
        find_file("--clip-vision", "clip_vision", options.clip_vision),
    )


def _print(evaluation: Evaluation, nets: Nets) -> None:
    """Print the means, which nets judged, and how pictures were counted."""
    from .report import describe_nets

    for net in describe_nets(nets):
        print(f"{net['kind']} {net['name']}: {net['scale']}; {net['input']}; {net['licence']}")
    for method in evaluation.methods:
        for measure in evaluation.measures:
            interval = evaluation.interval(method, measure)
            print(f"{method}: {measure} {interval.describe() if interval else 'unknown'}")
    for sentence in evaluation.warnings:
        print(f"warning: {sentence}", file=sys.stderr)
    for problem in evaluation.problems:
        print(f"not used: {problem}", file=sys.stderr)


def _split(text: str) -> tuple[str, float]:
    measure, equals, value = text.rpartition("=")
    try:
        limit = float(value)
        if not equals or math.isnan(limit):
            raise ValueError
    except ValueError as error:
        raise UserError(f"--fail-under {text}: expected MEASURE=VALUE, a number.") from error
    return measure, limit


def _check(evaluation: Evaluation, limits: Sequence[tuple[str, float]]) -> int:
    unknown = sorted({measure for measure, _ in limits} - set(evaluation.measures))
    if unknown:
        raise UserError(
            f"--fail-under: there is no '{unknown[0]}'; there are {', '.join(evaluation.measures)}."
        )
    failed = 0
    for method in evaluation.methods:
        for measure, limit in limits:
            interval = evaluation.interval(method, measure)
            if interval is None or interval.mean < limit:
                found = "unknown" if interval is None else f"{interval.mean:.4f}"
                print(f"below {limit:g}: {method}: {measure} is {found}", file=sys.stderr)
                failed = 2
    return failed


_VERBS = {"score": _score, "draw": _draw, "calibrate": _calibrate}
