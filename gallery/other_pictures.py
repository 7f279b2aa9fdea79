"""Workflows that start from a picture, or bring a ControlNet or a LoRA."""

from __future__ import annotations

from .downloads import CONTROL_NET, LORA
from .graphs import Graph, Info
from .scene import CYAN, PREVIEW, SAMPLER, SCHEDULER, SEED, SMALL_PREVIEW, STEPS, begin


def image_to_image(info: Info) -> Graph:
    scene = begin(
        info,
        "A picture, drawn again with your person",
        "The sampler starts from the picture instead of from noise: place, light and pose stay, "
        "the face becomes the person's.\n\n"
        "**Try**: *denoise* in *KSampler*: 0.4 changes little, 0.8 nearly everything. Describe the "
        "picture in the prompt.",
    )
    identity = scene.person("face.jpg")
    start = scene.group("Picture to start from", CYAN)
    scaled = scene.scaled(start, 1, "person_2.jpg")
    prompts = scene.prompts("a photo of a woman, serious, wearing a blue shirt, in the city", 4)
    group = scene.group("New picture")
    latent = scene.encode_pixels(group, 3, scaled)
    model = scene.apply(group, 4, identity)
    picture = scene.sample(group, 5, model, prompts, latent, denoise=0.7)
    scene.save(group, 6, picture, "image-to-image")
    return scene.graph


def inpaint_face(info: Info) -> Graph:
    scene = begin(
        info,
        "Only the face becomes another",
        "*Face Masks* covers a face of a finished picture, the sampler draws again what it covers, "
        "and the result is laid over the picture: outside the mask not a pixel changes.\n\n"
        "**Try**: *face* 2 for the second face from the left; more *grow* to take in the hair.",
    )
    identity = scene.person("face.jpg", rows=SMALL_PREVIEW)
    group = scene.group("Picture to change", CYAN)
    scaled = scene.scaled(group, 1, "person_2.jpg")
    mask = group.add(
        "InfiniteIDFaceMasks",
        3,
        rows=SMALL_PREVIEW,
        face_analysis=scene.analysis,
        image=scaled,
        face=1,
        grow=1.3,
        feather=8,
    )["masks"]
    pixels = scene.encode_pixels(group, 2, scaled)
    prompts = scene.prompts("a photo of a woman, smiling", 4)
    group = scene.group("Changed picture")
    model = scene.apply(group, 4, identity, mask=mask)
    latent = group.add("SetLatentNoiseMask", 4, samples=pixels, mask=mask)
    drawn = scene.sample(group, 5, model, prompts, latent["LATENT"], denoise=0.8)
    laid_over = group.add("ImageCompositeMasked", 6, destination=scaled, source=drawn, mask=mask)
    scene.save(group, 7, laid_over["IMAGE"], "inpaint-face")
    return scene.graph


def controlnet(info: Info) -> Graph:
    scene = begin(
        info,
        "The pose of one picture, the face of another",
        "A ControlNet holds the edges of a picture, and with them pose and layout; the photo "
        "gives the face.\n\n"
        "**Try**: *strength* 0.3 to 0.7 and *end_percent* below 1 in *Apply ControlNet*: with all "
        "edges held to the end, the face of the edges wins. A pose or depth ControlNet takes the "
        "place of *Canny* and its model.",
        more_models=f"- **Load ControlNet Model**: one for SDXL, in `models/controlnet` "
        f"(`{CONTROL_NET}`)",
    )
    control_net = scene.models.add("ControlNetLoader", 0, control_net_name=CONTROL_NET)
    identity = scene.person("face.jpg")
    group = scene.group("Pose and size", CYAN)
    pose = group.add(
        "LoadImage", 1, "Picture with the pose", rows=SMALL_PREVIEW, image="person_1.jpg"
    )
    edges = group.add("Canny", 2, image=pose["IMAGE"])["IMAGE"]
    latent = scene.empty(group, 2)
    group.add("PreviewImage", 3, "Edges", rows=PREVIEW, images=edges)
    positive, negative = scene.prompts(
        "a photo of a woman, smiling, wearing a green jacket, in the forest", 4
    )
    group = scene.group("Picture")
    model = scene.apply(group, 4, identity)
    held = group.add(
        "ControlNetApplyAdvanced",
        4,
        positive=positive,
        negative=negative,
        control_net=control_net["CONTROL_NET"],
        image=edges,
        strength=0.5,
        end_percent=0.6,
    )
    prompts = held["positive"], held["negative"]
    picture = scene.sample(group, 5, model, prompts, latent)
    scene.save(group, 6, picture, "controlnet")
    return scene.graph


