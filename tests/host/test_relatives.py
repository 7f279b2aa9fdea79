"""SDXL's relatives: other depths, further input channels, one to four steps.

Each kind's true shape, without weights, goes through the host's detection and the Apply node; a
narrow one of the same depths, from a file through the stock loader, is sampled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import comfy.ops
import comfy.samplers
import comfy.supported_models
import nodes
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_detection import model_config_from_unet
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import DualCFGGuider, SamplerCustom, SDTurboScheduler
from comfy_extras.nodes_ip2p import InstructPixToPixConditioning
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from einops import rearrange
from pack.bench import adapter_files
from pack.infinite_id.adapters import formats
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig
from pack.infinite_id.adapters.formats import native
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.attention.blocks import context_width, list_layers
from pack.infinite_id.identities.identity import Identity
from pack.infinite_id.training.initialise import new_adapter
from pack.miniature.host import Miniature, register
from pack.miniature.shapes import SIZE_EMBEDDING, TEXT_G, UNETS, UNetShape
from pack.nodes.apply import ApplyInfiniteID
from pack.tests.host.test_layers import spy_on
from pack.tests.host.world import (
    SEED,
    SETTINGS,
    Conditioning,
    Latent,
    World,
    difference,
    empty,
    make_identities,
    sample_custom,
)
from torch import Tensor

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader

ROUNDING = 1e-4
PREFIX = "model.diffusion_model."


@dataclass(frozen=True)
class Shape(UNetShape):
    """A UNet whose way up and middle are not those of its way down."""

    up: tuple[int, ...] = ()  # transformer blocks in each residual block, outermost first
    middle: int = 0  # as the host counts: -1 without transformers, -2 without any block
    in_channels: int = 4
    changes: dict[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        return {
            **super().config(),
            "transformer_depth_output": list(self.up),
            "transformer_depth_middle": self.middle,
            "in_channels": self.in_channels,
            **self.changes,
        }


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        host: the host's name for it.
        layers: cross-attention layers.
        shape: a narrow one.
        changes: to a narrow one's configuration that make it a true one.
    """

    host: str
    layers: int
    shape: Shape
    changes: dict[str, Any]

    def true_config(self) -> dict[str, Any]:
        return {**self.shape.config(), "num_head_channels": 64, **self.changes}


THREE, FOUR = (1, 2, 4), (1, 2, 4, 4)
SDXL_UP, SD_UP = (0, 0, 0, 2, 2, 2, 10, 10, 10), (1,) * 9 + (0,) * 3
REFINER_ADM = TEXT_G.width + 5 * SIZE_EMBEDDING  # no target size, but an aesthetic score
LIKE_SDXL = {"model_channels": 320, "context_dim": 2048, "adm_in_channels": 2816}
LIKE_REFINER = {"model_channels": 384, "context_dim": 1280, "adm_in_channels": 2560}
LIKE_SD = {"model_channels": 320, "adm_in_channels": None, "num_classes": None}
HEADS_OF_SD15 = {"num_heads": 8, "num_head_channels": -1, "use_linear_in_transformer": False}


def make_sdxl(in_channels: int) -> Shape:
    return Shape(32, THREE, (0, 2, 10), up=SDXL_UP, middle=10, in_channels=in_channels)


