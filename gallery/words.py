"""Workflows with a person as two words: learning them, and naming the person in a prompt."""

from __future__ import annotations

from .downloads import BASE, DOWNLOADS, FACE_PACK
from .graphs import Graph, Info
from .scene import (
    BLUE,
    BROWN,
    GREY,
    NEGATIVE,
    NOTE_HEIGHT,
    OLIVE,
    PREVIEW,
    RED,
    SMALL_PREVIEW,
    YELLOW,
    Scene,
    begin,
    name_checkpoint,
)

NAME = "people/person"
FACE_NETS = f"- an InsightFace model pack, such as {FACE_PACK}, in `models/insightface/models`"


def learn_embedding(info: Info) -> Graph:
    graph = Graph(info, DOWNLOADS)
    about = graph.group("About this workflow", GREY)
    about.note(
        "What it does",
        "## One photo becomes two words\n\n*Learn Identity Embedding* writes a file into "
        "`models/embeddings`. Any prompt can then name the person, with no node of this pack: "
        f"`embedding:{NAME}`. The workflow *use_embedding* does.\n\n"
        "**Try**: another photo of the person on *held_out*, so that it stops when the likeness "
        "rises no more. Interrupted, it keeps what was learnt and goes on when it is queued again.",
        0,
        3,
        NOTE_HEIGHT,
    )
    checkpoint = name_checkpoint(BASE, "any checkpoint of SDXL, SD 1.5 or SD 2.1")
    about.note("Models it needs", f"## Models\n\n{checkpoint}\n{FACE_NETS}", 3, 3, NOTE_HEIGHT)
    scene = Scene(graph, graph.group("Models", BLUE), 1)
    scene.checkpoint = scene.models.add("CheckpointLoaderSimple", 0, ckpt_name=BASE)
    scene.clip = scene.checkpoint["CLIP"]
    analysis = scene.models.add("InfiniteIDLoadFaceAnalysis", 0, pack=FACE_PACK)
    group = scene.group("Person", YELLOW)
    photo = group.add("LoadImage", 1, rows=PREVIEW, image="face.jpg")
    group = scene.group("Learning", BROWN)
    learned = group.add(
        "InfiniteIDLearnEmbedding",
        2,
        rows=PREVIEW,
        model=scene.checkpoint["MODEL"],
        clip=scene.clip,
        vae=scene.checkpoint["VAE"],
        images=photo["IMAGE"],
        face_analysis=analysis["face_analysis"],
        name=NAME,
    )
    group.add("LossGraphNode", 3, rows=PREVIEW, loss=learned["loss_map"], filename_prefix="loss")
    group = scene.group("Negative prompt", OLIVE)
    negative = group.add(
        "CLIPTextEncode", 4, "Negative prompt", colours=RED, clip=scene.clip, text=NEGATIVE
    )
    group = scene.group("Picture")
    prompts = learned["conditioning"], negative["CONDITIONING"]
    latent = scene.empty(group, 4)
    picture = scene.sample(group, 5, scene.checkpoint["MODEL"], prompts, latent)
    scene.save(group, 6, picture, "learn-embedding")
    return graph


def use_embedding(info: Info) -> Graph:
    scene = begin(
        info,
        "A prompt that names the person, without and with Infinite-ID",
        "The first picture has no node of this pack: the prompt says who it is, by an embedding "
        "that the workflow *learn_embedding* has written. In the second the identity stream shows "
        "the same person from a photo.\n\n"
        "**Try**: the embedding with ControlNets, in inpainting, or with a video model whose text "
        "encoder is CLIP-L.",
    )
    identity = scene.person("face.jpg")
    prompts = scene.prompts(f"a photo of embedding:{NAME} smiling, wearing a blue sweater", 1)
    group = scene.group("By the prompt alone, and with Infinite-ID")
    model = scene.apply(group, 3, identity)
    latent = scene.empty(group, 3)
    pictures = [
        scene.sample(group, 4, each, prompts, latent, rows=SMALL_PREVIEW, decoder=5, seed=7)
        for each in (scene.checkpoint["MODEL"], model)
    ]
    sheet = scene.sheet(
        group,
        5,
        pictures[0],
        images_2=pictures[1],
        row_labels="the prompt alone\nwith Infinite-ID",
        columns=1,
    )
    scene.save(group, 6, sheet, "use-embedding")
    return scene.graph
