"""The common parts of the workflows: the models, a person, the prompts, a sampled picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .downloads import ADAPTER, BASE, CLIP_VISION, DOWNLOADS, FACE_PACK, NEEDED
from .graphs import Graph, Group, Info, Node, Output

NEGATIVE = "blurry, deformed, low quality"
SEED, STEPS, CFG, SAMPLER, SCHEDULER = 5, 30, 5.0, "ddim", "ddim_uniform"
PREVIEW, SMALL_PREVIEW, NOTE_HEIGHT = 220, 140, 180
GREEN, RED = ("#232", "#353"), ("#322", "#533")  # the page's own colours for nodes
GREY, BLUE, YELLOW, OLIVE, CYAN, PURPLE, BROWN = (
    "#888", "#3f789e", "#b58b2a", "#8A8", "#8AA", "#a1309b", "#b06634",
)  # fmt: skip

WEIGHT = 0.9  # with FaceID PlusV2 and its LoRA at 0.6, as docs/recipes.md says

CHECKPOINT_TEXT = "- [{name}]({url}), or {kind}, in `models/checkpoints`"
LOADER_TEXT = """\
*Infinite-ID Unified Loader* finds the others under any name, and says what is missing:
{files}"""
SAMPLES = (
    "The drawn sample pictures are in the pack's folder `workflows/inputs`: drop one on *Load "
    "Image*, or choose a photo of your own."
)


@dataclass
class Scene:
    """The graph while it is drawn, and the models that all workflows load.

    Column 0 has the models; `left` is the column where the person and the prompts begin.
    """

    graph: Graph
    models: Group
    left: int
    checkpoint: Node = field(init=False)
    model: Output = field(init=False)
    clip: Output = field(init=False)
    adapter: Output = field(init=False)
    analysis: Output = field(init=False)
    encoder: dict[str, Any] = field(init=False)

    def group(self, title: str, colour: str = PURPLE) -> Group:
        return self.graph.group(title, colour)

    def person(self, photo: str, title: str = "Person", rows: int = PREVIEW) -> Output:
        """Add a photo and its identity, in a group of their own."""
        group = self.group(title, YELLOW)
        image = group.add("LoadImage", self.left, rows=rows, image=photo)
        return self.encode(group, self.left + 1, image["IMAGE"], rows=rows)

    def encode(
        self, group: Group, column: int, image: Output, *more: Output, rows: int = PREVIEW
    ) -> Output:
        """Encode an identity; photos beyond the first go to the node's growing input."""
        further: dict[str, Any] = {
            f"more_images.image_{n}": photo for n, photo in enumerate(more, start=2)
        }
        node = group.add(
            "InfiniteIDEncode", column, rows=rows, image=image, **self.encoder, **further
        )
        return node["identity"]

    def prompts(
        self, text: str, column: int = 0, group: Group | None = None
    ) -> tuple[Output, Output]:
        """Add both prompts side by side; by default two columns to the right of the photo."""
        group = group or self.group("Prompt", OLIVE)
        column = column or self.left + 2
        positive, negative = (
            group.add("CLIPTextEncode", place, title, colours=colours, clip=self.clip, text=words)
            for place, title, words, colours in (
                (column, "Prompt", text, GREEN),
                (column + 1, "Negative prompt", NEGATIVE, RED),
            )
        )
        return positive["CONDITIONING"], negative["CONDITIONING"]

    def apply(self, group: Group, column: int, identity: Output, **values: Any) -> Output:
        settings = {"model": self.model, "weight": WEIGHT, **values}
        node = group.add("InfiniteIDApply", column, identity=identity, **settings)
        return node["model"]

    def empty(
        self, group: Group, column: int, width: int = 1024, height: int = 1024, batch: int = 1
    ) -> Output:
        latent = group.add("EmptyLatentImage", column, width=width, height=height, batch_size=batch)
        return latent["LATENT"]

    def sample(
        self,
        group: Group,
        column: int,
        model: Output,
        prompts: tuple[Output, Output],
        latent: Output,
        *,
        rows: int = PREVIEW,
        decoder: int | None = None,
        **settings: Any,
    ) -> Output:
        """Add a sampler, and a decoder below it or in another column; return the picture."""
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
            rows=rows,
            model=model,
            positive=prompts[0],
            negative=prompts[1],
            latent_image=latent,
            **values,
        )
        decoded = group.add(
            "VAEDecode", decoder or column, samples=sampler["LATENT"], vae=self.checkpoint["VAE"]
        )
        return decoded["IMAGE"]

    def encode_pixels(self, group: Group, column: int, pixels: Output) -> Output:
        node = group.add(
            "VAEEncode", column, node_width=170, pixels=pixels, vae=self.checkpoint["VAE"]
        )
        return node["LATENT"]

    def scaled(self, group: Group, column: int, picture: str) -> Output:
        """Add a picture, and in the next column the same at about a megapixel, SDXL's size."""
        loaded = group.add("LoadImage", column, rows=SMALL_PREVIEW, image=picture)
        scaled = group.add(
            "ImageScaleToTotalPixels", column + 1, image=loaded["IMAGE"], megapixels=1.0
        )
        return scaled["IMAGE"]

    def save(self, group: Group, column: int, images: Output, name: str) -> None:
        prefix = f"Infinite-ID/{name}"
        group.add(
            "SaveImage", column, rows=330, node_width=330, images=images, filename_prefix=prefix
        )

    def draw(
        self,
        name: str,
        column: int,
        identity: Output,
        prompts: tuple[Output, Output],
        **values: Any,
    ) -> Graph:
        """Draw the end of most workflows: a group that applies an identity, samples and saves."""
        group = self.group("Picture")
        model = self.apply(group, column, identity, **values)
        picture = self.sample(group, column + 1, model, prompts, self.empty(group, column))
        self.save(group, column + 2, picture, name)
        return self.graph

    def sheet(self, group: Group, column: int, images: Output, **values: Any) -> Output:
        node = group.add("InfiniteIDContactSheet", column, rows=PREVIEW, images=images, **values)
        return node["sheet"]


