"""Workflows with one person: from the first picture to scores."""

from __future__ import annotations

from typing import Any

from .downloads import LIGHTNING
from .graphs import Graph, Info
from .scene import BROWN, PREVIEW, PURPLE, SMALL_PREVIEW, YELLOW, begin, begin_apart

PREVIEW_OF_FILE = 260


def photo(info: Info) -> Graph:
    scene = begin(
        info,
        "One photo, new pictures of that person",
        "Choose a sharp, upright photo of one face, write the prompt, and queue.\n\n"
        "**Try**: for a painted or drawn picture set *style* in *Apply Infinite-ID* to *style "
        "(AdaIN-mean)*. Less *weight* gives the prompt more room.",
    )
    identity = scene.person("face.jpg")
    prompts = scene.prompts("a photo of a woman, smiling, wearing a blue sweater, in the forest")
    return scene.draw("photo", 3, identity, prompts)


def several_photos(info: Info) -> Graph:
    scene = begin(
        info,
        "Several photos of one person",
        "The photos' tokens are stacked: the picture takes from all of them.\n\n"
        "**Try**: *combine* set to *average*, for the mean of the faces; *weights* such as "
        "`1, 0.5`, to trust the first photo more. Further photos go to *Encode Identity*'s "
        "*more_images*, whatever their size.",
    )
    group = scene.group("Person", YELLOW)
    photos = [
        group.add("LoadImage", 1, f"Photo {n}", rows=PREVIEW, image=f"face_{n}.jpg") for n in (1, 2)
    ]
    identity = scene.encode(group, 2, *(photo["IMAGE"] for photo in photos))
    prompts = scene.prompts("a photo of a woman, smiling, wearing a blue shirt, in the city")
    return scene.draw("several-photos", 3, identity, prompts)


def style(info: Info) -> Graph:
    scene = begin(
        info,
        "The prompt's style, with and without AdaIN-mean",
        "Two pictures from one seed. In the second, *style (AdaIN-mean)* gives the person's "
        "features the mean of the prompt's own picture, so that a sketch is a sketch.\n\n"
        "**Try**: other styles in the prompt; *weight* 0.7 where the style is still too weak.",
    )
    identity = scene.person("face.jpg")
    prompts = scene.prompts(
        "a pencil sketch of a woman, smiling, wearing a sweater, in the garden", 1
    )
    styles = ("photo", "style (AdaIN-mean)")
    group = scene.group("Style off and on")
    models = [scene.apply(group, 3, identity, style=name) for name in styles]
    latent = scene.empty(group, 3)
    pictures = [
        scene.sample(group, 4, model, prompts, latent, rows=SMALL_PREVIEW, decoder=5, seed=7)
        for model in models
    ]
    sheet = scene.sheet(
        group, 5, pictures[0], images_2=pictures[1], row_labels="\n".join(styles), columns=1
    )
    scene.save(group, 6, sheet, "style")
    return scene.graph


def weight_curve(info: Info) -> Graph:
    scene = begin(
        info,
        "When the identity acts",
        "The same picture twice: with the identity fading in, and fading out. "
        "Early steps set the layout, late ones the details.\n\n"
        "**Try**: *Apply Infinite-ID*'s other advanced inputs: start and end, and weights for the "
        "UNet's stages.",
    )
    identity = scene.person("face.jpg")
    prompts = scene.prompts(
        "a photo of a woman, surprised, wearing a yellow jacket, in the desert", 1
    )
    curves = ("fade in", "fade out")
    group = scene.group("Two weight curves")
    models = [scene.apply(group, 3, identity, weight_curve=curve) for curve in curves]
    latent = scene.empty(group, 3)
    pictures = [
        scene.sample(group, 4, model, prompts, latent, rows=SMALL_PREVIEW, decoder=5)
        for model in models
    ]
    sheet = scene.sheet(
        group,
        5,
        pictures[0],
        images_2=pictures[1],
        row_labels="\n".join(curves),
        columns=1,
    )
    scene.save(group, 6, sheet, "weight-curve")
    return scene.graph


def variations(info: Info) -> Graph:
    scene = begin(
        info,
        "Weights and styles side by side",
        "*Grid of Variations* draws every weight with every style from one queue, and *Contact "
        "Sheet* puts the pictures under their values.\n\n"
        "**Try**: other lists. Drag *column value* or *row value* to the widget that is to vary: "
        "the loader's *preset* to compare adapters, the prompt's *text* for a list of prompts.",
    )
    identity = scene.person("face.jpg")
    prompts = scene.prompts(
        "a comic book drawing of a woman, smiling, wearing a red sweater, in the garden"
    )
    group = scene.group("What varies", BROWN)
    grid = group.add("InfiniteIDGrid", 3, rows=40, columns="0.5\n0.8\n1.1")
    group = scene.group("Six pictures")
    varied = {"weight": grid["column_value"], "style": grid["row_value"]}
    model = scene.apply(group, 4, identity, **varied)
    pictures = scene.sample(group, 5, model, prompts, scene.empty(group, 4))
    sheet = scene.sheet(group, 6, pictures, grid=grid["grid"])
    scene.save(group, 7, sheet, "variations")
    return scene.graph