def lora(info: Info) -> Graph:
    scene = begin(
        info,
        "A style LoRA and a person",
        "*Load LoRA* comes between the checkpoint and everything else; *Apply Infinite-ID* works "
        "with any LoRA of the model. Set its *style* to *style (AdaIN-mean)* for a style LoRA.\n\n"
        "**Try**: *strength_model* in *Load LoRA*, and several LoRAs in a row.",
        more_models=f"- **Load LoRA**: any for SDXL, in `models/loras` (`{LORA}`)",
        lora=LORA,
    )
    identity = scene.person("face.jpg")
    prompts = scene.prompts(
        "a watercolor painting of a woman, smiling, wearing a red sweater, in the mountains"
    )
    return scene.draw("lora", 4, identity, prompts, style="style (AdaIN-mean)")


def refine_small_faces(info: Info) -> Graph:
    scene = begin(
        info,
        "Small faces, drawn again at full size",
        "Faces of a few dozen pixels lose the person. *Crop Small Faces* cuts them out of a "
        "finished picture and enlarges them, the sampler draws them again as the person, and "
        "*Paste Faces* puts them back behind a soft mask: elsewhere not a pixel changes.\n\n"
        "**Try**: *denoise*: more likeness, or more of the first picture; *max_face*, the largest "
        "face that counts as small.",
    )
    identity = scene.person("face.jpg")
    group = scene.group("Picture with a small face", CYAN)
    picture = group.add("LoadImage", 1, "Picture with a small face", rows=PREVIEW, image="far.jpg")
    crops = group.add(
        "InfiniteIDCropFaces", 2, face_analysis=scene.analysis, image=picture["IMAGE"]
    )
    prompts = scene.prompts("a photo of a woman, smiling", 4)
    group = scene.group("Close-up")
    pixels = scene.encode_pixels(group, 3, crops["crops"])
    model = scene.apply(group, 4, identity)
    latent = group.add("SetLatentNoiseMask", 4, samples=pixels, mask=crops["masks"])
    refined = scene.sample(group, 5, model, prompts, latent["LATENT"], denoise=0.5)
    pasted = group.add(
        "InfiniteIDPasteFaces", 6, node_width=220, face_crops=crops["face_crops"], crops=refined
    )
    scene.save(group, 7, pasted["image"], "refine-small-faces")
    return scene.graph


def refine_faces(info: Info) -> Graph:
    scene = begin(
        info,
        "Small faces, drawn again by one node",
        "Faces of a few dozen pixels lose the person. *Refine Faces* draws each small face of a "
        "finished picture at the model's own size as the person, and puts it back behind a soft "
        "mask: elsewhere not a pixel changes.\n\n"
        "**Try**: *denoise*: more likeness, or more of the first picture; *max_face*, the largest "
        "face that counts as small. Each step by itself: the template *refine_small_faces*.",
    )
    identity = scene.person("face.jpg")
    group = scene.group("Picture with a small face", CYAN)
    picture = group.add("LoadImage", 1, "Picture with a small face", rows=PREVIEW, image="far.jpg")
    positive, negative = scene.prompts("a photo of a woman, smiling", 3)
    group = scene.group("The face, drawn again")
    model = scene.apply(group, 3, identity)
    refined = group.add(
        "InfiniteIDRefineFaces",
        4,
        rows=PREVIEW,
        model=model,
        positive=positive,
        negative=negative,
        vae=scene.checkpoint["VAE"],
        face_analysis=scene.analysis,
        image=picture["IMAGE"],
        seed=SEED,
        steps=STEPS,
        sampler_name=SAMPLER,
        scheduler=SCHEDULER,
        denoise=0.5,
    )
    scene.save(group, 5, refined["image"], "refine-faces")
    return scene.graph
