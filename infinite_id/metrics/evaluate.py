"""From features to scores of pictures, and from these to figures of methods."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from .clips import Clip
from .faces import FaceNet
from .features import Nets, Seen, Store, look, read_texts
from .material import Material, Picture
from .people import Baseline, Known, Problems, know, show
from .scores import Scores, Vector, clip_scores, copy_paste, count, diversity, missing_rate
from .scores import similarities as face_similarities
from .statistics import FEWEST_PEOPLE, Interval, bootstrap

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Method -> measure -> person -> mean over the person's pictures."""

CLIP_T, CLIP_I, DIVERSITY = "CLIP-T", "CLIP-I", "diversity"
_OUTDATED = "it was drawn by an earlier plan, and counts when `draw` has drawn it anew"


@dataclass(frozen=True)
class Row:
    """A picture and its scores.

    Attributes:
        scores: by measure; NaN if there is none.
        problem: why the picture, or one of its scores, counts for nothing; empty if all is well.
        readable: whether there are scores at all.
    """

    picture: Picture
    scores: Mapping[str, float]
    problem: str
    readable: bool


@dataclass(frozen=True)
class Evaluation:
    """All that is known of the pictures.

    Attributes:
        rows: in the order of the material.
        baselines: face net -> person -> what is normal.
        problems: each file or picture that could not be used, and why.
        warnings: what a reader must know before the figures.
    """

    methods: Sequence[str]
    measures: Sequence[str]
    rows: Sequence[Row]
    figures: Figures
    baselines: Mapping[str, Mapping[str, Baseline]]
    problems: Sequence[str]
    warnings: Sequence[str]

    def interval(self, method: str, measure: str) -> Interval | None:
        """The mean over people and its interval; None if nobody has this figure."""
        values = list(self.figures[method][measure].values())
        return bootstrap(np.array(values)) if values else None

    def difference(self, method: str, other: str, measure: str) -> Interval | None:
        """The mean of a method's figure minus another's, paired by person, and its interval."""
        own, against = self.figures[method][measure], self.figures[other][measure]
        both = [own[person] - against[person] for person in own if person in against]
        return bootstrap(np.array(both)) if both else None


@dataclass(frozen=True)
class _Sight:
    """What the nets have seen of everything.

    Attributes:
        people: by face net and person.
        texts: each prompt's name in the store.
    """

    nets: Nets
    store: Store
    seen: Seen
    people: Mapping[str, Mapping[str, Known]]
    photos: Mapping[str, Sequence[Path]]
    texts: Mapping[str, str]


def evaluate(material: Material, nets: Nets, store: Store, root: Path) -> Evaluation:
    """Look at all files and score all pictures.

    Args:
        root: the folder that paths in messages start at.
    """
    problems = Problems()
    photos = [path for own in material.photos.values() for path in own]
    asked = [p.path for p in material.pictures if p.path not in material.outdated]
    seen = look([*photos, *asked], nets, store)
    seen = Seen(seen.contents, {**seen.problems, **dict.fromkeys(material.outdated, _OUTDATED)})
    for path, reason in seen.problems.items():
        problems.add(f"{show(path, root)}: {reason}")
    for path in material.surplus:
        problems.add(f"{show(path, root)}: the plan has no such picture; it is not scored")
    people = {
        net.name: know(net, material.photos, seen, store, problems, root) for net in nets.faces
    }
    prompts = {picture.text for picture in material.pictures if picture.text}
    texts = {} if nets.clip is None else read_texts(prompts, nets.clip, store)
    sight = _Sight(nets, store, seen, people, material.photos, texts)
    rows = [_score(picture, sight) for picture in material.pictures]
    for row in rows:
        if row.readable and row.problem:
            problems.add(f"{show(row.picture.path, root)}: {row.problem}")
    figures = {
        method: _summarise([row for row in rows if row.picture.method == method], nets, store, seen)
        for method in material.methods
    }
    baselines = {
        name: {person: known.baseline for person, known in own.items()}
        for name, own in people.items()
    }
    return Evaluation(
        methods=material.methods,
        measures=list(next(iter(figures.values()))),
        rows=rows,
        figures=figures,
        baselines=baselines,
        problems=list(problems.said),
        warnings=_warn(material, figures, rows),
    )


def _score(picture: Picture, sight: _Sight) -> Row:
    content = sight.seen.contents.get(picture.path)
    if content is None:
        return Row(picture, {}, sight.seen.problems[picture.path], readable=False)
    scores: dict[str, float] = {}
    problems: list[str] = []
    for net in sight.nets.faces:
        vector = sight.store.get(net.digest, content)
        person = sight.people[net.name].get(picture.person)
        if vector is None:
            problems.append(f"no face for {net.name}")
        if person is None or person.reference is None:
            problems.append(f"no photo of {picture.person} with a face for {net.name}")
        else:
            scores |= _score_face(net, vector, person)
    if sight.nets.clip is not None:
        if not picture.text:
            problems.append("no prompt")
        scores |= _score_whole(picture, content, sight.nets.clip, sight)
    return Row(picture, scores, "; ".join(problems), readable=True)