def few_steps(info: Info) -> Graph:
    scene = begin(
        info,
        "Eight steps with a Lightning model",
        "SDXL Lightning needs eight steps instead of thirty, and no guidance: with *cfg* 1 the "
        "negative prompt does nothing, and a step costs half.\n\n"
        "**Try**: a Turbo checkpoint with its own sampler and steps. For an LCM checkpoint put "
        "*ModelSamplingDiscrete* with *lcm* before *Apply Infinite-ID*, and choose the sampler "
        "*lcm*.",
        checkpoint=LIGHTNING,
        checkpoint_kind="SDXL Lightning for eight steps",
    )
    identity = scene.person("face.jpg")
    prompts = scene.prompts("a photo of a woman, smiling, wearing a white shirt, on the beach")
    group = scene.group("Picture in eight steps")
    model = scene.apply(group, 3, identity)
    latent = scene.empty(group, 3)
    lightning: dict[str, Any] = {
        "steps": 8,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "sgm_uniform",
    }
    picture = scene.sample(group, 4, model, prompts, latent, seed=2, **lightning)
    scene.save(group, 5, picture, "few-steps")
    return scene.graph


def save_identity(info: Info) -> Graph:
    scene = begin_apart(
        info,
        "Keep a person as a file",
        "*Save Identity* writes a small file into `output/identities`. Whoever has it and the "
        "same adapter can draw this person without the photo and without a face model: see the "
        "template *load_identity*.",
        draws=False,
    )
    identity = scene.person("face.jpg")
    group = scene.group("File")
    group.add("InfiniteIDSaveIdentity", 3, rows=PREVIEW_OF_FILE, identity=identity)
    return scene.graph


def load_identity(info: Info) -> Graph:
    scene = begin(
        info,
        "A person out of a file",
        "No photo: *Load Identity* reads what the template *save_identity* "
        "wrote, or a file that somebody gave you, from `models/infinite_id_identities`. The "
        "adapter must be the one that the identity was made with.",
        sees_photos=False,
    )
    group = scene.group("Person", YELLOW)
    loaded = group.add(
        "InfiniteIDLoadIdentity",
        1,
        rows=PREVIEW_OF_FILE,
        span=2,
        adapter=scene.adapter,
        identity_name="identities/person_00001_.safetensors [output]",
    )
    prompts = scene.prompts("a photo of a woman, smiling, wearing a red hoodie, in the forest")
    return scene.draw("load-identity", 3, loaded["identity"], prompts)


def score(info: Info) -> Graph:
    scene = begin(
        info,
        "How much the picture looks like the person",
        "*Face Similarity* compares the faces in the pictures with the photo's, by the face "
        "model's cosine. With buffalo_l or antelopev2, above 0.5 is mostly the same person.\n\n"
        "**Try**: one setting at a time, with a fixed seed, and watch the score.",
    )
    identity = scene.person("face.jpg")
    (loaded,) = [node for node in scene.graph.groups[-1].nodes if node.data["type"] == "LoadImage"]
    prompts = scene.prompts("a photo of a woman, serious, wearing a red sweater, in the library")
    group = scene.group("Picture", PURPLE)
    model = scene.apply(group, 3, identity)
    picture = scene.sample(group, 4, model, prompts, scene.empty(group, 3))
    group = scene.group("Score", BROWN)
    similarity = group.add(
        "InfiniteIDFaceSimilarity",
        5,
        rows=100,
        face_analysis=scene.analysis,
        reference=loaded["IMAGE"],
        images=picture,
    )
    scene.save(group, 6, similarity["annotated_images"], "score")
    return scene.graph


def separate_models(info: Info) -> Graph:
    scene = begin_apart(
        info,
        "Every model in a loader of its own",
        "As the template *photo*, for those who choose each file: adapter, CLIP vision model, face "
        "model and the strength of FaceID's LoRA. *Infinite-ID Unified Loader* does the same in "
        "one node.",
    )
    identity = scene.person("face.jpg")
    prompts = scene.prompts("a photo of a woman, smiling, wearing a blue sweater, in the forest")
    return scene.draw("separate-models", 3, identity, prompts)


def best_of_batch(info: Info) -> Graph:
    scene = begin(
        info,
        "Four pictures, of which the best is kept",
        "*Pick Best Pictures* compares the faces of a batch with the photo's and keeps the most "
        "alike; its text says how alike each one was.\n\n"
        "**Try**: a larger *batch_size* and *count*, and a face model for the choice that the "
        "adapter was not trained with.",
    )
    identity = scene.person("face.jpg")
    (loaded,) = [node for node in scene.graph.groups[-1].nodes if node.data["type"] == "LoadImage"]
    prompts = scene.prompts("a photo of a woman, smiling, wearing a red sweater, in the garden")
    group = scene.group("Four pictures", PURPLE)
    model = scene.apply(group, 3, identity)
    pictures = scene.sample(group, 4, model, prompts, scene.empty(group, 3, batch=4))
    group = scene.group("The best", BROWN)
    best = group.add(
        "InfiniteIDPickBest",
        5,
        rows=PREVIEW,
        face_analysis=scene.analysis,
        reference=loaded["IMAGE"],
        images=pictures,
    )
    scene.save(group, 6, best["best"], "best-of-batch")
    return scene.graph
