"""The workflows that the pack ships: `python -m dev workflows` draws them into `workflows/`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .cache import ROOT
from .graphs import Graph, Info, Node, Output
from .miniature import draw_inputs
from .server import running_server

CHECKPOINT = "sd_xl_base_1.0.safetensors"
CLIP_VISION = "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
ADAPTER = "infinite-id_sdxl.safetensors"
FACE_PACK = "antelopev2"
NEGATIVE = "blurry, deformed, low quality"
SEED, STEPS, CFG, SAMPLER, SCHEDULER = 2024, 30, 5.0, "ddim", "ddim_uniform"
PREVIEW = 240

LOADING = """
**Models**: *Load Checkpoint* takes any SDXL checkpoint. *Load Infinite-ID Model*: an adapter in \
`models/infinite_id`, `models/ipadapter` or `models/instantid`."""
SEEING = """ *Load Face Analysis*: an InsightFace pack in `models/insightface/models`, the one \
that the adapter was trained with. *Load CLIP Vision*: CLIP ViT-H/14; adapters that take none \
ignore it."""


@dataclass
class Scene:
    """The graph that is being drawn, and what all workflows load."""

    graph: Graph
    checkpoint: Node
    adapter: Node
    analysis: Node = field(init=False)
    clip_vision: Node = field(init=False)

    def encode(self, photo: str, title: str, column: int = 1, **values: Any) -> Node:
        """A photo and the identity that is made of it."""
        image = self.graph.add("LoadImage", 0, title, rows=PREVIEW, image=photo)
        return self.encode_image(image["IMAGE"], column, **values)

    def encode_image(self, image: Output, column: int = 1, **values: Any) -> Node:
        return self.graph.add(
            "InfiniteIDEncodeIdentity",
            column,
            rows=PREVIEW,
            adapter=self.adapter["adapter"],
            face_analysis=self.analysis["face_analysis"],
            clip_vision=self.clip_vision["CLIP_VISION"],
            image=image,
            **values,
        )

    def apply(self, identity: Output, column: int, **values: Any) -> Node:
        model = values.pop("model", self.checkpoint["MODEL"])
        return self.graph.add("InfiniteIDApply", column, model=model, identity=identity, **values)

    def prompts(self, text: str, column: int) -> tuple[Output, Output]:
        clip = self.checkpoint["CLIP"]
        positive, negative = (
            self.graph.add("CLIPTextEncode", column, title, rows=70, clip=clip, text=words)
            for title, words in (("Prompt", text), ("Negative prompt", NEGATIVE))
        )
        return positive["CONDITIONING"], negative["CONDITIONING"]

    def empty(self, column: int, width: int = 1024, height: int = 1024) -> Output:
        latent = self.graph.add(
            "EmptyLatentImage", column, width=width, height=height, batch_size=1
        )
        return latent["LATENT"]

    def sample(
        self,
        model: Output,
        prompts: tuple[Output, Output],
        latent: Output,
        column: int,
        denoise: float = 1.0,
    ) -> Output:
        """The picture: a sampler, and a decoder below it."""
        sampler = self.graph.add(
            "KSampler",
            column,
            rows=PREVIEW,
            model=model,
            positive=prompts[0],
            negative=prompts[1],
            latent_image=latent,
            seed=SEED,
            steps=STEPS,
            cfg=CFG,
            sampler_name=SAMPLER,
            scheduler=SCHEDULER,
            denoise=denoise,
        )
        decoded = self.graph.add(
            "VAEDecode", column, samples=sampler["LATENT"], vae=self.checkpoint["VAE"]
        )
        return decoded["IMAGE"]

    def save(self, images: Output, name: str, column: int) -> None:
        prefix = f"Infinite-ID/{name}"
        self.graph.add("SaveImage", column, rows=400, images=images, filename_prefix=prefix)

    def sheet(self, images: Output, column: int, **values: Any) -> Output:
        sheet = self.graph.add("InfiniteIDContactSheet", column, rows=200, images=images, **values)
        return sheet["sheet"]


def begin(info: Info, title: str, text: str, sees_photos: bool = True) -> Scene:
    """What every workflow starts with, in the first column."""
    graph = Graph(info)
    graph.note(f"## {title}\n\n{text}\n{LOADING}{SEEING if sees_photos else ''}")
    scene = Scene(
        graph=graph,
        checkpoint=graph.add("CheckpointLoaderSimple", 0, ckpt_name=CHECKPOINT),
        adapter=graph.add("InfiniteIDLoadModel", 0, model_name=ADAPTER),
    )
    if sees_photos:
        scene.analysis = graph.add("InfiniteIDLoadFaceAnalysis", 0, pack=FACE_PACK)
        scene.clip_vision = graph.add("CLIPVisionLoader", 0, clip_name=CLIP_VISION)
    return scene


def photo(info: Info) -> Graph:
    scene = begin(
        info,
        "One photo, new pictures of that person",
        "Choose a sharp, upright photo of one face, write the prompt, and queue. For a painted or "
        "drawn picture set **style** in *Apply Infinite-ID* to *style (AdaIN-mean)*.",
    )
    identity = scene.encode("face.jpg", "Photo of the person")
    model = scene.apply(identity["identity"], 2)
    prompts = scene.prompts("a photo of a man, smiling, wearing a brown jacket, in the snow", 2)
    picture = scene.sample(model["model"], prompts, scene.empty(2), 3)
    scene.save(picture, "photo", 4)
    return scene.graph


def several_photos(info: Info) -> Graph:
    scene = begin(
        info,
        "Several photos of one person",
        "The photos' tokens are stacked: the picture takes from all of them. Set **combine** to "
        "*average* for the mean of the faces instead, and **weights** such as `1, 0.5` to trust "
        "one photo more than the other.",
    )
    photos = [
        scene.graph.add("LoadImage", 0, f"Photo {n}", rows=PREVIEW, image=f"face_{n}.jpg")
        for n in (1, 2)
    ]
    batch = scene.graph.add("ImageBatch", 1, image1=photos[0]["IMAGE"], image2=photos[1]["IMAGE"])
    identity = scene.encode_image(batch["IMAGE"])
    model = scene.apply(identity["identity"], 2)
    prompts = scene.prompts("a photo of a man, laughing, wearing a blue shirt, in the city", 2)
    picture = scene.sample(model["model"], prompts, scene.empty(2), 3)
    scene.save(picture, "several-photos", 4)
    return scene.graph


def style(info: Info) -> Graph:
    scene = begin(
        info,
        "The prompt's style, with and without AdaIN-mean",
        "Both pictures have the same seed. With *style (AdaIN-mean)* the person's picture takes "
        "its style from the prompt's own picture.",
    )
    identity = scene.encode("face.jpg", "Photo of the person")
    plain = scene.apply(identity["identity"], 2, style="photo")
    styled = scene.apply(identity["identity"], 2, style="style (AdaIN-mean)")
    prompts = scene.prompts(
        "a watercolor painting of a man, smiling, wearing a green sweater, in the garden", 2
    )
    latent = scene.empty(2)
    rows = [scene.sample(model["model"], prompts, latent, 3) for model in (plain, styled)]
    sheet = scene.sheet(
        rows[0], 4, images_2=rows[1], row_labels="photo\nstyle (AdaIN-mean)", columns=1
    )
    scene.save(sheet, "style", 5)
    return scene.graph


def mix(info: Info) -> Graph:
    scene = begin(
        info,
        "Two people mixed into one",
        "*Mix Identities* stacks both people's tokens: somebody new who takes after both. Put one "
        "Mix node after another for more people, and shift the weights.",
    )
    one = scene.encode("person_1.jpg", "First person")
    other = scene.encode("person_2.jpg", "Second person")
    mixed = scene.graph.add(
        "InfiniteIDMix", 2, identity_a=one["identity"], identity_b=other["identity"]
    )
    model = scene.apply(mixed["identity"], 2)
    prompts = scene.prompts(
        "a photo of a man, serious, wearing a black suit, in the city at night", 2
    )
    picture = scene.sample(model["model"], prompts, scene.empty(2), 3)
    scene.save(picture, "mix", 4)
    return scene.graph


def sweep(info: Info) -> Graph:
    scene = begin(
        info,
        "From one person to another",
        "*Blend Identities* gives a row of in-betweens, and one sampler draws the whole row from "
        "one latent: the same noise for all, beside a single text stream.",
    )
    one = scene.encode("person_1.jpg", "The row begins here")
    other = scene.encode("person_2.jpg", "and ends here")
    blend = scene.graph.add(
        "InfiniteIDBlend",
        2,
        identity_a=one["identity"],
        identity_b=other["identity"],
        count=5,
    )
    model = scene.apply(blend["identities"], 2)
    prompts = scene.prompts(
        "a photo of a man, serious, wearing a grey suit, in front of a blue wall", 2
    )
    pictures = scene.sample(model["model"], prompts, scene.empty(2), 3)
    sheet = scene.sheet(pictures, 4, labels="first\n25 %\n50 %\n75 %\nsecond", columns=5)
    scene.save(sheet, "sweep", 5)
    return scene.graph


def two_people(info: Info) -> Graph:
    scene = begin(
        info,
        "Two people in one picture",
        "One *Apply Infinite-ID* for each person, one after the other, each with a mask: here the "
        "left and the right half. Outside its mask a person adds nothing. Draw masks of your own, "
        "or take them from a picture with *Face Masks*.",
    )
    left = scene.encode("person_1.jpg", "Person on the left")
    right = scene.encode("person_2.jpg", "Person on the right")
    black = scene.graph.add("SolidMask", 2, value=0.0, width=1216, height=832)
    white = scene.graph.add("SolidMask", 2, value=1.0, width=608, height=832)
    halves = [
        scene.graph.add(
            "MaskComposite",
            2,
            f"{side} half",
            destination=black["MASK"],
            source=white["MASK"],
            x=x,
            y=0,
            operation="add",
        )
        for side, x in (("Left", 0), ("Right", 608))
    ]
    first = scene.apply(left["identity"], 3, mask=halves[0]["MASK"])
    both = scene.apply(right["identity"], 3, model=first["model"], mask=halves[1]["MASK"])
    prompts = scene.prompts("a photo of two men side by side, smiling, on the beach", 3)
    picture = scene.sample(both["model"], prompts, scene.empty(3, 1216, 832), 4)
    scene.save(picture, "two-people", 5)
    return scene.graph


def places_from_a_picture(info: Info) -> Graph:
    scene = begin(
        info,
        "Two people in the places of others",
        "*Face Masks* finds the faces of a picture and gives each a mask: here a column of the "
        "picture, for head and body. Each *Apply Infinite-ID* takes one, from left to right.",
    )
    couple = scene.graph.add("LoadImage", 0, "Where they are", rows=PREVIEW, image="couple.jpg")
    left = scene.encode("person_1.jpg", "Person on the left")
    right = scene.encode("person_2.jpg", "Person on the right")
    masks = [
        scene.graph.add(
            "InfiniteIDFaceMasks",
            2,
            f"{side} face",
            face_analysis=scene.analysis["face_analysis"],
            image=couple["IMAGE"],
            shape="column",
            face=number,
        )
        for number, side in ((1, "Left"), (2, "Right"))
    ]
    first = scene.apply(left["identity"], 3, mask=masks[0]["masks"])
    both = scene.apply(right["identity"], 3, model=first["model"], mask=masks[1]["masks"])
    prompts = scene.prompts("a photo of two men side by side, serious, in the library", 3)
    picture = scene.sample(both["model"], prompts, scene.empty(3, 1216, 832), 4)
    scene.save(picture, "places-from-a-picture", 5)
    return scene.graph


def weight_curve(info: Info) -> Graph:
    scene = begin(
        info,
        "When the identity acts",
        "The same picture with the identity throughout, fading in, and fading out. Early steps "
        "set the layout, late ones the details. The curve, start and end, and weights for the "
        "UNet's stages are *Apply Infinite-ID*'s advanced inputs.",
    )
    identity = scene.encode("face.jpg", "Photo of the person")
    text = "a photo of a man, surprised, wearing a yellow jacket, in the desert"
    prompts = scene.prompts(text, 2)
    latent = scene.empty(2)
    curves = ("constant", "fade in", "fade out")
    models = [scene.apply(identity["identity"], 2, weight_curve=curve) for curve in curves]
    rows = [scene.sample(model["model"], prompts, latent, 3) for model in models]
    sheet = scene.sheet(
        rows[0], 4, images_2=rows[1], images_3=rows[2], row_labels="\n".join(curves), columns=1
    )
    scene.save(sheet, "weight-curve", 5)
    return scene.graph


def save_identity(info: Info) -> Graph:
    scene = begin(
        info,
        "Keep a person as a file",
        "*Save Identity* writes a small file into `output/identities`. Whoever has it and the same "
        "adapter can draw this person without the photo and without a face model: see the workflow "
        "*load_identity*.",
    )
    identity = scene.encode("face.jpg", "Photo of the person")
    scene.graph.add("InfiniteIDSaveIdentity", 2, rows=PREVIEW, identity=identity["identity"])
    return scene.graph


def load_identity(info: Info) -> Graph:
    scene = begin(
        info,
        "A person out of a file",
        "No photo and no face model: *Load Identity* reads what the workflow *save_identity* "
        "wrote, or a file that somebody gave you in `models/infinite_id_identities`. The adapter "
        "must be the one that the identity was made with.",
        sees_photos=False,
    )
    identity = scene.graph.add(
        "InfiniteIDLoadIdentity",
        1,
        rows=PREVIEW,
        adapter=scene.adapter["adapter"],
        identity_name="identities/person_00001_.safetensors [output]",
    )
    model = scene.apply(identity["identity"], 2)
    prompts = scene.prompts("a photo of a man, laughing, wearing a red hoodie, in the forest", 2)
    picture = scene.sample(model["model"], prompts, scene.empty(2), 3)
    scene.save(picture, "load-identity", 4)
    return scene.graph


def refine_small_faces(info: Info) -> Graph:
    scene = begin(
        info,
        "Small faces, drawn again at full size",
        "Faces of a few dozen pixels lose the person. *Crop Small Faces* cuts them out of the "
        "finished picture and enlarges them, a second sampler draws them again as the same person, "
        "and *Paste Faces* puts them back behind a soft mask.",
    )
    identity = scene.encode("face.jpg", "Photo of the person")
    model = scene.apply(identity["identity"], 2)
    prompts = scene.prompts("a photo of a man in the city, full body, far away", 2)
    picture = scene.sample(model["model"], prompts, scene.empty(2), 3)
    crops = scene.graph.add(
        "InfiniteIDCropFaces",
        4,
        face_analysis=scene.analysis["face_analysis"],
        image=picture,
    )
    encoded = scene.graph.add("VAEEncode", 4, pixels=crops["crops"], vae=scene.checkpoint["VAE"])
    latent = scene.graph.add(
        "SetLatentNoiseMask", 4, samples=encoded["LATENT"], mask=crops["masks"]
    )
    close_up = scene.prompts("a photo of a man, smiling", 4)
    refined = scene.sample(model["model"], close_up, latent["LATENT"], 5, denoise=0.5)
    pasted = scene.graph.add(
        "InfiniteIDPasteFaces", 6, face_crops=crops["face_crops"], crops=refined
    )
    scene.save(pasted["image"], "refine-small-faces", 6)
    return scene.graph


def score(info: Info) -> Graph:
    scene = begin(
        info,
        "How much the picture looks like the person",
        "*Face Similarity* compares the faces in the pictures with the photo's, by the face "
        "model's cosine: with antelopev2 or buffalo_l above 0.5 is mostly the same person.",
    )
    identity = scene.encode("face.jpg", "Photo of the person")
    photo_of = next(node for node in scene.graph.nodes if node.data["type"] == "LoadImage")
    model = scene.apply(identity["identity"], 2)
    prompts = scene.prompts("a photo of a man, serious, wearing a red sweater, in the library", 2)
    picture = scene.sample(model["model"], prompts, scene.empty(2), 3)
    similarity = scene.graph.add(
        "InfiniteIDFaceSimilarity",
        4,
        rows=100,
        face_analysis=scene.analysis["face_analysis"],
        reference=photo_of["IMAGE"],
        images=picture,
    )
    scene.save(similarity["annotated_images"], "score", 5)
    return scene.graph


GALLERY: dict[str, Callable[[Info], Graph]] = {
    "photo": photo,
    "several_photos": several_photos,
    "style": style,
    "mix": mix,
    "sweep": sweep,
    "two_people": two_people,
    "places_from_a_picture": places_from_a_picture,
    "weight_curve": weight_curve,
    "save_identity": save_identity,
    "load_identity": load_identity,
    "refine_small_faces": refine_small_faces,
    "score": score,
}


def draw_all() -> None:
    """Draw every workflow as the nodes of the running code have it, and the photos they name."""
    draw_inputs()
    with running_server() as server:
        info = server.object_info()
        for name, draw in GALLERY.items():
            draw(info).save(ROOT / "workflows" / f"{name}.json")
            print(f"workflows/{name}.json")
