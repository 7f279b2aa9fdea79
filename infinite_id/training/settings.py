"""Every setting of a training run: typed, explained, with its default; read from TOML.

The classes below are the reference. `example()` writes them as a commented file. `read` reads such
a file, in which lines may be missing: their settings keep the defaults.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import UserError


def _setting(default: Any, text: str, least: float | None = None, most: float | None = None) -> Any:
    """A field with an explanation, and the range of its values."""
    return field(default=default, metadata={"text": text, "least": least, "most": most})


@dataclass(frozen=True)
class Data:
    """[data]: which of the prepared photos, and how they are drawn."""

    size: int = _setting(0, "pixels; one of those that were prepared; 0: the largest", 0)
    held_out: float = _setting(0.05, "share of the people who are kept for validation", 0, 0.5)
    mirrored: float = _setting(0.5, "share of the targets that are mirror images", 0, 1)
    dropped: float = _setting(0.1, "share of the samples that have no identity", 0, 1)
    untold: float = _setting(0.1, "share that have no caption; with objective.text alone", 0, 1)


@dataclass(frozen=True)
class Adapter:
    """[adapter]: the widths of the mappers; the defaults are the published ones."""

    face_tokens: int = _setting(4, "tokens of the face vector", 1)
    face_hidden: int = _setting(1024, "hidden width of the face mapper", 1)
    clip_hidden: int = _setting(1280, "hidden width of the CLIP mapper", 1)


@dataclass(frozen=True)
class Optimiser:
    """[optimiser]: AdamW and its rate."""

    kind: Literal["adamw", "adamw8bit"] = _setting(
        "adamw", "adamw8bit keeps its moments in 8 bits, by bitsandbytes, which must be installed"
    )
    rate: float = _setting(1e-4, "learning rate; 1e-5 for a second stage at 1024 px", 0)
    weight_decay: float = _setting(0.01, "AdamW's", 0)
    beta1: float = _setting(0.9, "AdamW's", 0, 1)
    beta2: float = _setting(0.999, "AdamW's", 0, 1)
    warm_up: int = _setting(1000, "steps over which the rate rises from 0", 0)
    schedule: Literal["constant", "cosine", "linear", "wsd"] = _setting(
        "constant",
        "how the rate goes on after the warm-up, to `final` at the last step; wsd (warm-up, "
        "stable, decay) falls in the last quarter alone",
    )
    final: float = _setting(0.0, "share of the rate that is left at the last step", 0, 1)
    clip: float = _setting(1.0, "largest norm of the gradient; 0: any", 0)
    average: float = _setting(0.9999, "decay of the moving average of the weights", 0, 1)


@dataclass(frozen=True)
class Objective:
    """[objective]: the denoising loss."""

    text: bool = _setting(False, "keep the text attention, with captions: the paper's ablation")
    min_snr: float = _setting(0.0, "gamma of min-SNR weighting, 5 is usual; 0: off, the paper's", 0)


@dataclass(frozen=True)
class Run:
    """[run]: how long, how much at once, and what is kept."""

    steps: int = _setting(100_000, "updates of the weights", 1)
    batch: int = _setting(64, "samples of an update, of all processes together", 1)
    at_once: int = _setting(4, "samples of a forward in one process; the rest accumulates", 1)
    seed: int = _setting(0, "of everything that is drawn", 0)
    precision: Literal["bf16", "fp32"] = _setting("bf16", "of the frozen UNet")
    checkpointing: bool = _setting(True, "compute activations twice: less memory, slower")
    sharded: bool = _setting(False, "share weights and optimiser among processes (FSDP2)")
    log_every: int = _setting(10, "steps between lines of stats.jsonl", 1)
    save_every: int = _setting(1000, "steps between checkpoints", 1)
    keep: int = _setting(3, "newest checkpoints that are kept; the best one is kept besides", 1)
    validate_every: int = _setting(1000, "steps between validations; 0: never", 0)
    validation: int = _setting(64, "samples of a validation, always the same", 1)
    tensorboard: bool = _setting(True, "whether to write TensorBoard's files, if it is installed")


def short_run(
    steps: int, batch: int, seed: int, checkpointing: bool, validate_every: int = 0
) -> Run:
    """Return [run] of some hundred steps in one batch each, which keep their last state alone."""
    return Run(
        steps=steps,
        batch=batch,
        at_once=batch,
        seed=seed,
        checkpointing=checkpointing,
        log_every=1,
        save_every=50,
        keep=1,
        validate_every=validate_every,
        tensorboard=False,
    )


@dataclass(frozen=True)
class Pictures:
    """[pictures]: sample sheets at each validation, with the likeness of those who are drawn."""

    people: int = _setting(4, "people on a sheet, held-out ones if there are; 0: no sheets", 0, 64)
    prompt: str = _setting("a photo of a person, outdoors", "what they are drawn as")
    steps: int = _setting(20, "of sampling", 1)
    guidance: float = _setting(5.0, "classifier-free guidance", 1)


@dataclass(frozen=True)
class Settings:
    """All settings, by the TOML file's tables."""

    data: Data = Data()
    adapter: Adapter = Adapter()
    objective: Objective = Objective()
    optimiser: Optimiser = Optimiser()
    run: Run = Run()
    pictures: Pictures = Pictures()

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Plain values by table and name."""
        return {
            table.name: {f.name: getattr(part, f.name) for f in fields(part)}
            for table in fields(self)
            for part in [getattr(self, table.name)]
        }


def read(path: Path | None, changes: Mapping[str, str] | None = None) -> Settings:
    """Read a TOML file, and settings from the command line, which override the file's.

    Args:
        path: None for the defaults.
        changes: `{"optimiser.rate": "1e-5"}`, values in TOML.

    Raises:
        UserError: naming the table and key that are unknown, of the wrong type or out of range.
    """
    settings = Settings() if path is None else parse(_load(path), str(path))
    for name, text in (changes or {}).items():
        table, _, key = name.partition(".")
        settings = parse({table: {key: _parse_value(text)}}, "--set", settings)
    check(settings)
    return settings


def _load(path: Path) -> dict[str, Any]:
    tomllib = _tomllib()
    try:
        with path.open("rb") as file:
            return dict(tomllib.load(file))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as TOML: {error}.") from error


def _parse_value(text: str) -> Any:
    tomllib = _tomllib()
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a word without its quotation marks


def _tomllib() -> Any:
    """Python's own, or its ancestor on Python 3.10."""
    return import_module("tomllib" if find_spec("tomllib") else "tomli")


