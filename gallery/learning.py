"""The common parts of the workflows that learn words: models, a photo, the learning itself."""

from __future__ import annotations

from .downloads import BASE, DOWNLOADS, FACE_PACK
from .graphs import Graph, Info, Node
from .scene import BLUE, BROWN, GREY, NOTE_HEIGHT, PREVIEW, YELLOW, Scene, name_checkpoint

_KINDS = "any checkpoint of SDXL, SD 1.5 or SD 2.1"
_FACE_NETS = f"- an InsightFace model pack, such as {FACE_PACK}, in `models/insightface/models`"


def begin_bare(info: Info, text: str, models: str, kinds: str = _KINDS) -> Scene:
    """Draw notes and a checkpoint's loader, and none of the pack's.

    Args:
        text: what the workflow does, in Markdown.
        models: lines on the models beside the checkpoint.
        kinds: which checkpoints will do.
    """
    graph = Graph(info, DOWNLOADS)
    about = graph.group("About this workflow", GREY)
    about.note("What it does", text, 0, 3, NOTE_HEIGHT)
    needed = f"## Models\n\n{name_checkpoint(BASE, kinds)}\n{models}"
    about.note("Models it needs", needed, 3, 3, NOTE_HEIGHT)
    scene = Scene(graph, graph.group("Models", BLUE), 1)
    scene.checkpoint = scene.models.add("CheckpointLoaderSimple", 0, ckpt_name=BASE)
    scene.clip, scene.model = scene.checkpoint["CLIP"], scene.checkpoint["MODEL"]
    return scene


def learn(info: Info, text: str, node: str, name: str) -> tuple[Scene, Node]:
    """Draw what learns the words of the person in a photo, with its loss.

    Args:
        node: the id of the node that learns.
        name: of its file.
    """
    scene = begin_bare(info, text, _FACE_NETS)
    analysis = scene.models.add("InfiniteIDLoadFaceAnalysis", 0, pack=FACE_PACK)
    photo = scene.group("Person", YELLOW).add("LoadImage", 1, rows=PREVIEW, image="face.jpg")
    group = scene.group("Learning", BROWN)
    learned = group.add(
        node,
        2,
        rows=PREVIEW,
        model=scene.model,
        clip=scene.clip,
        vae=scene.checkpoint["VAE"],
        images=photo["IMAGE"],
        face_analysis=analysis["face_analysis"],
        name=name,
    )
    group.add("LossGraphNode", 3, rows=PREVIEW, loss=learned["loss_map"], filename_prefix="loss")
    return scene, learned
