"""The verb `prepare`: its options, and what it does with them."""

# torch and ComfyUI are imported inside the functions: `--help` needs neither.

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ... import launch
from ...errors import UserError
from ...options import add_face_net_options

if TYPE_CHECKING:
    from ...photos.look import Limits
    from .encode import Sizes
    from .people import Choice
    from .work import Spread

DESCRIPTION = """Finds the face in each photo, drops what is of no use with the reason for each, and
stores what the frozen nets make of the others. Give the same command again after an interruption:
it goes on where it was."""
_PHOTOS = """a folder with a folder of photos for each person; a .jsonl file with a line
{"file": ..., "person": ...} for each photo, and maybe "caption" and "bbox"; a WebDataset .tar, or a
folder of them, with {"person": ...} in each sample's .json"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help=_PHOTOS)
    parser.add_argument("--out", type=Path, required=True, metavar="DATA", help="a folder")
    parser.add_argument(
        "--model", required=True, help="SDXL checkpoint, for its autoencoder: a path or a name"
    )
    parser.add_argument(
        "--face-pack",
        required=True,
        help="InsightFace model pack, a path or a name; pictures need the same one later",
    )
    parser.add_argument(
        "--clip-vision", required=True, help="CLIP image encoder (ViT-H/14): a path or a name"
    )
    parser.add_argument(
        "--captions", action="store_true", help="read a photo's caption from its .txt"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[1024],
        help="pixels, one for each stage of training, such as 512 1024; default: 1024",
    )
    parser.add_argument(
        "--step", type=int, default=64, help="sides are multiples of it; default: 64"
    )
    parser.add_argument("--shard", type=int, default=128, help="photos in a file; default: 128")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="spread the work by Ray: over this machine, or over the cluster at ADDRESS (`auto`: "
        "the one that this machine belongs to); everything must lie at the same paths there",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="with --ray, at most; default: one for each GPU, else one for every two cores",
    )
    _add_thresholds(parser)
    launch.add_options(parser)


def _add_thresholds(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which photos are used")
    for name, default, text in (
        ("--min-face", 112.0, "least width and height of the face, pixels"),
        ("--min-sharpness", 25.0, "least variance of the Laplacian of the aligned 112 pixel face"),
        ("--min-confidence", 0.5, "detector's score from which on something is a face"),
        ("--min-likeness", 0.35, "least cosine to the person's other photos; less is a stranger"),
        ("--max-megabytes", 100.0, "largest file"),
        ("--max-megapixels", 100.0, "largest picture"),
    ):
        group.add_argument(
            name, type=float, default=default, metavar="N", help=f"{text}; default: {default:g}"
        )
    group.add_argument(
        "--pair-with-flip",
        action="store_true",
        help="keep people with one photo, and pair it with its mirror image",
    )
    add_face_net_options(group)


def execute(options: argparse.Namespace) -> int:
    """Prepare the photos; 0 if all went well. Raises UserError."""
    from ...photos.sources import list_sources
    from .run import Settings, prepare

    sources = list_sources(options.photos, options.captions)
    host = launch.read_options(options)
    host = replace(host, folder=launch.use_host(host))
    from ...faces.model_pack import load_analysis
    from ...host.models import autoencoder_digest, find_face_pack, find_file
    from .host_encoders import HostEncoders

    model = find_file("--model", "checkpoints", options.model)
    clip_vision = find_file("--clip-vision", "clip_vision", options.clip_vision)
    pack = find_face_pack(options.face_pack)
    settings = Settings(
        limits=_read_limits(options),
        choice=_read_choice(options),
        sizes=_read_sizes(options),
        models={
            "face": {"name": pack.name, "digest": _pack_digest(pack, options.detection_size)},
            "clip_vision": _describe(clip_vision),
            "autoencoder": {"name": model.name, "digest": autoencoder_digest(model)},
        },
        shard=options.shard,
    )
    with _spread(options, host) as spread:
        kept, rejected = prepare(
            sources,
            options.out.absolute(),
            settings,
            partial(load_analysis, pack, options.provider, options.detection_size),
            partial(HostEncoders.load, model, clip_vision),
            spread,
        )
    print(f"{options.out}: {kept} photos, {rejected} not used; see {options.out / 'report.html'}")
    return 0


@contextmanager
def _spread(options: argparse.Namespace, host: launch.HostOptions) -> Iterator[Spread]:
    from .work import in_this_process

    if options.ray is None:
        yield in_this_process
        return
    from .cluster import Processes, connect

    with connect(options.ray):
        yield Processes(host, options.processes)


def _read_limits(options: argparse.Namespace) -> Limits:
    from ...photos.look import Limits

    return Limits(
        face=options.min_face,
        sharpness=options.min_sharpness,
        confidence=options.min_confidence,
        megabytes=options.max_megabytes,
        megapixels=options.max_megapixels,
    )


def _read_choice(options: argparse.Namespace) -> Choice:
    from .people import Choice

    return Choice(options.min_likeness, options.pair_with_flip)


def _read_sizes(options: argparse.Namespace) -> Sizes:
    from .buckets import list_buckets
    from .encode import Sizes

    wrong = [
        size for size in options.sizes if options.step % 8 or not list_buckets(size, options.step)
    ]
    if options.step < 8 or wrong:
        raise UserError("--step must be a multiple of 8, and --sizes not less than --step.")
    return Sizes(tuple(sorted(set(options.sizes))), options.step)


def _describe(path: Path) -> dict[str, str]:
    from ...files import file_digest

    return {"name": path.name, "digest": file_digest(path)}


def _pack_digest(pack: Path, detection_size: int) -> str:
    """Return a digest of a pack's nets and of how they are run."""
    from ...files import digest_of, file_digest

    return digest_of([file_digest(path) for path in sorted(pack.glob("*.onnx"))], detection_size)