def parse(tables: Mapping[str, Any], source: str, settings: Settings | None = None) -> Settings:
    """Replace settings by values as TOML and JSON have them.

    Args:
        source: where the values are from, for the message.

    Raises:
        UserError: as `read`.
    """
    settings = settings or Settings()
    known = {table.name for table in fields(settings)}
    for table, values in tables.items():
        if table not in known or not isinstance(values, Mapping):
            raise UserError(
                f"{source}: there is no table [{table}]; there are {', '.join(sorted(known))}."
            )
        part = getattr(settings, table)
        settings = replace(settings, **{table: _replace(part, values, f"{source}: {table}")})
    return settings


def _replace(part: Any, values: Mapping[str, Any], source: str) -> Any:
    types = get_type_hints(type(part))
    known = {f.name: f for f in fields(part)}
    done = {}
    for key, value in values.items():
        if key not in known:
            raise UserError(
                f"{source}.{key}: there is no such setting; there are {', '.join(known)}."
            )
        done[key] = _check_value(f"{source}.{key}", value, types[key], known[key].metadata)
    return replace(part, **done)


def _check_value(name: str, value: Any, kind: Any, range_: Mapping[str, Any]) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UserError(f"{name} is {value!r}; it must be one of {get_args(kind)}.")
        return value
    number = float(value) if kind is float and type(value) is int else value
    if type(number) is not kind:
        raise UserError(f"{name} is {value!r}; it must be a {_TYPES[kind]}.")
    if kind is str:
        return value
    least, most = range_["least"], range_["most"]
    too_small, too_large = (
        least is not None and number < least,
        most is not None and number > most,
    )
    if too_small or too_large or math.isnan(number):
        limits = f"at least {least}" + ("" if most is None else f" and at most {most}")
        raise UserError(f"{name} is {value!r}; it must be {limits}.")
    return number


_TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def check(settings: Settings) -> None:
    """Raises UserError for settings that do not go together."""
    run = settings.run
    if run.sharded and settings.optimiser.kind == "adamw8bit":
        raise UserError(
            "run.sharded and optimiser.kind = adamw8bit do not go together: sharding spreads the "
            "moments among the processes already. Choose one of them."
        )
    if run.batch % run.at_once:
        raise UserError(
            f"run.batch is {run.batch}, and must be a multiple of run.at_once, {run.at_once}."
        )


def example() -> str:
    """A TOML file with every setting, its default and what it means."""
    lines = ["# Settings of `python -m infinite_id.training train`; delete what you do not change."]
    settings = Settings()
    for table in fields(settings):
        part = getattr(settings, table.name)
        lines += ["", f"# {(type(part).__doc__ or '').partition(': ')[2]}", f"[{table.name}]"]
        for f in fields(part):
            value = getattr(part, f.name)
            choices = get_type_hints(type(part))[f.name]
            also = f"; one of {', '.join(get_args(choices))}" if get_args(choices) else ""
            lines.append(f"{f.name} = {json.dumps(value)}  # {f.metadata['text']}{also}")
    return "\n".join(lines) + "\n"
