"""Workflows with a person as two words: learning them, and naming the person in a prompt."""

from __future__ import annotations

from .downloads import CONTROL_NET
from .graphs import Graph, Info
from .learning import begin_bare, learn
from .scene import CYAN, NEGATIVE, OLIVE, PREVIEW, RED, SMALL_PREVIEW, begin

NAME = "people/person"


def learn_embedding(info: Info) -> Graph:
    scene, learned = learn(
        info,
        "## One photo becomes two words\n\n*Learn Identity Embedding* writes a file into "
        "`models/embeddings`. Any prompt can then name the person, with no node of this pack: "
        f"`embedding:{NAME}`. The workflow *use_embedding* does.\n\n"
        "**Try**: another photo of the person on *held_out*, so that it stops when the likeness "
        "rises no more. Interrupted, it keeps what was learnt and goes on when it is queued again.",
        "InfiniteIDLearnEmbedding",
        NAME,
    )
    group = scene.group("Negative prompt", OLIVE)
    negative = group.add(
        "CLIPTextEncode", 4, "Negative prompt", colours=RED, clip=scene.clip, text=NEGATIVE
    )
    group = scene.group("Picture")
    prompts = learned["conditioning"], negative["CONDITIONING"]
    latent = scene.empty(group, 4)
    picture = scene.sample(group, 5, scene.model, prompts, latent)
    scene.save(group, 6, picture, "learn-embedding")
    return scene.graph


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


def use_embedding_controlnet(info: Info) -> Graph:
    scene = begin_bare(
        info,
        "## The pose of one picture, the person by the prompt\n\nNo node of this pack: a "
        "ControlNet holds the edges of a picture, and the prompt says who it is, by an embedding "
        "that the workflow *learn_embedding* has written.\n\n"
        "**Try**: *strength* 0.3 to 0.7 and *end_percent* below 1 in *Apply ControlNet*: with all "
        "edges held to the end, the face of the edges wins.",
        f"- **Load ControlNet Model**: one for SDXL, in `models/controlnet` (`{CONTROL_NET}`)",
        "the SDXL checkpoint that the embedding was learnt with, or one that shares its CLIP",
    )
    net = scene.models.add("ControlNetLoader", 0, control_net_name=CONTROL_NET)
    group = scene.group("Pose", CYAN)
    pose = group.add(
        "LoadImage", 1, "Picture with the pose", rows=SMALL_PREVIEW, image="person_1.jpg"
    )
    edges = group.add("Canny", 2, image=pose["IMAGE"])["IMAGE"]
    group.add("PreviewImage", 3, "Edges", rows=PREVIEW, images=edges)
    positive, negative = scene.prompts(
        f"a photo of embedding:{NAME} smiling, wearing a green jacket, in the forest", 1
    )
    group = scene.group("Picture")
    held = group.add(
        "ControlNetApplyAdvanced",
        4,
        positive=positive,
        negative=negative,
        control_net=net["CONTROL_NET"],
        image=edges,
        strength=0.5,
        end_percent=0.6,
    )
    prompts = held["positive"], held["negative"]
    picture = scene.sample(group, 5, scene.model, prompts, scene.empty(group, 4))
    scene.save(group, 6, picture, "use-embedding-controlnet")
    return scene.graph
