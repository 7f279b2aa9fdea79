"""Writes `workflows/`: the graphs, the photos that they name, and their thumbnails.

`docs/api` gets the first workflow in the form that a program queues.
"""

from __future__ import annotations

from collections.abc import Collection

from ..dev.cache import ROOT
from . import draw, draw_blueprint
from .blueprint import NAME
from .graphs import save
from .miniature import draw_inputs, gallery_models, running_gallery
from .thumbnails import make_thumbnail
from .workflow import read, to_prompt, workflow_file

# A person has to be saved before that person can be loaded.
FIRST = "save_identity"
FOR_PROGRAMS = "photo"


def write_all(thumbnails: Collection[str] | None) -> None:
    """Draw every workflow with the nodes of the running code, and run some for their thumbnails.

    Args:
        thumbnails: names of workflows; all if empty, none of them if None.
    """
    draw_inputs()
    small = gallery_models()
    with running_gallery(small) as server:
        workflows = draw(server.object_info())
        save(draw_blueprint(server.object_info()), ROOT / "subgraphs" / f"{NAME}.json")
        for name in sorted(workflows, key=lambda name: name != FIRST):
            path = ROOT / "workflows" / f"{name}.json"
            save(workflows[name], path)
            print(path.relative_to(ROOT), flush=True)
            if thumbnails is not None and (not thumbnails or name in thumbnails):
                seconds = make_thumbnail(server, path, small.values)
                print(f"  {path.with_suffix('.jpg').name}, {seconds:.0f} s", flush=True)
    prompt = to_prompt(read(workflow_file(FOR_PROGRAMS), {}))
    save(prompt, ROOT / "docs" / "api" / f"{FOR_PROGRAMS}.json")
