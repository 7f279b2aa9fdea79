"""What the workflows have in common: the models, a person, the prompts, a sampled picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..graphs import Graph, Group, Info, Node, Output
from .downloads import ADAPTER, BASE, CLIP_VISION, DOWNLOADS, FACE_PACK

NEGATIVE = "blurry, deformed, low quality"
SEED, STEPS, CFG, SAMPLER, SCHEDULER = 5, 30, 5.0, "ddim", "ddim_uniform"
PREVIEW, NOTE_HEIGHT = 220, 230
GREEN, RED = ("#232", "#353"), ("#322", "#533")  # the page's own colours for nodes
GREY, BLUE, YELLOW, OLIVE, CYAN, PURPLE, BROWN = (
    "#888", "#3f789e", "#b58b2a", "#8A8", "#8AA", "#a1309b", "#b06634",
)  # fmt: skip

CHECKPOINT_TEXT = "- **Load Checkpoint**: {kind}, in `models/checkpoints` (`{name}`)"
ADAPTER_TEXT = f"- **Load Infinite-ID Model**: `{ADAPTER}`, in `models/ipadapter`"
SEEING_TEXT = f"""\
- **Load CLIP Vision**: CLIP ViT-H/14, in `models/clip_vision` (`{CLIP_VISION}`)
- **Load Face Analysis**: InsightFace's `{FACE_PACK}`, unpacked to \
`models/insightface/models/{FACE_PACK}`"""
CHOOSE = "Files may have other names: choose yours in the nodes."
SAMPLES = (
    "The drawn sample pictures are in the pack's folder `workflows/inputs`: drop one on *Load "
    "Image*, or choose a photo of your own."
)


@dataclass
class Scene:
    """The graph that is being drawn, and what all workflows load.

    Column 0 has the models; `left` is the column where the person and the prompts begin.
    """

    graph: Graph
    models: Group
    checkpoint: Node
    adapter: Node
    left: int
    analysis: Node = field(init=False)
    clip_vision: Node = field(init=False)
    model: Output = field(init=False)
    clip: Output = field(init=False)

    def group(self, title: str, colour: str = PURPLE) -> Group:
        return self.graph.group(title, colour)

    def person(self, photo: str, title: str = "Person") -> Output:
        """A photo and the identity that is made of it, in a group of their own."""
        group = self.group(title, YELLOW)
        image = group.add("LoadImage", self.left, rows=PREVIEW, image=photo)
        return self.encode(group, image["IMAGE"], self.left + 1)

    def encode(self, group: Group, image: Output, column: int) -> Output:
        node = group.add(
            "InfiniteIDEncodeIdentity",
            column,
            rows=PREVIEW,
            adapter=self.adapter["adapter"],
            face_analysis=self.analysis["face_analysis"],
            clip_vision=self.clip_vision["CLIP_VISION"],
            image=image,
        )
        return node["identity"]

    def prompts(self, text: str, span: int = 2) -> tuple[Output, Output]:
        group = self.group("Prompt", OLIVE)
        return self.encode_texts(group, self.left, span, text)

    def encode_texts(
        self, group: Group, column: int, span: int, text: str
    ) -> tuple[Output, Output]:
        positive, negative = (
            group.add(
                "CLIPTextEncode",
                column,
                title,
                span=span,
                colours=colours,
                clip=self.clip,
                text=words,
            )
            for title, words, colours in (
                ("Prompt", text, GREEN),
                ("Negative prompt", NEGATIVE, RED),
            )
        )
        return positive["CONDITIONING"], negative["CONDITIONING"]

    def apply(self, group: Group, column: int, identity: Output, **values: Any) -> Output:
        model = values.pop("model", self.model)
        node = group.add("InfiniteIDApply", column, model=model, identity=identity, **values)
        return node["model"]

    def empty(self, group: Group, column: int, width: int = 1024, height: int = 1024) -> Output:
        latent = group.add("EmptyLatentImage", column, width=width, height=height, batch_size=1)
        return latent["LATENT"]

    def sample(
        self,
        group: Group,
        column: int,
        model: Output,
        prompts: tuple[Output, Output],
        latent: Output,
        **settings: Any,
    ) -> Output:
        """The picture: a sampler, and a decoder in the next column."""
        values = {
            "seed": SEED,
            "steps": STEPS,
            "cfg": CFG,
            "sampler_name": SAMPLER,
            "scheduler": SCHEDULER,
            **settings,
        }
        sampler = group.add(
            "KSampler",
            column,
            rows=PREVIEW,
            model=model,
            positive=prompts[0],
            negative=prompts[1],
            latent_image=latent,
            **values,
        )
        decoded = group.add(
            "VAEDecode",
            column + 1,
            node_width=170,
            samples=sampler["LATENT"],
            vae=self.checkpoint["VAE"],
        )
        return decoded["IMAGE"]

    def encode_pixels(self, group: Group, column: int, pixels: Output) -> Output:
        node = group.add(
            "VAEEncode", column, node_width=170, pixels=pixels, vae=self.checkpoint["VAE"]
        )
        return node["LATENT"]

    def scaled(self, group: Group, column: int, picture: str) -> Output:
        """A picture, and in the next column the same at about a megapixel, as SDXL wants it."""
        loaded = group.add("LoadImage", column, rows=PREVIEW, image=picture)
        scaled = group.add(
            "ImageScaleToTotalPixels", column + 1, image=loaded["IMAGE"], megapixels=1.0
        )
        return scaled["IMAGE"]

    def save(self, group: Group, column: int, images: Output, name: str) -> None:
        prefix = f"Infinite-ID/{name}"
        group.add(
            "SaveImage", column, rows=420, node_width=400, images=images, filename_prefix=prefix
        )

    def sheet(self, group: Group, column: int, images: Output, **values: Any) -> Output:
        node = group.add("InfiniteIDContactSheet", column, rows=300, images=images, **values)
        return node["sheet"]


def begin(
    info: Info,
    title: str,
    text: str,
    *,
    checkpoint: str = BASE,
    checkpoint_kind: str = "any SDXL checkpoint",
    more_models: str = "",
    sees_photos: bool = True,
    left: int = 1,
) -> Scene:
    """What every workflow starts with: what it is for, what it needs, and the loaders."""
    graph = Graph(info, DOWNLOADS)
    about = graph.group("About this workflow", GREY)
    sample = f"\n\n{SAMPLES}" if sees_photos else ""
    about.note("What it does", f"## {title}\n\n{text}{sample}", 0, 2, NOTE_HEIGHT)
    checkpoint_text = CHECKPOINT_TEXT.format(kind=checkpoint_kind, name=checkpoint)
    needs = [checkpoint_text, ADAPTER_TEXT, SEEING_TEXT if sees_photos else "", more_models]
    listed = "\n".join(filter(None, needs))
    about.note("Models it needs", f"## Models\n\n{listed}\n\n{CHOOSE}", 2, 2, NOTE_HEIGHT)
    models = graph.group("Models", BLUE)
    adapter = models.add("InfiniteIDLoadModel", 0, model_name=ADAPTER)
    if sees_photos:
        analysis = models.add("InfiniteIDLoadFaceAnalysis", 0, pack=FACE_PACK)
        clip_vision = models.add("CLIPVisionLoader", 0, clip_name=CLIP_VISION)
    loaded = models.add("CheckpointLoaderSimple", 0, ckpt_name=checkpoint)
    scene = Scene(graph, models, loaded, adapter, left)
    scene.model, scene.clip = loaded["MODEL"], loaded["CLIP"]
    if sees_photos:
        scene.analysis, scene.clip_vision = analysis, clip_vision
    return scene
