"""Workflows with a person as staged words: learning them, and combining them with other methods."""

from __future__ import annotations

from typing import Any

from .downloads import CONTROL_NET
from .graphs import Graph, Info
from .learning import learn
from .scene import (
    CYAN,
    GREEN,
    NEGATIVE,
    OLIVE,
    RED,
    SMALL_PREVIEW,
    begin,
)

PERSON, OTHER = "person.safetensors", "other.safetensors"
"""Files in `models/infinite_id_staged`."""


def learn_staged_identity(info: Info) -> Graph:
    scene, learned = learn(
        info,
        "## One photo becomes words that change with the noise\n\n*Learn Staged Identity* writes a "
        "file into `models/infinite_id_staged`; *Staged Identity Prompt* names the person by it "
        "as `V*`, and *Apply Staged Identity* lets the model read it.\n\n"
        "**Try**: *noun* man or woman. For a thing or an animal: no face analysis, *noun* its "
        "kind, *prompt* `a photo of V*`. Interrupted, it keeps what was learnt and goes on when "
        "it is queued again.",
        "InfiniteIDLearnStagedIdentity",
        "people/learnt",
    )
    group = scene.group("Prompt", OLIVE)
    positive = group.add(
        "InfiniteIDStagedIdentityPrompt",
        4,
        colours=GREEN,
        clip=scene.clip,
        prompt="a photo of V* smiling, wearing a blue sweater",
        identity=learned["identity"],
    )
    negative = group.add(
        "CLIPTextEncode", 4, "Negative prompt", colours=RED, clip=scene.clip, text=NEGATIVE
    )
    group = scene.group("Picture")
    model = group.add("InfiniteIDApplyStagedIdentity", 5, model=scene.model)
    prompts = positive["conditioning"], negative["CONDITIONING"]
    picture = scene.sample(group, 6, model["model"], prompts, scene.empty(group, 5))
    scene.save(group, 7, picture, "learn-staged-identity")
    return scene.graph


def staged_identity(info: Info) -> Graph:
    scene = begin(
        info,
        "Two people in one prompt, and one with Infinite-ID",
        "*Staged Identity Prompt* names people as `V*` and `V2*`, by files that the workflow "
        "*learn_staged_identity* has written. One *Apply Staged Identity* serves all prompts of a "
        "model. The first picture has two people and the pose of a ControlNet; in the second the "
        "identity stream shows the person as well.\n\n"
        "**Try**: without *Apply Staged Identity* the mean of all stages is read, as from an "
        "ordinary embedding.",
        more_models="- **Load ControlNet Model**: one for SDXL, in `models/controlnet` "
        f"(`{CONTROL_NET}`)",
    )
    net = scene.models.add("ControlNetLoader", 0, control_net_name=CONTROL_NET)
    latent = scene.empty(scene.models, 0)
    identity = scene.person("face.jpg")
    group = scene.group("Pose", CYAN)
    pose = group.add(
        "LoadImage", 1, "Picture with the pose", rows=SMALL_PREVIEW, image="person_1.jpg"
    )
    edges = group.add("Canny", 2, image=pose["IMAGE"])["IMAGE"]
    group = scene.group("Prompts", OLIVE)
    prompts: list[tuple[str, str, dict[str, Any]]] = [
        ("Two people", "a photo of V* beside V2*", {"identity_2": OTHER}),
        ("One person", "a photo of V*, smiling, in the forest", {}),
    ]
    two, one = (
        group.add(
            "InfiniteIDStagedIdentityPrompt",
            3,
            title,
            colours=GREEN,
            clip=scene.clip,
            prompt=text,
            identity=PERSON,
            **more,
        )["conditioning"]
        for title, text, more in prompts
    )
    negative = group.add(
        "CLIPTextEncode", 3, "Negative prompt", colours=RED, clip=scene.clip, text=NEGATIVE
    )["CONDITIONING"]
    group = scene.group("With a ControlNet, and with Infinite-ID")
    staged = group.add("InfiniteIDApplyStagedIdentity", 4, model=scene.model)["model"]
    held = group.add(
        "ControlNetApplyAdvanced",
        4,
        positive=two,
        negative=negative,
        control_net=net["CONTROL_NET"],
        image=edges,
        strength=0.5,
        end_percent=0.6,
    )
    shown = scene.apply(group, 4, identity, model=staged)
    ways = (staged, (held["positive"], held["negative"])), (shown, (one, negative))
    pictures = [
        scene.sample(group, 5, model, prompts, latent, rows=0, decoder=6, seed=7)
        for model, prompts in ways
    ]
    sheet = scene.sheet(
        group,
        6,
        pictures[0],
        images_2=pictures[1],
        row_labels="two people, ControlNet\nwith Infinite-ID",
        columns=1,
    )
    scene.save(group, 7, sheet, "staged-identity")
    return scene.graph