SAME_LAYERS = {
    "SDXL": Kind("SDXL", 70, make_sdxl(4), LIKE_SDXL),
    "inpaint": Kind("SDXL", 70, make_sdxl(9), LIKE_SDXL),
    "instruct-pix2pix": Kind("SDXL_instructpix2pix", 70, make_sdxl(8), LIKE_SDXL),
}
OTHER_LAYERS = {
    "SSD-1B": Kind(
        "SSD1B",
        34,
        Shape(32, THREE, (0, 2, 4), up=(0, 0, 0, 1, 1, 2, 10, 4, 4), middle=-1),
        LIKE_SDXL,
    ),
    "Segmind Vega": Kind(
        "Segmind_Vega",
        15,
        Shape(32, THREE, (0, 1, 2), up=(0, 0, 0, 1, 1, 1, 2, 2, 2), middle=-1),
        LIKE_SDXL,
    ),
    "KOALA-700M": Kind(
        "KOALA_700M",
        21,
        Shape(32, THREE, (0, 2, 5), blocks=1, up=(0, 0, 2, 2, 5, 5), middle=-2),
        LIKE_SDXL,
    ),
    "KOALA-1B": Kind(
        "KOALA_1B",
        30,
        Shape(32, THREE, (0, 2, 6), blocks=1, up=(0, 0, 2, 2, 6, 6), middle=6),
        LIKE_SDXL,
    ),
    "the SDXL refiner": Kind(
        "SDXLRefiner",
        44,
        Shape(
            32,
            FOUR,
            (0, 4, 4, 0),
            up=(0,) * 3 + (4,) * 6 + (0,) * 3,
            middle=4,
            changes={"adm_in_channels": REFINER_ADM},
        ),
        LIKE_REFINER,
    ),
}
FOREIGN = {
    "SD 1.5": Kind(
        "SD15",
        16,
        Shape(32, FOUR, (1, 1, 1, 0), up=SD_UP, middle=1),
        {**LIKE_SD, **HEADS_OF_SD15, "context_dim": 768},
    ),
    "SD 2": Kind(
        "SD20",
        16,
        Shape(32, FOUR, (1, 1, 1, 0), up=SD_UP, middle=1),
        {**LIKE_SD, "context_dim": 1024},
    ),
}
KINDS = {**SAME_LAYERS, **OTHER_LAYERS, **FOREIGN}

UNETS.update({name: kind.shape for name, kind in OTHER_LAYERS.items()})
for name in ("inpaint", "instruct-pix2pix"):  # shallow: these two differ in their input alone
    UNETS[name] = Shape(
        32,
        (1, 2),
        (0, 1),
        blocks=1,
        up=(0, 0, 1, 1),
        middle=1,
        in_channels=KINDS[name].shape.in_channels,
    )


class MiniatureEdit(Miniature):
    """Told apart as the host tells instruct-pix2pix: by the channels of its input."""

    unet_config: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        **Miniature.unet_config,
        "in_channels": 8,
    }
    get_model = comfy.supported_models.SDXL_instructpix2pix.get_model


class MiniatureRefiner(Miniature):
    """Told apart as the host tells the refiner: by what it is conditioned on."""

    unet_config: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        **Miniature.unet_config,
        "adm_in_channels": REFINER_ADM,
    }
    get_model = comfy.supported_models.SDXLRefiner.get_model


@pytest.fixture(scope="module", autouse=True)
def recognised() -> Iterator[None]:
    """The host's loader knows the narrow ones, too, while this module's tests run."""
    register()
    own = [MiniatureEdit, MiniatureRefiner]
    comfy.supported_models.models[:0] = own
    yield
    for kind in own:
        comfy.supported_models.models.remove(kind)


# --- True shapes: what fits what ---------------------------------------------------------------


def make_true(name: str) -> ModelPatcher:
    """A model of true size without weights, as the host makes it from the tensors of a file."""
    unet = UNetModel(
        **KINDS[name].true_config(), device="meta", operations=comfy.ops.disable_weight_init
    )
    tensors = {PREFIX + key: tensor for key, tensor in unet.state_dict().items()}
    config = model_config_from_unet(tensors, PREFIX)
    model = config.get_model({}, PREFIX, device=torch.device("meta"))
    assert model.diffusion_model.state_dict().keys() == unet.state_dict().keys()
    return ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def make_meta_identity(config: AdapterConfig) -> Identity:
    """An adapter of mere shapes; the tokens are real, since Apply reads them."""
    with torch.device("meta"):
        adapter = Adapter(config)
    adapter.name = "some adapter"
    tokens = torch.zeros(1, 4, config.mapper.token_width)
    return Identity(tokens, tokens, adapter)


def apply(model: ModelPatcher, identity: Identity) -> ModelPatcher:
    """By the node, as it is set at first."""
    return ApplyInfiniteID.execute(model, identity, 1.0, "photo", "mixed", 0.0, 1.0, False).result[
        0
    ]


@pytest.mark.parametrize("name", KINDS)
def test_the_host_knows_the_shape(name: str) -> None:
    """These tests' table of shapes is the host's."""
    model = make_true(name).model
    assert type(model.model_config).__name__ == KINDS[name].host
    assert len(list_layers(model.diffusion_model)) == KINDS[name].layers


