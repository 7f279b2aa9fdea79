"""A plan: people x prompts x seeds x methods, in one JSON file; each picture of it is a cell.

    {
      "people": {"anna": {"photos": ["photos/anna/1.jpg", "photos/anna/2.jpg"], "noun": "woman"}},
      "prompts": {"beach": "a photo of a {noun} on the beach"},
      "seeds": [0, 1, 2, 3],
      "methods": {"ours": {"workflow": "infinite-id", "inputs": {"LoadImage.image": "{photo}"}}}
    }

The first photo is the one that methods are given; the others say what the person looks like
elsewhere. `prompts` may name a file in `plans/`, such as "paper", and `workflow` one in
`workflows/`. Paths start at the plan's folder. Pictures lie in
`<method>/<person>/<prompt>/<seed>.png`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

FILE = "plan.json"
SHIPPED = Path(__file__).with_name("plans")
WORKFLOWS = Path(__file__).with_name("workflows")
_KEYS = {"people", "prompts", "seeds", "methods"}


@dataclass(frozen=True)
class Person:
    """Whom a plan draws.

    Attributes:
        photos: the one that methods are given, and maybe others.
        noun: what prompts call the person, such as "woman".
    """

    photos: tuple[Path, ...]
    noun: str


@dataclass(frozen=True)
class Method:
    """How pictures are drawn.

    Attributes:
        workflow: a file in ComfyUI's form.
        inputs: "title.input" or "class.input" -> a value; text in it may hold {photo}, {prompt},
            {noun}, {seed} and {person}.
    """

    workflow: Path
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One picture of a plan."""

    method: str
    person: str
    prompt: str
    seed: int

    @property
    def path(self) -> Path:
        """Where the picture lies, from the folder of pictures on."""
        return Path(self.method, self.person, self.prompt, f"{self.seed}.png")


@dataclass(frozen=True)
class Plan:
    """What is to be drawn and scored."""

    people: Mapping[str, Person]
    prompts: Mapping[str, str]
    seeds: tuple[int, ...]
    methods: Mapping[str, Method]

    def cells(self) -> Iterator[Cell]:
        """All pictures; the same person's one after another, so that servers load less."""
        for method in self.methods:
            for person in self.people:
                for prompt in self.prompts:
                    for seed in self.seeds:
                        yield Cell(method, person, prompt, seed)

    def text(self, cell: Cell) -> str:
        """The prompt of a cell, about its person."""
        return self.prompts[cell.prompt].replace("{noun}", self.people[cell.person].noun)


def read_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        UserError: if the file is not there, is no plan, or names what cannot be a folder.
    """
    data = _read_json(path)
    unknown = sorted(data.keys() - _KEYS)
    missing = sorted(_KEYS - data.keys())
    if unknown or missing:
        wrong = f"has an unknown key '{unknown[0]}'" if unknown else f"lacks '{missing[0]}'"
        raise UserError(f"{path} {wrong}. A plan has people, prompts, seeds and methods.")
    try:
        plan = _build(data, path.absolute().parent)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is no plan ({type(error).__name__}: {error}). docs/metrics.md shows one."
        ) from error
    _check(plan, path)
    return plan


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}. Give a plan file; see docs/metrics.md.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Expected JSON, in UTF-8.") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no JSON object. Expected a plan; see docs/metrics.md.")
    return data


def _build(data: Mapping[str, Any], folder: Path) -> Plan:
    people = {
        str(name): Person(tuple(folder / p for p in _list(person["photos"])), str(person["noun"]))
        for name, person in data["people"].items()
    }
    methods = {
        str(name): Method(_find_workflow(folder, str(method["workflow"])), dict(method["inputs"]))
        for name, method in data["methods"].items()
    }
    prompts = data["prompts"]
    if isinstance(prompts, str):
        prompts = shipped_prompts(prompts)
    texts = {str(name): str(text) for name, text in prompts.items()}
    return Plan(people, texts, tuple(map(_read_seed, _list(data["seeds"]))), methods)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):  # a text has items as well: its letters
        raise TypeError(f"{value!r} is no list")
    return value


def _read_seed(seed: Any) -> int:
    if type(seed) is not int or seed < 0:
        raise ValueError(f"the seed {seed!r} is no whole number from 0 on")
    return seed


def _find_workflow(folder: Path, name: str) -> Path:
    shipped = WORKFLOWS / f"{name}.json"
    return shipped if shipped.is_file() else folder / name


def shipped_prompts(name: str) -> dict[str, str]:
    """The prompts of a file in `plans/`.

    Raises:
        UserError: if there is none of this name.
    """
    names = sorted(path.stem for path in SHIPPED.glob("*.json"))
    if name not in names:
        raise UserError(f"There are no prompts '{name}'; there are {', '.join(names)}.")
    found: dict[str, str] = json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _check(plan: Plan, path: Path) -> None:
    """Refuse what has no pictures, and names that lead out of the folder of pictures."""
    for what in ("people", "prompts", "seeds", "methods"):
        if not getattr(plan, what):
            raise UserError(f"{path} has no {what}. Add at least one.")
    for name in (*plan.people, *plan.prompts, *plan.methods):
        if name in ("", ".", "..") or any(sign in name for sign in '/\\:*?"<>|\0'):
            raise UserError(
                f"{path} has the name {name!r}, which cannot be a folder's. Use letters, digits, "
                "spaces, dots and dashes."
            )
    if len(set(plan.seeds)) < len(plan.seeds):
        raise UserError(f"{path} names a seed twice. Name each once.")
    bare = [name for name, person in plan.people.items() if not person.photos]
    if bare:
        raise UserError(f"{path} has no photo of '{bare[0]}'. Each person needs one at least.")
