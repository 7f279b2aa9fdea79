"""Workflows that train: an identity, and an adapter."""

from __future__ import annotations

from .graphs import Graph, Group, Info, Output
from .scene import BROWN, PREVIEW, YELLOW, begin, begin_apart

DATA = "people"
"""The folder in ComfyUI's `datasets` that the workflow names."""


def refine_identity(info: Info) -> Graph:
    scene = begin(
        info,
        "An identity that learns from the person's photos",
        "*Refine Identity* trains the tokens of one identity for a few hundred steps, on photos "
        "of the person. The result is an ordinary identity: *Save Identity* keeps it.\n\n"
        "**Try**: more photos, of other places and clothes: what is the same in all is learnt as "
        "well. Interrupted, it goes on when it is queued again.",
    )
    group = scene.group("Person", YELLOW)
    photos = [
        group.add("LoadImage", 1, f"Photo {n}", rows=PREVIEW, image=f"face_{n}.jpg") for n in (1, 2)
    ]
    batch = group.add(
        "ImageBatch", 2, node_width=200, image1=photos[0]["IMAGE"], image2=photos[1]["IMAGE"]
    )
    identity = scene.encode(group, 3, batch["IMAGE"])
    group = scene.group("Training", BROWN)
    refined = group.add(
        "InfiniteIDRefineIdentity",
        4,
        rows=PREVIEW,
        model=scene.model,
        vae=scene.checkpoint["VAE"],
        identity=identity,
        images=batch["IMAGE"],
    )
    _plot(group, 4, refined["loss_map"])
    prompts = scene.prompts("a photo of a woman, smiling, wearing a blue shirt, in the city", 5)
    return scene.draw("refine-identity", 5, refined["identity"], prompts)


def train_adapter(info: Info) -> Graph:
    scene = begin_apart(
        info,
        "An adapter of your own",
        "*Train Infinite-ID Adapter* trains on photos that `python -m infinite_id.training "
        "prepare` has made ready, in ComfyUI's folder `datasets`. It begins with the adapter of "
        "*Load Infinite-ID Model*; without that link it begins anew.\n\n"
        "**Try**: a few steps first, to see that all is in its place; then raise *steps*: it goes "
        "on. Interrupted, it keeps what was learnt.",
    )
    group = scene.group("Training", BROWN)
    trained = group.add(
        "InfiniteIDTrainAdapter",
        1,
        rows=PREVIEW,
        model=scene.model,
        start_from=scene.adapter,
        data=DATA,
    )
    _plot(group, 1, trained["loss_map"])
    scene.encoder, scene.left = {**scene.encoder, "encoder": trained["adapter"]}, 2
    identity = scene.person("face.jpg")
    prompts = scene.prompts("a photo of a woman, smiling, wearing a blue sweater, in the forest")
    return scene.draw("train-adapter", 4, identity, prompts)


def _plot(group: Group, column: int, losses: Output) -> None:
    group.add("LossGraphNode", column, rows=PREVIEW, loss=losses, filename_prefix="loss_graph")
