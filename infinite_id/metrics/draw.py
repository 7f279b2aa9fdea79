"""Draws a plan through several ComfyUI servers at once.

A picture is drawn again only if its prompt, photo or workflow has changed since; `drawn.jsonl` says
what each was made of. So a plan may grow and change in its place.

A cell is done when its picture is on the disk. If a server goes away, the others draw its cell. The
server gets cells again when it is back.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import digest_of, file_digest, write_text, write_whole
from ..progress import make_bar
from .drawn import Drawn, add_drawn, read_drawn, write_drawn
from .plan import FILE, Cell, Plan, read_plan
from .remote import DrawError, Server
from .workflow import Prompt, fill, list_classes, read_workflow

PATIENCE = 120.0
"""Seconds without any server before the command gives up."""
_RETRY_SECONDS = 2.0


@dataclass
class _Work:
    """What all servers share; one event loop, so that no lock is needed.

    Attributes:
        recipes: what each cell is made of.
        waiting: cells that nobody draws at the moment.
        running: how many cells are drawn at the moment.
        alive: servers that answered when last asked and can draw what is left.
        failed: cells that a server could not draw, and why.
    """

    plan: Plan
    out: Path
    workflows: dict[str, Prompt]
    recipes: dict[Cell, str]
    waiting: deque[Cell]
    bar: Any
    running: int = 0
    alive: set[str] = field(default_factory=set)
    failed: dict[Cell, str] = field(default_factory=dict)

    def take(self, methods: set[str]) -> Cell | None:
        """The next cell of one of these methods."""
        for cell in self.waiting:
            if cell.method in methods:
                self.waiting.remove(cell)
                return cell
        return None

    @property
    def is_done(self) -> bool:
        return not self.waiting and not self.running


@dataclass(frozen=True)
class Outcome:
    """What became of the cells.

    Attributes:
        drawn: how many pictures were drawn.
        outdated: how many of these replaced one of another prompt, photo or workflow.
        failed: cells that a server could not draw, and why; skipped: those whose method no server
            has the nodes for, and what is missing.
    """

    drawn: int
    outdated: int
    failed: dict[Cell, str]
    skipped: dict[str, set[str]]


def draw(plan_file: Path, out: Path, urls: Sequence[str]) -> Outcome:
    """Draw what is not there yet.

    Args:
        out: the folder of pictures; the plan and the photos go there too, so that `score` finds
            all it needs.

    Raises:
        UserError: if the plan or a workflow cannot be used, or no server answers for long. What
            was drawn is kept.
    """
    _check_urls(urls)
    plan = read_plan(plan_file)
    workflows = {name: read_workflow(m.workflow) for name, m in plan.methods.items()}
    _try_inputs(plan, workflows)
    _check_photos(plan)
    cells = list(plan.cells())
    recipes = _write_recipes(plan, workflows)
    _check_seeds(recipes)
    outdated = _note_outdated(out, recipes)
    _keep_plan(plan_file, plan, out)
    missing = [cell for cell in cells if cell in outdated or not (out / cell.path).exists()]
    with make_bar(len(cells), "drawing", "picture", len(cells) - len(missing)) as bar:
        work = _Work(plan, out, workflows, recipes, deque(missing), bar)
        missing_classes = asyncio.run(_draw_all(work, urls))
    skipped = {cell.method for cell in work.waiting}
    return Outcome(
        drawn=len(missing) - len(work.waiting) - len(work.failed),
        outdated=len(outdated - work.failed.keys() - set(work.waiting)),
        failed=work.failed,
        skipped={method: missing_classes[method] for method in sorted(skipped)},
    )


def _check_urls(urls: Sequence[str]) -> None:
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"--server {url}: expected an address as http://127.0.0.1:8188.")


def _try_inputs(plan: Plan, workflows: dict[str, Prompt]) -> None:
    """Fill each workflow once, before any server is asked."""
    for name, method in plan.methods.items():
        try:
            fill(workflows[name], method.inputs, {})
        except UserError as error:
            raise UserError(f"Method '{name}': {error}") from error


def _check_photos(plan: Plan) -> None:
    for name, person in plan.people.items():
        for photo in person.photos:
            if not photo.is_file():
                raise UserError(f"There is no photo {photo} of '{name}'. Correct the plan.")


def _write_recipes(plan: Plan, workflows: dict[str, Prompt]) -> dict[Cell, str]:
    """Return each cell's recipe: a digest of all that it is made of."""
    photos = {name: file_digest(person.photos[0]) for name, person in plan.people.items()}
    return {
        cell: digest_of(_fill(plan, workflows, cell, photos[cell.person])) for cell in plan.cells()
    }


def _fill(plan: Plan, workflows: dict[str, Prompt], cell: Cell, photo: str) -> Prompt:
    values: dict[str, str | int] = {
        "photo": photo,
        "prompt": plan.text(cell),
        "noun": plan.people[cell.person].noun,
        "person": cell.person,
        "seed": cell.seed,
    }
    return fill(workflows[cell.method], plan.methods[cell.method].inputs, values)


