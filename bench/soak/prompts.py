"""Random prompts for the soak: each is a whole graph in API form, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...dev.server_api import Prompt

Link = list[Any]

MANY = 30
"""Number of photos if the encoding is to be interrupted, so that it takes a while."""
SIZES = (64, 96, 104, 128, 160, 192)
SLOW = {"dpm_adaptive"}  # takes as many steps as it likes
SUBJECTS = ("a man", "a woman")
CLOTHES = ("a red sweater", "a blue shirt", "a black suit", "a green jacket")
PLACES = ("on the beach", "in the snow", "in the city", "in the library")
KINDS = {"none": 1, "photo": 4, "stack": 2, "average": 2, "mix": 2, "sweep": 3, "file": 1}
"""Sources of the identity, and how often each is drawn."""
PATCHES: dict[str, dict[str, Any]] = {
    "FreeU_V2": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2},
    "PerturbedAttentionGuidance": {"scale": 2.0},
    "SelfAttentionGuidance": {"scale": 0.5, "blur_sigma": 2.0},
    "RescaleCFG": {"multiplier": 0.7},
    "ModelSamplingDiscrete": {"sampling": "v_prediction", "zsnr": True},
}


@dataclass(frozen=True)
class Choices:
    """The choices that the server offers."""

    samplers: Sequence[str]
    schedulers: Sequence[str]
    methods: Sequence[str]  # of Blend Identities
    photos: Sequence[str]
    control: str
    values: dict[str, Any]  # the loaders' widgets


@dataclass
class Plan:
    """A prompt, its traits, and its important nodes."""

    prompt: Prompt = field(default_factory=dict)
    traits: dict[str, str] = field(default_factory=dict)
    encoder: str = ""
    sampler: str = ""
    picture: str = ""

    def add(self, kind: str, **inputs: Any) -> str:
        node = str(len(self.prompt) + 1)
        self.prompt[node] = {"class_type": kind, "inputs": inputs}
        return node

    def rename(self, change: Callable[[str], str]) -> Plan:
        """Return the same plan with other names of photos."""
        prompt = {
            node: entry
            if entry["class_type"] != "LoadImage"
            else entry | {"inputs": {"image": change(entry["inputs"]["image"])}}
            for node, entry in self.prompt.items()
        }
        return Plan(prompt, self.traits, self.encoder, self.sampler, self.picture)


class Drawing:
    """A prompt while it is drawn at random."""

    def __init__(self, rng: random.Random, choices: Choices, kind: str = "") -> None:
        self.rng, self.choices, self.plan = rng, choices, Plan()
        self.kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
        values = choices.values
        loader = self.plan.add("CheckpointLoaderSimple", ckpt_name=values["ckpt_name"])
        self.model, self.clip, self.vae = ([loader, slot] for slot in range(3))
        self.width, self.height = rng.choice(SIZES), rng.choice(SIZES)

    def node(self, kind: str, **inputs: Any) -> Link:
        """Add a node and return its first output."""
        return [self.plan.add(kind, **inputs), 0]

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    def note(self, trait: str, value: Any) -> None:
        self.plan.traits[trait] = str(value)

    def photo(self) -> Link:
        return self.node("LoadImage", image=self.rng.choice(self.choices.photos))

    def draw(self, photos: int = 0) -> Plan:
        """Draw the prompt, with `photos` photos of one identity if given, else a random number."""
        self.note("identity", self.kind)
        if self.kind != "none":
            self._apply(photos)
        elif self.maybe(0.5):
            self._patch()
        self._sample()
        return self.plan

    # --- The person ---

    def load(self) -> None:
        """Add the nodes that encoding needs."""
        values = self.choices.values
        self.adapter = self.node(
            "InfiniteIDLoadModel", model_name=values["model_name"], shortcut_scale=1.0
        )
        self.analysis = self.node(
            "InfiniteIDLoadFaceAnalysis",
            pack=values["pack"],
            provider="auto",
            detection_size=values["detection_size"],
        )
        self.clip_vision = self.node("CLIPVisionLoader", clip_name=values["clip_name"])

    def _apply(self, photos: int) -> None:
        self.load()
        patch_first, patch_after = self.maybe(0.3), self.maybe(0.3)
        if patch_first:
            self._patch()
        masked = self.maybe(0.4)
        self._put_on(self._identity(photos), self._mask(left=True) if masked else None)
        if masked and self.maybe(0.5) and self.kind != "sweep":
            self._put_on(self.encode(1), self._mask(left=False))
            self.note("people", 2)
        if patch_after and not patch_first:
            self._patch()
        if self.maybe(0.3):
            self._save_time()

    def _identity(self, photos: int) -> Link:
        if self.kind == "file":
            name = self.choices.values["identity_name"]
            return self.node("InfiniteIDLoadIdentity", adapter=self.adapter, identity_name=name)
        if self.kind == "mix":
            return self.node(
                "InfiniteIDMix",
                identity_a=self.encode(1),
                identity_b=self.encode(1),
                weight_a=1.0,
                weight_b=self.rng.choice((0.5, 1.0)),
            )
        if self.kind == "sweep":
            method = self.rng.choice(self.choices.methods)
            self.note("sweep", method)
            return self.node(
                "InfiniteIDBlend",
                identity_a=self.encode(1),
                identity_b=self.encode(1),
                count=self.rng.choice((3, 4)),
                method=method,
                start=0.0,
                end=1.0,
            )
        return self.encode(photos or (1 if self.kind == "photo" else self.rng.choice((2, 3))))

    def encode(self, photos: int) -> Link:
        image, more = self.photo(), {}
        if photos == MANY:
            image = self.node("RepeatImageBatch", image=image, amount=photos)
        else:
            more = {f"more_images.image_{n}": self.photo() for n in range(2, photos + 1)}
        encoded = self.node(
            "InfiniteIDEncodeIdentity",
            adapter=self.adapter,
            face_analysis=self.analysis,
            clip_vision=self.clip_vision,
            image=image,
            combine="average" if self.kind == "average" else "stack",
            **more,
        )
        self.plan.encoder = self.plan.encoder or encoded[0]
        return encoded

    def _put_on(self, identity: Link, mask: Link | None) -> None:
        rng = self.rng
        style = rng.choice(("photo", "photo", "style (AdaIN-mean)", "style (full AdaIN)"))
        mixing = rng.choice(("mixed", "mixed", "mutual", "off"))
        curve = rng.choice(("constant", "fade in", "fade out"))
        start, end = rng.choice(((0.0, 1.0), (0.0, 1.0), (0.3, 1.0), (0.0, 0.6)))
        self.model = self.node(
            "InfiniteIDApply",
            model=self.model,
            identity=identity,
            weight=rng.choice((0.5, 1.0, 1.5)),
            style=style,
            mixed_attention=mixing,
            start_percent=start,
            end_percent=end,
            style_in_cross_attention=self.maybe(0.2),
            weight_curve=curve,
            up_weight=rng.choice((1.0, 0.5)),
            **({} if mask is None else {"mask": mask}),
        )
        for trait, value in (("style", style), ("mixing", mixing), ("curve", curve)):
            self.note(trait, value)
        self.note("mask", "none" if mask is None else "half")

    def _mask(self, left: bool) -> Link:
        sizes = {"height": self.height}
        black = self.node("SolidMask", value=0.0, width=self.width, **sizes)
        white = self.node("SolidMask", value=1.0, width=self.width // 2, **sizes)
        return self.node(
            "MaskComposite",
            destination=black,
            source=white,
            x=0 if left else self.width // 2,
            y=0,
            operation="add",
        )

    def _patch(self) -> None:
        name = self.rng.choice(list(PATCHES))
        self.model = self.node(name, model=self.model, **PATCHES[name])
        self.note("patch", name)

    def _save_time(self) -> None:
        every, until = self.rng.choice(((2, 1.0), (3, 1.0), (1, 0.5), (2, 0.7)))
        self.model = self.node(
            "InfiniteIDSaveTime",
            model=self.model,
            text_every=every,
            mix_until=until,
            text_guidance=self.maybe(0.5),
        )
        self.note("savings", f"every {every}, until {until}")

    # --- The picture ---

    def _sample(self) -> None:
        rng = self.rng
        words = f"{rng.choice(SUBJECTS)}, smiling, wearing {rng.choice(CLOTHES)}"
        positive = self.node(
            "CLIPTextEncode", clip=self.clip, text=f"a photo of {words}, {rng.choice(PLACES)}"
        )
        negative = self.node("CLIPTextEncode", clip=self.clip, text="blurry")
        if self.maybe(0.2):
            positive, negative = self._control(positive, negative)
        latent, denoise = self._latent()
        sampler, scheduler = rng.choice(self.choices.samplers), rng.choice(self.choices.schedulers)
        sampled = self.node(
            "KSampler",
            model=self.model,
            positive=positive,
            negative=negative,
            latent_image=latent,
            seed=rng.randrange(2**32),
            steps=rng.choice((3, 4)),
            cfg=rng.choice((1.0, 5.0)),
            sampler_name=sampler,
            scheduler=scheduler,
            denoise=denoise,
        )
        decoded = self.node("VAEDecode", samples=sampled, vae=self.vae)
        self.plan.sampler = sampled[0]
        self.plan.picture = self.plan.add("SaveImage", images=decoded, filename_prefix="soak")
        for trait, value in (("sampler", sampler), ("scheduler", scheduler)):
            self.note(trait, value)
        self.note("size", f"{self.width}x{self.height}")

    def _control(self, positive: Link, negative: Link) -> tuple[Link, Link]:
        controlled = self.node(
            "ControlNetApplyAdvanced",
            positive=positive,
            negative=negative,
            control_net=self.node("ControlNetLoader", control_net_name=self.choices.control),
            image=self.photo(),
            strength=self.rng.choice((0.5, 1.0)),
            start_percent=0.0,
            end_percent=self.rng.choice((0.5, 1.0)),
        )
        self.note("control", "ControlNet")
        return controlled, [controlled[0], 1]

    def _latent(self) -> tuple[Link, float]:
        """Add an empty latent, or a photo to change as a whole or in part."""
        start = self.rng.choice(("empty", "empty", "photo", "inpaint"))
        self.note("start", start)
        if start == "empty":
            batch = self.rng.choice((1, 1, 2)) if self.kind != "sweep" else 1
            self.note("batch", batch)
            sizes = {"width": self.width, "height": self.height, "batch_size": batch}
            return self.node("EmptyLatentImage", **sizes), 1.0
        scaled = self.node(
            "ImageScale",
            image=self.photo(),
            upscale_method="bilinear",
            width=self.width,
            height=self.height,
            crop="center",
        )
        latent = self.node("VAEEncode", pixels=scaled, vae=self.vae)
        if start == "inpaint":
            latent = self.node("SetLatentNoiseMask", samples=latent, mask=self._mask(left=True))
        return latent, 0.7


def draw(rng: random.Random, choices: Choices, interrupt: str = "") -> Plan:
    """Draw a prompt. If it is to be interrupted, its kind has the step to interrupt."""
    if interrupt == "encoding":
        return Drawing(rng, choices, "stack").draw(MANY)
    return Drawing(rng, choices, "sweep" if interrupt == "sweep" else "").draw()


def identity_to_save(choices: Choices) -> Plan:
    """Return a prompt that saves the person whom prompts of the kind 'file' load."""
    drawing = Drawing(random.Random(0), choices, "photo")
    drawing.load()
    drawing.plan.picture = drawing.plan.add(
        "InfiniteIDSaveIdentity",
        identity=drawing.encode(1),
        filename_prefix="identities/soak",
        overwrite="number",
        include_thumbnail=True,
    )
    return drawing.plan
