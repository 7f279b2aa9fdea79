"""Workflows with two people: in one face, in a row, and in one picture."""

from __future__ import annotations

from .graphs import Graph, Info, Output
from .scene import CYAN, PREVIEW, SMALL_PREVIEW, Scene, begin


def mix(info: Info) -> Graph:
    scene = begin(
        info,
        "Two people mixed into one",
        "*Mix Identities* stacks both people's tokens: somebody new who takes after both.\n\n"
        "**Try**: shift the two weights; one *Mix Identities* after another, for more people.",
    )
    one = scene.person("person_1.jpg", "First person", SMALL_PREVIEW)
    other = scene.person("person_2.jpg", "Second person", SMALL_PREVIEW)
    prompts = scene.prompts("a photo of a woman, smiling, wearing a blue sweater, in the garden")
    group = scene.group("Picture")
    mixed = group.add("InfiniteIDMix", 3, identity_a=one, identity_b=other)
    model = scene.apply(group, 4, mixed["identity"])
    picture = scene.sample(group, 5, model, prompts, scene.empty(group, 4))
    scene.save(group, 6, picture, "mix")
    return scene.graph


def sweep(info: Info) -> Graph:
    scene = begin(
        info,
        "From one person to another",
        "*Blend Identities* gives a row of in-betweens, and one sampler draws the whole row from "
        "one latent: the same noise for all, beside a single text stream.\n\n"
        "**Try**: another *method*, a higher *count*; *start* and *end* to look closer at a part.",
    )
    one = scene.person("person_1.jpg", "The row begins here", SMALL_PREVIEW)
    other = scene.person("person_2.jpg", "The row ends here", SMALL_PREVIEW)
    prompts = scene.prompts(
        "a photo of a woman, smiling, wearing a grey sweater, in front of a blue wall"
    )
    group = scene.group("Row of pictures")
    blend = group.add("InfiniteIDBlend", 3, identity_a=one, identity_b=other, count=5)
    model = scene.apply(group, 4, blend["identities"])
    pictures = scene.sample(group, 5, model, prompts, scene.empty(group, 4))
    labels = "first\n25 %\n50 %\n75 %\nsecond"
    sheet = scene.sheet(group, 6, pictures, labels=labels, columns=5)
    scene.save(group, 7, sheet, "sweep")
    return scene.graph


def two_people(info: Info) -> Graph:
    scene = begin(
        info,
        "Two people in one picture",
        "One *Apply Infinite-ID* for each person, one after the other, each with a mask: *Column "
        "Mask* gives the left and the right half. Outside its mask a person adds nothing. Let the "
        "prompt name both.\n\n"
        "**Try**: masks of your own; three columns for three people; or the template "
        "*places_from_a_picture*.",
    )
    left = scene.person("person_1.jpg", "Person on the left", SMALL_PREVIEW)
    right = scene.person("person_2.jpg", "Person on the right", SMALL_PREVIEW)
    group = scene.group("Prompt and places", CYAN)
    prompts = scene.prompts("a photo of two women, smiling, on the beach", 3, group=group)
    masks = [
        group.add("InfiniteIDColumnMask", 2 + number, title, column=number)["mask"]
        for number, title in ((1, "Left half"), (2, "Right half"))
    ]
    _draw_both(scene, (left, right), masks, prompts, "two-people")
    return scene.graph


def regional_prompts(info: Info) -> Graph:
    scene = begin(
        info,
        "Two people, each with a prompt of their own",
        "A mask tells *Apply Infinite-ID* where a person is, and *Regional Prompt* what that "
        "person wears. The first prompt is for the whole picture.\n\n"
        "**Try**: more *strength* where the clothes mix; masks of your own.",
    )
    left = scene.person("person_1.jpg", "Person on the left", SMALL_PREVIEW)
    right = scene.person("person_2.jpg", "Person on the right", SMALL_PREVIEW)
    group = scene.group("Prompts and places", CYAN)
    positive, negative = scene.prompts(
        "a photo of two women, smiling, in the garden", 3, group=group
    )
    masks = []
    for column, side, clothes in ((1, "left", "a red sweater"), (2, "right", "a blue shirt")):
        title = f"{side.capitalize()} half"
        mask = group.add("InfiniteIDColumnMask", 2 + column, title, column=column)["mask"]
        region = group.add(
            "InfiniteIDRegionalPrompt",
            2 + column,
            f"Prompt on the {side}",
            clip=scene.clip,
            conditioning=positive,
            mask=mask,
            prompt=f"a photo of a woman, smiling, wearing {clothes}, in the garden",
        )
        positive = region["conditioning"]
        masks.append(mask)
    _draw_both(scene, (left, right), masks, (positive, negative), "regional-prompts")
    return scene.graph


def places_from_a_picture(info: Info) -> Graph:
    scene = begin(
        info,
        "Two people in the places of others",
        "*Face Masks* finds the faces of a picture and gives each a mask: here a column of the "
        "picture, for head and body. Each *Apply Infinite-ID* takes one, from left to right.\n\n"
        "**Try**: a sketch, or a picture that the prompt made without any identity.",
    )
    left = scene.person("person_1.jpg", "Person on the left", SMALL_PREVIEW)
    right = scene.person("person_2.jpg", "Person on the right", SMALL_PREVIEW)
    group = scene.group("Prompt and places", CYAN)
    prompts = scene.prompts("a photo of two women, serious, in the garden", 3, group=group)
    couple = group.add("LoadImage", 3, "Where they are", rows=PREVIEW, image="couple.jpg")
    masks = [
        group.add(
            "InfiniteIDFaceMasks",
            4,
            f"{side} face",
            rows=SMALL_PREVIEW,
            face_analysis=scene.analysis,
            image=couple["IMAGE"],
            shape="column",
            face=number,
        )
        for number, side in ((1, "Left"), (2, "Right"))
    ]
    _draw_both(
        scene, (left, right), [node["masks"] for node in masks], prompts, "places-from-a-picture"
    )
    return scene.graph


def _draw_both(
    scene: Scene,
    people: tuple[Output, Output],
    masks: list[Output],
    prompts: tuple[Output, Output],
    name: str,
) -> None:
    """Apply one person after the other, each in a mask, and draw both in one picture."""
    group = scene.group("Picture")
    model = scene.model
    for person, mask in zip(people, masks, strict=True):
        model = scene.apply(group, 5, person, model=model, mask=mask)
    picture = scene.sample(group, 6, model, prompts, scene.empty(group, 5, 1216, 832))
    scene.save(group, 7, picture, name)