def _check_seeds(recipes: dict[Cell, str]) -> None:
    """Refuse a method whose pictures of several seeds would be one and the same."""
    first: dict[str, Cell] = {}
    for cell, recipe in recipes.items():
        other = first.setdefault(recipe, cell)
        if other.method == cell.method and other.seed != cell.seed:
            raise UserError(
                f"Method '{cell.method}' would draw the same for all seeds. Give an input of its "
                'workflow the seed, as "KSampler.seed": "{seed}".'
            )


def _note_outdated(out: Path, recipes: dict[Cell, str]) -> set[Cell]:
    """Return the cells whose pictures have another recipe, and note it in `drawn.jsonl`.

    So `score` does not count these pictures until they are drawn anew. A picture without a recipe
    is the user's.
    """
    drawn = read_drawn(out)
    outdated = set()
    for cell, recipe in recipes.items():
        name = cell.path.as_posix()
        if name in drawn and (out / cell.path).exists():
            before = drawn[name].recipe
            drawn[name] = Drawn(before, outdated=before != recipe)
            if before != recipe:
                outdated.add(cell)
    if drawn:
        write_drawn(out, drawn)
    return outdated


def _keep_plan(plan_file: Path, plan: Plan, out: Path) -> None:
    """Copy the photos, and write a plan that names the copies, unless this plan is the copy."""
    if plan_file.resolve() == (out / FILE).resolve():
        return
    data = json.loads(plan_file.read_text(encoding="utf-8-sig"))
    for person, known in plan.people.items():
        names = []
        photos = [photo.read_bytes() for photo in known.photos]  # they may be older copies
        for n, (photo, content) in enumerate(zip(known.photos, photos, strict=True)):
            name = Path("photos", person, f"{n}{photo.suffix}")
            _write_picture(out / name, content)
            names.append(name.as_posix())
        data["people"][person]["photos"] = names
    write_text(out / FILE, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


async def _draw_all(work: _Work, urls: Sequence[str]) -> dict[str, set[str]]:
    """Let the servers draw all cells that they can. Return which nodes each method lacks."""
    import aiohttp

    needed = {name: list_classes(workflow) for name, workflow in work.workflows.items()}
    lacking = dict(needed)
    async with aiohttp.ClientSession() as session:
        servers = [Server(url, session) for url in dict.fromkeys(url.rstrip("/") for url in urls)]
        tasks = [asyncio.create_task(_serve(work, server, needed, lacking)) for server in servers]
        watch = asyncio.create_task(_watch(work))
        serving = asyncio.gather(*tasks)
        try:
            both: list[asyncio.Future[Any]] = [watch, serving]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()
            await serving
        finally:
            for task in (watch, *tasks):
                task.cancel()
            await asyncio.gather(watch, *tasks, return_exceptions=True)
    return lacking


async def _watch(work: _Work) -> None:
    """Raise UserError if no server has answered for long."""
    silent = 0.0
    while not work.is_done:
        await asyncio.sleep(1.0)
        silent = 0.0 if work.alive else silent + 1.0
        if silent >= PATIENCE:
            raise UserError(
                "No server that can draw what is left answers. What was drawn is kept: start one "
                "and give the same command again."
            )


async def _serve(
    work: _Work, server: Server, needed: dict[str, set[str]], lacking: dict[str, set[str]]
) -> None:
    """Draw on one server; if it goes, ask now and then whether it is back."""
    import aiohttp

    while not work.is_done:
        try:
            classes = await server.classes()
            work.alive.add(server.url)
            for method, wanted in needed.items():
                lacking[method] = min(lacking[method], wanted - classes, key=len)
            methods = {method for method, wanted in needed.items() if wanted <= classes}
            while not work.is_done:
                cell = work.take(methods)
                if cell is not None:
                    await _draw_cell(work, server, cell)
                elif work.running:  # a server that goes away gives its cell back
                    await asyncio.sleep(_RETRY_SECONDS / 4)
                else:
                    work.alive.discard(server.url)
                    return
        except (aiohttp.ClientError, asyncio.TimeoutError):
            work.alive.discard(server.url)
            await asyncio.sleep(_RETRY_SECONDS)


async def _draw_cell(work: _Work, server: Server, cell: Cell) -> None:
    """Draw one picture. If the server goes, the cell waits again, before the others."""
    work.running += 1
    try:
        photo = await server.upload(work.plan.people[cell.person].photos[0])
        picture = await server.draw(_fill(work.plan, work.workflows, cell, photo))
        _keep_picture(work, cell, picture)
        work.bar.update()
    except DrawError as error:
        work.failed[cell] = str(error)
    except BaseException:
        work.waiting.appendleft(cell)
        raise
    finally:
        work.running -= 1


def _keep_picture(work: _Work, cell: Cell, picture: bytes) -> None:
    """Remove the old picture, then write the new recipe, then the new picture."""
    path = work.out / cell.path
    path.unlink(missing_ok=True)
    add_drawn(work.out, cell.path.as_posix(), work.recipes[cell])
    _write_picture(path, picture)


def _write_picture(path: Path, picture: bytes) -> None:
    def write(partial: Path) -> None:
        partial.write_bytes(picture)

    write_whole(path, write)