@pytest.mark.parametrize("name", SAME_LAYERS)
def test_sdxl_adapters_fit(name: str) -> None:
    model = make_true(name)
    assert apply(model, make_meta_identity(AdapterConfig.sdxl())) is not model


@pytest.mark.parametrize("name", [*OTHER_LAYERS, *FOREIGN])
def test_sdxl_adapters_are_refused_elsewhere(name: str) -> None:
    """By the name that users know, and with what to do."""
    kind = KINDS[name]
    width = kind.changes["context_dim"]
    told = (
        rf"'some adapter' does not fit.* trained for SDXL, and this is {name}\. "
        rf"Adapter: 70 .*layers, 2048 .*Model: {kind.layers} layers, {width} .*"
        r"Load the kind of model that the adapter was trained for, or an adapter trained for this"
    )
    with pytest.raises(ValueError, match=told):
        apply(make_true(name), make_meta_identity(AdapterConfig.sdxl()))


@pytest.mark.parametrize("name", OTHER_LAYERS)
def test_their_adapters_fit_them_and_not_sdxl(name: str) -> None:
    own, sdxl = make_true(name), make_true("SDXL")
    unet = own.model.diffusion_model
    mapper = MapperConfig(token_width=context_width(unet))
    identity = make_meta_identity(AdapterConfig(mapper, list_layers(unet)))
    assert apply(own, identity) is not own
    with pytest.raises(ValueError, match=rf"trained for {name}, and this is SDXL\."):
        apply(sdxl, identity)


@pytest.mark.parametrize("layers", [0, 15, 16, 21, 30, 34, 44, 69])
def test_ip_adapter_files_of_other_layers(tmp_path: Path, layers: int) -> None:
    """Their numbering is SDXL's, so a file of another kind is refused by its count."""
    tensors = {
        name: tensor
        for name, tensor in adapter_files.make("FaceID", 8).items()
        if name.startswith("image_proj.") or int(name.split(".")[1]) < 2 * layers
    }
    path = adapter_files.write_safetensors(tmp_path / "faceid.safetensors", tensors)
    told = rf"faceid\.safetensors has {layers} cross-attention layers; SDXL has 70"
    with pytest.raises(formats.FormatError, match=told):
        formats.load(path)


# --- Other depths, sampled ---------------------------------------------------------------------


def adapt(world: World, folder: Path) -> World:
    """The world with people of an adapter made for its UNet, written to a file and read again."""
    width = context_width(world.unet)
    torch.manual_seed(0)
    adapter = new_adapter(world.unet, MapperConfig(token_width=width))
    native.save(adapter, folder / "native.safetensors", torch.float32)
    identity, other = make_identities(formats.load(folder / "native.safetensors"))
    return replace(world, identity=identity, other=other)


@pytest.mark.parametrize("name", OTHER_LAYERS)
def test_with_an_adapter_of_its_own(worlds: Loader, tmp_path: Path, name: str) -> None:
    """Exact at weight 0, a person at weight 1, with each mixing and style."""
    world = adapt(worlds(name), tmp_path)
    assert len(world.identity.adapter.config.layers) == KINDS[name].layers
    plain = world.sample(world.model, steps=2)
    for setting in SETTINGS:
        assert difference(world.sample(world.patch(0.0, setting), steps=2), plain) < ROUNDING
        assert difference(world.sample(world.patch(1.0, setting), steps=2), plain) > 1e-2


@pytest.mark.parametrize("name", OTHER_LAYERS)
def test_every_layer_in_one_forward_a_step(worlds: Loader, name: str) -> None:
    """Both streams, positive and negative share a forward; each block calls both hooks once."""
    world = worlds(name)
    with spy_on(world, keep=False) as spy:
        world.sample(world.patch(), steps=2)
    assert spy.rows == [4] * 2
    blocks = list(map(tuple, list_layers(world.unet)))
    assert len(blocks) == KINDS[name].layers
    for kind in ("attn1", "attn2"):
        assert Counter(c.block for c in spy.calls if c.kind == kind) == dict.fromkeys(blocks, 2)


