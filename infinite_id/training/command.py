"""The command: `prepare` makes data of photos, `train` weights of data, `export` a file of them."""

# torch and ComfyUI are imported inside the functions: `--help` needs neither.

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import launch
from ..errors import UserError
from ..options import add_face_net_options

if TYPE_CHECKING:
    from ..photos.look import Limits
    from .prepare.encode import Sizes
    from .prepare.people import Choice
    from .settings import Settings

_PREPARE = """Finds the face in each photo, drops what is of no use with the reason for each, and
stores what the frozen nets make of the others. Give the same command again after an interruption:
it goes on where it was."""
_TRAIN = """Trains an adapter. Give the same command again after an interruption: it goes on from
the newest checkpoint, and ends as if it had not been interrupted. In several processes:
`accelerate launch -m infinite_id.training train ...`."""
_WARM_START = """Begins a run with what fits of another adapter: K', V' of any file that this pack
reads, the face mapper of FaceID's files, all of a native one (so a second stage begins at another
size). Prints what was taken. `train` with the same options goes on from there."""
_PLAN = """Says before a run what it takes, for the paper's set-up, a card of 24 GB and this
machine: memory of each GPU, counted at SDXL's true size on tensors without storage, steps a second,
days, and room for the data. Takes a minute or two."""
_PHOTOS = """a folder with a folder of photos for each person; a .jsonl file with a line
{"file": ..., "person": ...} for each photo, and maybe "caption" and "bbox"; a WebDataset .tar, or a
folder of them, with {"person": ...} in each sample's .json"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 done, 1 an error, 3 interrupted and saved."""
    options = _parse(arguments)
    return launch.run(_VERBS[options.verb], options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infinite_id.training",
        description="Trains Infinite-ID adapters for SDXL from photos of people.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_prepare(verbs.add_parser("prepare", help="photos -> data", description=_PREPARE))
    _add_train(verbs.add_parser("train", help="data -> a run", description=_TRAIN))
    _add_warm_start(
        verbs.add_parser(
            "warm-start", help="an adapter file -> a run at step 0", description=_WARM_START
        )
    )
    _add_plan(verbs.add_parser("plan", help="what a run takes, before it", description=_PLAN))
    _add_export(verbs.add_parser("export", help="a run -> an adapter file and its model card"))
    verbs.add_parser(
        "settings", help="print a TOML file with every setting of `train`, to change and to give"
    )
    return parser.parse_args(arguments)


def _add_prepare(parser: argparse.ArgumentParser) -> None:
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


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder that prepare has written")
    parser.add_argument("--model", required=True, help="SDXL checkpoint: a path or a name")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="a folder")
    _add_settings(parser)
    launch.add_options(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--settings", type=Path, metavar="TOML", help="see the verb `settings`; default: its values"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        help="one setting, such as run.steps=20000; goes before the file's",
    )


def _add_warm_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="native Infinite-ID, IP-Adapter FaceID, FaceID PlusV2, Plus Face or InstantID",
    )
    _add_train(parser)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--photos", type=int, default=10_000, metavar="N", help="how many; default: 10000"
    )
    parser.add_argument("--size", type=int, default=1024, help="pixels; default: 1024")
    _add_settings(parser)
    launch.add_options(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder that train has written")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .safetensors")
    parser.add_argument(
        "--newest",
        action="store_true",
        help="the newest checkpoint; default: that of the lowest validation loss",
    )


def _prepare(options: argparse.Namespace) -> int:
    from ..photos.sources import list_sources
    from .prepare.run import Settings, prepare

    sources = list_sources(options.photos, options.captions)
    launch.use_host(launch.read_options(options))
    from ..faces.face import load_analysis
    from ..host.models import autoencoder_digest, find_face_pack, find_file
    from .prepare.host_encoders import HostEncoders

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
    kept, rejected = prepare(
        sources,
        options.out,
        settings,
        lambda: load_analysis(pack, options.provider, options.detection_size),
        lambda: HostEncoders.load(model, clip_vision),
    )
    print(f"{options.out}: {kept} photos, {rejected} not used; see {options.out / 'report.html'}")
    return 0


def _read_limits(options: argparse.Namespace) -> Limits:
    from ..photos.look import Limits

    return Limits(
        face=options.min_face,
        sharpness=options.min_sharpness,
        confidence=options.min_confidence,
        megabytes=options.max_megabytes,
        megapixels=options.max_megapixels,
    )


def _read_choice(options: argparse.Namespace) -> Choice:
    from .prepare.people import Choice

    return Choice(options.min_likeness, options.pair_with_flip)


def _read_sizes(options: argparse.Namespace) -> Sizes:
    from .prepare.buckets import list_buckets
    from .prepare.encode import Sizes

    wrong = [
        size for size in options.sizes if options.step % 8 or not list_buckets(size, options.step)
    ]
    if options.step < 8 or wrong:
        raise UserError("--step must be a multiple of 8, and --sizes not less than --step.")
    return Sizes(tuple(sorted(set(options.sizes))), options.step)


def _describe(path: Path) -> dict[str, str]:
    from ..files import file_digest

    return {"name": path.name, "digest": file_digest(path)}


def _pack_digest(pack: Path, detection_size: int) -> str:
    """Of the nets and of how they are run."""
    from ..files import digest_of, file_digest

    return digest_of([file_digest(path) for path in sorted(pack.glob("*.onnx"))], detection_size)


def _train(options: argparse.Namespace) -> int:
    settings = _read_settings(options)
    launch.use_host(launch.read_options(options))
    from .host_train import train

    return 0 if train(options.data, options.model, options.out, settings) else 3


def _warm_start(options: argparse.Namespace) -> int:
    settings = _read_settings(options)
    launch.use_host(launch.read_options(options))
    from .host_train import warm_start

    done = warm_start(options.file, options.data, options.model, options.out, settings)
    print(f"{options.out} begins with {options.file.name}")
    for label, parts in (
        ("taken", done.taken),
        ("fresh", done.fresh),
        ("not used", done.unused),
    ):
        print(f"  {label}: {', '.join(parts) or 'nothing'}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    settings = _read_settings(options)
    if options.size < 64 or options.size % 64:
        raise UserError(f"--size is {options.size}; it must be a multiple of 64.")
    launch.use_host(launch.read_options(options))
    from .host_plan import plan

    print(plan(settings, options.size, options.photos), end="")
    return 0


def _read_settings(options: argparse.Namespace) -> Settings:
    from .settings import read

    return read(options.settings, dict(_split(text) for text in options.set))


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or "." not in name:
        raise UserError(f"--set {text}: expected TABLE.KEY=VALUE, such as run.steps=20000.")
    return name, value


def _export(options: argparse.Namespace) -> int:
    from .export import export

    step = export(options.run, options.out, options.newest)
    print(f"{options.out}: the averaged weights of step {step}")
    return 0


def _print_settings(_: argparse.Namespace) -> int:
    from .settings import example

    print(example(), end="")
    return 0


_VERBS = {
    "prepare": _prepare,
    "train": _train,
    "warm-start": _warm_start,
    "plan": _plan,
    "export": _export,
    "settings": _print_settings,
}