def _score_whole(picture: Picture, content: str, clip: Clip, sight: _Sight) -> dict[str, float]:
    """CLIP-T, if there is a prompt, and CLIP-I, if there is a photo."""
    own = sight.store.get(clip.digest, content)
    photo = next(iter(sight.photos.get(picture.person, ())), None)
    sources = {
        CLIP_T: sight.texts.get(picture.text),
        CLIP_I: None if photo is None else sight.seen.contents.get(photo),
    }
    scores = {}
    for name, source in sources.items():
        other = None if source is None else sight.store.get(clip.digest, source)
        if own is not None and other is not None:
            scores[name] = float(clip_scores(own[None], other[None])[0])
    return scores


def _score_face(net: FaceNet, vector: Vector | None, person: Known) -> dict[str, float]:
    assert person.reference is not None
    (found,) = face_similarities([vector], person.reference, net.measure)
    scores = {_similarity(net): float(found)}
    if vector is not None and person.others is not None:
        scores[_copy_paste(net)] = copy_paste(vector, person.reference, person.others)
    if person.baseline.own > 0:
        scores[_percent(net)] = 100 * float(found) / person.baseline.own
    return scores


def _similarity(net: FaceNet) -> str:
    return f"similarity {net.name}"


def _percent(net: FaceNet) -> str:
    return f"% of own {net.name}"


def _copy_paste(net: FaceNet) -> str:
    return f"copy-paste {net.name}"


def _summarise(
    rows: Sequence[Row], nets: Nets, store: Store, seen: Seen
) -> dict[str, dict[str, float]]:
    """Return measure -> person -> figure. People are sorted: intervals depend on their order."""
    figures: dict[str, dict[str, float]] = {}
    by_person: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.picture.person):
        if row.readable:
            by_person.setdefault(row.picture.person, []).append(row)

    def add(title: str, measure: str, mean: Callable[[Scores], float]) -> None:
        figures[title] = {}
        for person, own in by_person.items():
            values = [row.scores[measure] for row in own if measure in row.scores]
            if values:
                figures[title][person] = mean(np.array(values))

    for net in nets.faces:
        name = _similarity(net)
        add(name, name, lambda values: float(count(values, clipped=False).mean()))
        add(f"{name}, clipped", name, lambda values: float(count(values, clipped=True).mean()))
        add(f"no face {net.name}", name, missing_rate)
        add(_percent(net), _percent(net), lambda v: float(count(v, clipped=False).mean()))
        add(_copy_paste(net), _copy_paste(net), lambda values: float(values.mean()))
    if nets.clip is not None:
        for name in (CLIP_T, CLIP_I):
            add(name, name, lambda values: float(values.mean()))
        varied = {p: _vary(own, nets.clip.digest, store, seen) for p, own in by_person.items()}
        figures[DIVERSITY] = {p: value for p, value in varied.items() if not np.isnan(value)}
    return figures


def _vary(rows: Sequence[Row], net: str, store: Store, seen: Seen) -> float:
    """The mean diversity between seeds over a person's prompts; NaN if all have one seed.

    Pictures without a known prompt are left out.
    """
    found = []
    known = sorted((row for row in rows if row.picture.prompt), key=_prompt)
    for _, group in groupby(known, key=_prompt):
        vectors = [store.get(net, seen.contents[row.picture.path]) for row in group]
        if len(vectors) > 1:
            found.append(diversity(np.stack([v for v in vectors if v is not None])))
    return float(np.mean(found)) if found else float("nan")


def _prompt(row: Row) -> str:
    return row.picture.prompt


def _warn(material: Material, figures: Figures, rows: Sequence[Row]) -> list[str]:
    warnings = [sentence for method in figures for sentence in _count_people(method, figures)]
    cells = []
    for method in figures:
        asked = [row for row in rows if row.picture.method == method]
        cells.append({(r.picture.person, r.picture.prompt) for r in asked if r.readable})
        lost = sum(not row.readable for row in asked)
        if lost:
            warnings.append(
                f"{method}: {lost} of {len(asked)} pictures are missing, unreadable or outdated, "
                "and count for nothing."
            )
    if any(own != cells[0] for own in cells):
        warnings.append(
            "The methods have pictures of different people or prompts: part of what their figures "
            "differ by may be due to that."
        )
    if any(len(own) < 2 for own in material.photos.values()):
        warnings.append(
            "Some people have a single photo: they have no baseline and no copy-paste score."
        )
    return warnings


def _count_people(method: str, figures: Figures) -> Iterator[str]:
    """Say which intervals are of too few people. Some measures, such as copy-paste, have fewer."""
    counts = {measure: len(values) for measure, values in figures[method].items()}
    all_people = max(counts.values())
    for people in sorted({n for n in counts.values() if n or not all_people}):
        if people < FEWEST_PEOPLE:
            names = ", ".join(measure for measure, n in counts.items() if n == people)
            of = "" if people == all_people else f" of {names}"
            yield (
                f"{method}: too few people for an interval{of} ({people}); the true one is wider. "
                f"Score {FEWEST_PEOPLE} or more."
            )