def begin(
    info: Info,
    title: str,
    text: str,
    *,
    checkpoint: str = BASE,
    checkpoint_kind: str = "any SDXL checkpoint",
    lora: str = "",
    more_models: str = "",
    sees_photos: bool = True,
) -> Scene:
    """Draw the start of most workflows: their purpose, their needs, and the loaders.

    With a LoRA the models take two columns.
    """
    scene = _explain(
        info, title, text, [name_checkpoint(checkpoint, checkpoint_kind), more_models], sees_photos
    )
    model = _load_checkpoint(scene, checkpoint)
    if lora:
        scene.left = 2
        loaded = scene.models.add(
            "LoraLoader", 1, model=model, clip=scene.clip, lora_name=lora, strength_model=0.8
        )
        model, scene.clip = loaded["MODEL"], loaded["CLIP"]
    loader = scene.models.add("InfiniteIDUnifiedLoader", scene.left - 1, model=model)
    scene.model, scene.encoder = loader["model"], {"encoder": loader["encoder"]}
    scene.adapter, scene.analysis = loader["adapter"], loader["face_analysis"]
    return scene


def begin_apart(info: Info, title: str, text: str, *, draws: bool = True) -> Scene:
    """Draw the same with a loader for each model; without pictures it needs no checkpoint."""
    checkpoint = [name_checkpoint(BASE, "any SDXL checkpoint")] if draws else []
    scene = _explain(info, title, text, checkpoint, True)
    adapter = scene.models.add("InfiniteIDLoadModel", 0, model_name=ADAPTER)
    scene.adapter = adapter["adapter"]
    clip_vision = scene.models.add("CLIPVisionLoader", 0, clip_name=CLIP_VISION)
    analysis = scene.models.add("InfiniteIDLoadFaceAnalysis", 0, pack=FACE_PACK)
    scene.analysis = analysis["face_analysis"]
    scene.encoder = {
        "encoder": scene.adapter,
        "face_analysis": scene.analysis,
        "clip_vision": clip_vision["CLIP_VISION"],
    }
    if draws:
        model = _load_checkpoint(scene, BASE)
        lora = scene.models.add("InfiniteIDFaceLoRA", 0, model=model, adapter=scene.adapter)
        scene.model = lora["model"]
    return scene


def _load_checkpoint(scene: Scene, name: str) -> Output:
    scene.checkpoint = scene.models.add("CheckpointLoaderSimple", 0, ckpt_name=name)
    scene.clip = scene.checkpoint["CLIP"]
    return scene.checkpoint["MODEL"]


def write_models(models: list[str]) -> str:
    """Write a note: the models that a workflow needs and the unified loader does not find."""
    listed = "\n".join(f"- {file}" for file in NEEDED)
    own = "\n".join(filter(None, models))
    return f"## Models\n\n{own}\n\n{LOADER_TEXT.format(files=listed)}"


def name_checkpoint(name: str, kind: str) -> str:
    """Write a line on the checkpoint, with its link."""
    return CHECKPOINT_TEXT.format(name=name, url=DOWNLOADS[name]["url"], kind=kind)


def _explain(info: Info, title: str, text: str, models: list[str], sees_photos: bool) -> Scene:
    graph = Graph(info, DOWNLOADS)
    about = graph.group("About this workflow", GREY)
    sample = f"\n\n{SAMPLES}" if sees_photos else ""
    about.note("What it does", f"## {title}\n\n{text}{sample}", 0, 3, NOTE_HEIGHT)
    about.note("Models it needs", write_models(models), 3, 3, NOTE_HEIGHT)
    return Scene(graph, graph.group("Models", BLUE), 1)