# --- Further input channels --------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A world whose prompts carry a picture to repaint or to edit, and the latents to start at."""

    world: World
    latent: Latent

    def sample(self, model: ModelPatcher) -> Tensor:
        return self.world.sample(model, latent=self.latent, steps=2)

    def see(self, model: ModelPatcher) -> Tensor:
        """What the UNet reads beside the latents: `(steps, rows, channels, h, w)`."""
        seen: list[Tensor] = []

        def keep(_unet: Any, args: tuple[Any, ...]) -> None:
            seen.append(args[0][:, 4:].clone())

        handle = self.world.unet.register_forward_pre_hook(keep)
        self.sample(model)
        handle.remove()
        return torch.stack(seen)


def draw_photos(count: int) -> Tensor:
    return torch.rand(count, 128, 128, 3, generator=torch.Generator().manual_seed(8))


def load_vae(name: str) -> Any:
    return nodes.CheckpointLoaderSimple().load_checkpoint(f"miniature-{name}.safetensors")[2]


def make_inpainting(worlds: Loader, photos: int = 1, repeats: int = 1) -> Scene:
    """By the stock node: a hole in the left of the first photo, in the right of the second."""
    world = worlds("inpaint")
    mask = torch.zeros(photos, 128, 128)
    mask[0, :, :64] = 1.0
    mask[1:, :, 96:] = 1.0
    positive, negative, latent = nodes.InpaintModelConditioning().encode(
        world.positive, world.negative, draw_photos(photos), load_vae("inpaint"), mask
    )
    return make_scene(world, positive, negative, latent, repeats)


def make_editing(worlds: Loader, photos: int = 1, repeats: int = 1) -> Scene:
    world = worlds("instruct-pix2pix")
    pixels, vae = draw_photos(photos), load_vae("instruct-pix2pix")
    edited = InstructPixToPixConditioning.execute(world.positive, world.negative, pixels, vae)
    positive, negative, latent = edited.result
    return make_scene(world, positive, negative, latent, repeats)


def make_scene(
    world: World, positive: Conditioning, negative: Conditioning, latent: Latent, repeats: int
) -> Scene:
    (latent,) = nodes.RepeatLatentBatch().repeat(latent, repeats)
    return Scene(replace(world, positive=positive, negative=negative), latent)


MAKERS = [make_inpainting, make_editing]
BATCHES = {"one": (1, 1), "one photo twice": (1, 2), "two photos": (2, 1)}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("batch", BATCHES)
def test_both_streams_read_the_picture(
    worlds: Loader, make: Callable[..., Scene], batch: str
) -> None:
    """Each stream's rows read what the unpatched model's rows read."""
    scene = make(worlds, *BATCHES[batch])
    alone, both = scene.see(scene.world.model), scene.see(scene.world.patch())
    assert alone.shape[2] == scene.world.unet.in_channels - 4
    assert alone.flatten(2).std(-1).min() > 0.1
    latents = len(scene.latent["samples"])
    if batch == "two photos":
        assert difference(alone[:, :1], alone[:, 1:2]) > 0.1
    streams = rearrange(both, "n (c s b) ... -> s n (c b) ...", s=2, b=latents)
    for stream in streams:
        assert torch.equal(stream, alone)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("batch", BATCHES)
def test_further_channels_at_weight_0_and_1(
    worlds: Loader, make: Callable[..., Scene], batch: str
) -> None:
    scene = make(worlds, *BATCHES[batch])
    plain = scene.sample(scene.world.model)
    for setting in SETTINGS:
        assert difference(scene.sample(scene.world.patch(0.0, setting)), plain) < ROUNDING
        assert difference(scene.sample(scene.world.patch(1.0, setting)), plain) > 1e-2


def guide_edit(scene: Scene, model: ModelPatcher, style: str) -> Any:
    """As instruct-pix2pix is guided: by text and picture, by the picture, by neither."""
    return DualCFGGuider.execute(
        model, scene.world.positive, scene.world.negative, scene.world.middle, 5.0, 1.5, style
    ).result[0]


@pytest.mark.parametrize("style", ["regular", "nested"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_guided_by_text_and_picture(worlds: Loader, style: str, setting: str) -> None:
    scene = make_editing(worlds, photos=2)

    def sample(model: ModelPatcher) -> Tensor:
        return sample_custom(guide_edit(scene, model, style), latent=scene.latent)[0]

    plain = sample(scene.world.model)
    assert difference(sample(scene.world.patch(0.0, setting)), plain) < ROUNDING
    assert difference(sample(scene.world.patch(1.0, setting)), plain) > 1e-2


@pytest.mark.parametrize("style", ["regular", "nested"])
def test_only_the_prompt_with_text_gets_the_person(worlds: Loader, style: str) -> None:
    """The guider puts the positive prompt last; an identity of nothing leaves the others alone."""
    scene = make_editing(worlds)
    person = scene.world.identity
    nobody = replace(person, unconditional=torch.zeros_like(person.unconditional))

    def see(model: ModelPatcher) -> list[dict[int, Tensor]]:
        """The UNet's output for each prompt, by its place in the guider, at each step."""
        seen: list[dict[int, Tensor]] = []

        def keep(_unet: Any, _args: Any, kwargs: dict[str, Any], out: Tensor) -> None:
            places = kwargs["transformer_options"]["cond_or_uncond"]
            seen.append(dict(zip(places, out.chunk(len(places)), strict=True)))

        handle = scene.world.unet.register_forward_hook(keep, with_kwargs=True)
        sample_custom(guide_edit(scene, model, style), latent=scene.latent, steps=1)
        handle.remove()
        return seen

    (alone,) = see(scene.world.model)
    (ours,) = see(scene.world.patch(1.0, "off", identity=nobody))
    found = {place: difference(ours[place], alone[place]) for place in alone}
    assert found.keys() == {0, 1, 2}
    assert max(found[0], found[1]) < ROUNDING
    assert found[2] > 1e-2


# --- One to four steps -------------------------------------------------------------------------


def sample_turbo(world: World, model: ModelPatcher, steps: int) -> Tensor:
    """SDXL Turbo: its own scheduler, and a sampler that draws noise."""
    (sigmas,) = SDTurboScheduler.execute(model, steps, 1.0).result
    sampler = comfy.samplers.sampler_object("euler_ancestral")
    prompts = (world.positive, world.negative)
    with torch.inference_mode():
        done = SamplerCustom.execute(
            model, True, SEED, 1.0, *prompts, sampler, sigmas, empty(2)
        ).result[0]
    return done["samples"]


def sample_lightning(world: World, model: ModelPatcher, steps: int) -> Tensor:
    how: dict[str, Any] = {"scheduler": "sgm_uniform", "cfg": 1.0, "latent": empty(2)}
    return world.sample(model, sampler="euler", steps=steps, **how)


def sample_lcm(world: World, model: ModelPatcher, steps: int) -> Tensor:
    (model,) = ModelSamplingDiscrete().patch(model, "lcm", False)
    how: dict[str, Any] = {"scheduler": "sgm_uniform", "cfg": 1.0, "latent": empty(2)}
    return world.sample(model, sampler="lcm", steps=steps, **how)


FAST = [sample_turbo, sample_lightning, sample_lcm]


@pytest.mark.parametrize("sample", FAST)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_few_steps(least: World, sample: Callable[..., Tensor], steps: int) -> None:
    plain = sample(least, least.model, steps)
    for setting in SETTINGS:
        assert difference(sample(least, least.patch(0.0, setting), steps), plain) < ROUNDING
        assert difference(sample(least, least.patch(1.0, setting), steps), plain) > 1e-2


@pytest.mark.parametrize("sample", FAST)
def test_guidance_1_costs_two_rows(least: World, sample: Callable[..., Tensor]) -> None:
    """No negative prompt: the two streams of two pictures, and a forward for each step."""
    with spy_on(least, keep=False) as spy:
        sample(least, least.patch(), 4)
    assert spy.rows == [4] * 4


@pytest.mark.parametrize(
    ("sample", "end", "acts"),
    [
        (sample_turbo, 0.15, 2),  # of the timesteps 999, 899, 799 and 699
        (sample_lightning, 0.4, 2),  # of 999, 749, 499 and 249
        (sample_lcm, 0.4, 2),
    ],
)
def test_a_range_of_few_steps(
    least: World, sample: Callable[..., Tensor], end: float, acts: int
) -> None:
    """Start and end are shares of the model's noise, whatever replaced its sampling."""
    with spy_on(least, keep=False) as spy:
        sample(least, least.patch(end=end), 4)
    assert len(spy.hooked) == acts
