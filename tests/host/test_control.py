"""ControlNets and T2I-Adapters: both streams see them, and at weight 0 nothing changes.

The nets are random and fit a narrow UNet of SDXL's blocks, which is what a T2I-Adapter's features
are made for. All but the union net go through the host's own loaders and all through stock nodes;
the union net's loader knows the true size alone, so a small one is put together here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.controlnet
import comfy.ops
import folder_paths
import nodes
import pytest
import torch
from comfy.cldm.cldm import ControlNet as Net
from comfy.model_patcher import ModelPatcher
from comfy.t2i_adapter.adapter import Adapter as T2INet
from comfy_extras.nodes_controlnet import SetUnionControlNetType
from pack.infinite_id.host.patch import save_time
from pack.infinite_id.savings import Savings
from pack.miniature.random_weights import randomise
from pack.miniature.shapes import UNETS, UNetShape
from pack.tests.host.test_deep import STEPS, find_changes, keep_by_hand, watch_levels
from pack.tests.host.world import Conditioning, World, difference, empty
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader

ROUNDING = 1e-4
WIDE = 1e-3
SETTINGS = ["off", "mixed", "AdaIN-mean"]
TWO_STREAMS = ["mixed", "AdaIN-mean"]
SHORT: dict[str, Any] = {"steps": 2}
RANK = 4
UNION_TYPES = 8

# SDXL's blocks, with one transformer where SDXL has two and ten.
UNETS["SDXL's blocks"] = UNetShape(channels=32, mult=(1, 2, 4), depths=(0, 1, 1))
# A union net is made for SDXL's 320 channels, whatever its configuration says.
UNETS["SDXL's channels"] = UNetShape(channels=320, mult=(1,), depths=(1,), blocks=1)

Prompts = tuple[Conditioning, Conditioning]


@pytest.fixture(scope="module")
def world(worlds: Loader) -> World:
    return worlds("SDXL's blocks")


# --- The nets ------------------------------------------------------------------------------------


def shape_net(variant: str = "SDXL's blocks", **changes: Any) -> Net:
    config = {**UNETS[variant].config(), "hint_channels": 3, **changes}
    del config["out_channels"]
    return Net(**config, operations=comfy.ops.disable_weight_init)


def make_control_net(folder: Path) -> Any:
    save_file(randomise(shape_net(), seed=1), folder / "control.safetensors")
    return load(folder, "control.safetensors")


def make_t2i_adapter(folder: Path) -> Any:
    channels = [32, 64, 128, 128]
    net = T2INet(channels, nums_rb=2, cin=3 * 16**2, ksize=1, sk=True, use_conv=False, xl=True)
    save_file(randomise(net, seed=2), folder / "adapter.safetensors")
    return load(folder, "adapter.safetensors")


def make_control_lora(folder: Path) -> Any:
    """What there is beside the model's own weights: the hint, the outputs and a low rank."""
    tensors = {
        name: tensor
        for name, tensor in randomise(shape_net(), seed=3).items()
        if name.startswith(("input_hint_block", "zero_convs", "middle_block_out"))
    }
    generator = torch.Generator().manual_seed(4)
    for name, weight in shape_net().named_parameters():
        if name.endswith("to_q.weight"):
            layer = name.removesuffix(".weight")
            for part, size in (("up", (len(weight), RANK)), ("down", (RANK, weight.shape[1]))):
                tensors[f"{layer}.{part}"] = 0.1 * torch.randn(size, generator=generator)
    tensors["lora_controlnet"] = torch.zeros(0)
    save_file(tensors, folder / "lora.safetensors")
    return load(folder, "lora.safetensors")


def make_union() -> Any:
    net = shape_net("SDXL's channels", union_controlnet_num_control_type=UNION_TYPES)
    net.load_state_dict(randomise(net, seed=5))
    return comfy.controlnet.ControlNet(net, load_device=torch.device("cpu"))


def load(folder: Path, name: str) -> Any:
    folder_paths.add_model_folder_path("controlnet", str(folder))
    return nodes.ControlNetLoader().load_controlnet(name)[0]


MAKERS: dict[str, Callable[[Path], Any]] = {
    "ControlNet": make_control_net,
    "control LoRA": make_control_lora,
    "T2I-Adapter": make_t2i_adapter,
}


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory, world: World) -> dict[str, Any]:  # noqa: ARG001
    """All kinds by name; the loaders recognise them once the world is registered."""
    folder = tmp_path_factory.mktemp("controlnet")
    return {name: make(folder) for name, make in MAKERS.items()}


# --- Applying them -------------------------------------------------------------------------------


def draw_hint(count: int = 1) -> Tensor:
    return torch.rand(count, 128, 128, 3, generator=torch.Generator().manual_seed(6))


def control(
    world: World,
    net: Any,
    strength: float = 0.8,
    start: float = 0.0,
    end: float = 1.0,
    hint: Tensor | None = None,
) -> World:
    """The world whose prompts carry the net, by the stock node."""
    hint = draw_hint() if hint is None else hint
    positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
        world.positive, world.negative, net, hint, strength, start, end
    )
    return replace(world, positive=positive, negative=negative)


def control_positive(world: World, net: Any) -> World:
    """The node's older form asks for one prompt, and the host copies to the negative's area."""
    (positive,) = nodes.ControlNetApply().apply_controlnet(world.positive, net, draw_hint(), 0.8)
    return replace(world, positive=positive)


def control_one_of_two(world: World, net: Any) -> World:
    """Two prompts at once, and a net on one of them alone."""
    other = control(replace(world, positive=world.middle), net)
    (both,) = nodes.ConditioningCombine().combine(world.positive, other.positive)
    return replace(world, positive=both)


@dataclass
class Seen:
    """What the UNet was given in each forward: its rows, and the control's features."""

    x: list[Tensor] = field(default_factory=list)
    features: list[list[Tensor]] = field(default_factory=list)


@contextmanager
def watch(world: World) -> Iterator[Seen]:
    seen = Seen()

    def keep(_unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs["control"] or {}
        seen.x.append(args[0].clone())
        seen.features.append([x.clone() for part in given.values() for x in part if x is not None])

    handle = world.unet.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def see(world: World, model: ModelPatcher, **how: Any) -> Seen:
    with watch(world) as seen:
        world.sample(model, **how)
    return seen


# --- Unchanged at weight 0, a person at weight 1 -------------------------------------------------


def check(controlled: World, without: World, setting: str, **changes: Any) -> None:
    """Weight 0 is the plain model with the nets, weight 1 is not; the nets matter to either."""
    how = {**SHORT, **changes}
    plain = controlled.sample(controlled.model, **how)
    assert difference(plain, without.sample(without.model, **how)) > WIDE
    assert difference(controlled.sample(controlled.patch(0.0, setting), **how), plain) < ROUNDING
    person = controlled.sample(controlled.patch(1.0, setting), **how)
    assert difference(person, plain) > WIDE
    assert difference(person, without.sample(without.patch(1.0, setting), **how)) > WIDE


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", MAKERS)
def test_each_kind(world: World, nets: dict[str, Any], name: str, setting: str) -> None:
    check(control(world, nets[name]), world, setting)


@pytest.mark.parametrize("setting", TWO_STREAMS)
def test_a_union_net_and_its_types(worlds: Loader, setting: str) -> None:
    world, net = worlds("SDXL's channels"), make_union()
    small = empty(1, 8, 8)

    def of_type(kind: str) -> World:
        return control(world, SetUnionControlNetType.execute(net, kind).result[0])

    check(of_type("depth"), of_type("openpose"), setting, latent=small)
    check(of_type("depth"), world, setting, latent=small)


@pytest.mark.parametrize("setting", TWO_STREAMS)
@pytest.mark.parametrize("apply", [control_positive, control_one_of_two])
def test_on_some_prompts_alone(
    world: World, nets: dict[str, Any], apply: Callable[..., World], setting: str
) -> None:
    controlled = apply(world, nets["ControlNet"])
    plain = [
        [cond, {k: v for k, v in values.items() if k != "control"}]
        for cond, values in controlled.positive
    ]
    check(controlled, replace(controlled, positive=plain), setting)


@pytest.mark.parametrize("setting", TWO_STREAMS)
def test_two_at_once(world: World, nets: dict[str, Any], setting: str) -> None:
    one = control(world, nets["ControlNet"])
    two = control(one, nets["T2I-Adapter"])
    check(two, one, setting)
    check(two, control(world, nets["T2I-Adapter"]), setting)


@pytest.mark.parametrize("setting", TWO_STREAMS)
def test_a_part_of_the_sampling(world: World, nets: dict[str, Any], setting: str) -> None:
    """The same forwards have features as without us, neither all nor none of them."""
    controlled = control(world, nets["ControlNet"], start=0.2, end=0.7)
    check(controlled, world, setting, steps=4)
    alone = [bool(features) for features in see(controlled, world.model).features]
    ours = see(controlled, world.patch(1.0, setting)).features
    assert [bool(features) for features in ours] == alone
    assert set(alone) == {True, False}


@pytest.mark.parametrize("setting", TWO_STREAMS)
def test_strength_0_is_none(world: World, nets: dict[str, Any], setting: str) -> None:
    """As the node has it, which leaves the net out, and as a net without strength."""
    model = world.patch(1.0, setting)
    without = world.sample(model, **SHORT)
    left_out, weak = (control(world, nets["ControlNet"], strength) for strength in (0.0, 0.8))
    assert torch.equal(left_out.sample(model, **SHORT), without)
    for _, values in (*weak.positive, *weak.negative):
        values["control"].strength = 0.0
    assert torch.equal(weak.sample(model, **SHORT), without)


# --- Both streams see them -----------------------------------------------------------------------


@pytest.mark.parametrize("setting", TWO_STREAMS)
def test_the_text_stream_is_the_controlled_picture(
    world: World, nets: dict[str, Any], setting: str
) -> None:
    """Beside a person of full weight, its rows are drawn as the model with the net alone does."""
    controlled = control(world, nets["ControlNet"])
    alone = see(controlled, world.model, latent=empty(2), **SHORT)
    both = see(controlled, world.patch(1.0, setting), latent=empty(2), **SHORT)
    assert len(alone.x) == len(both.x) > 1
    for plain, ours in zip(alone.x, both.x, strict=True):
        identity, text = split(ours)
        assert difference(text, plain) < ROUNDING
    assert difference(identity, plain) > WIDE


def split(x: Tensor, chunks: int = 2) -> list[Tensor]:
    """`(chunks * rows, ...)` -> the identity's rows of all chunks, the text's."""
    rows = x.unflatten(0, (chunks, 2, -1))
    return [rows[:, stream].flatten(0, 1) for stream in (0, 1)]


def test_each_row_has_features_of_its_own_latents(world: World, nets: dict[str, Any]) -> None:
    """What the net makes of the identity's latents goes to the identity, of the text's to it."""
    controlled = control(world, nets["ControlNet"])
    net: Net = nets["ControlNet"].control_model
    given: list[Tensor] = []
    handle = net.register_forward_pre_hook(
        lambda _net, _args, kwargs: given.append(kwargs["x"].clone()), with_kwargs=True
    )
    seen = see(controlled, world.patch(), latent=empty(2), **SHORT)
    handle.remove()
    assert len(given) == len(seen.x) == 2
    for latents, rows, features in zip(given, seen.x, seen.features, strict=True):
        assert torch.equal(latents, rows)
        assert all(len(feature) == len(rows) for feature in features)
    for feature in features:
        identity, text = split(feature)
        assert difference(identity, text) > WIDE


# Not twice as many hints as latents: then the host gives prompt and negative prompt one each.
@pytest.mark.parametrize(("hints", "latents"), [(3, 1), (2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("name", MAKERS)
def test_as_many_hints_as_one_likes(
    world: World, nets: dict[str, Any], name: str, hints: int, latents: int
) -> None:
    """A batch of hints goes to the latents as it does without us, in both streams."""
    controlled = control(world, nets[name], hint=draw_hint(hints))
    how = {"latent": empty(latents), **SHORT}
    plain = controlled.sample(controlled.model, **how)
    assert difference(controlled.sample(controlled.patch(0.0), **how), plain) < ROUNDING


class _ByLatent:
    """A control whose strength is another one for each latent, and for the negative prompt."""

    def __init__(self, control: Any) -> None:
        self.control = control
        self.calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.control, name)

    def get_control(self, x: Tensor, t: Tensor, cond: Any, chunks: int, options: Any) -> Any:
        given = self.control.get_control(x, t, cond, chunks, options)
        self.calls.append((len(x) // chunks, options["cond_or_uncond"], options["uuids"]))
        strengths = [
            (1.0 - 0.4 * latent) * (0.5 if kind else 1.0)
            for kind in options["cond_or_uncond"]
            for latent in range(len(x) // chunks)
        ]
        factors = torch.tensor(strengths)[:, None, None, None]
        return {
            kind: [None if y is None else y * factors for y in ys] for kind, ys in given.items()
        }


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("latents", [1, 3])
def test_control_that_counts_latents(
    world: World, nets: dict[str, Any], setting: str, latents: int
) -> None:
    """Such as Advanced-ControlNet's latent keyframes: each stream is a chunk to it."""
    controlled = control(world, nets["ControlNet"])
    by_latent = _ByLatent(controlled.positive[0][1]["control"])
    prompts = [
        [[text, {**values, "control": by_latent}] for text, values in prompt]
        for prompt in (controlled.positive, controlled.negative)
    ]
    counting = replace(controlled, positive=prompts[0], negative=prompts[1])
    how = {"latent": empty(latents), **SHORT}
    plain = counting.sample(counting.model, **how)
    assert difference(plain, controlled.sample(controlled.model, **how)) > WIDE
    by_latent.calls.clear()
    assert difference(counting.sample(counting.patch(0.0, setting), **how), plain) < ROUNDING
    assert {count for count, *_ in by_latent.calls} == {latents}
    assert all(len(kinds) == len(uuids) for _, kinds, uuids in by_latent.calls)


# --- Beside what else the nodes offer ------------------------------------------------------------


@pytest.mark.parametrize("setting", TWO_STREAMS)
def test_with_a_mask(world: World, nets: dict[str, Any], setting: str) -> None:
    """A mask is the person's alone: where it is nowhere, the net's picture is left."""
    controlled = control(world, nets["ControlNet"])
    plain = controlled.sample(world.model, **SHORT)
    mask = torch.zeros(1, 64, 64)
    nowhere = world.patch(1.0, setting, mask=mask)
    assert difference(controlled.sample(nowhere, **SHORT), plain) < ROUNDING
    half = world.patch(1.0, setting, mask=mask.index_fill(-1, torch.arange(32), 1.0))
    person = controlled.sample(half, **SHORT)
    assert difference(person, plain) > WIDE
    assert difference(person, controlled.sample(world.patch(1.0, setting), **SHORT)) > WIDE
    assert difference(person, world.sample(half, **SHORT)) > WIDE


SAVINGS = {
    "every second step": (Savings(every=2), [4, 2, 4, 2]),
    "until half": (Savings(until=0.5), [4, 4, 2, 2]),
    "unguided": (Savings(guided=False), [2, 1] * 4),
    "shared": (Savings(shared=True), [4] * 4),
    "deep features": (Savings(deep=2), [4] * 4),
    "deep features, text every second": (Savings(every=2, deep=2), [4, 4, 2, 2]),
}


@pytest.mark.parametrize("name", ["ControlNet", "T2I-Adapter"])
@pytest.mark.parametrize("saving", SAVINGS)
def test_with_savings(world: World, nets: dict[str, Any], saving: str, name: str) -> None:
    """Where rows are left out, the net's are as well, and it steers both streams."""
    savings, rows = SAVINGS[saving]
    controlled = control(world, nets[name])
    model = save_time(world.patch(), savings)
    seen = see(controlled, model)
    assert [len(x) for x in seen.x] == rows
    for x, features in zip(seen.x, seen.features, strict=True):
        assert features or (savings.deep > 1 and name == "T2I-Adapter")  # it acts in deeper blocks
        assert {len(feature) for feature in features} <= {len(x), 1}
    picture = controlled.sample(model)
    assert difference(picture, world.sample(model)) > WIDE
    assert difference(picture, controlled.sample(world.model)) > WIDE


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("setting", [None, "mixed"])
def test_with_deep_features(
    world: World, nets: dict[str, Any], name: str, setting: str | None
) -> None:
    """What the net adds to the outermost level is added at every step."""
    controlled = control(world, nets[name])
    model = world.model if setting is None else world.patch(setting=setting)
    ours = controlled.sample(save_time(model, Savings(deep=2)))
    with keep_by_hand(world, 2):
        assert difference(ours, controlled.sample(model)) < ROUNDING
    assert difference(ours, controlled.sample(model)) > ROUNDING


def test_what_is_kept_is_not_read_when_a_net_comes_or_goes(
    world: World, nets: dict[str, Any]
) -> None:
    """Deep features and the text stream's have what the net adds to them."""
    controlled = control(world, nets["ControlNet"], start=0.15, end=0.55)
    turns = [step in (0, *find_changes(world, 0.15, 0.55)) for step in range(STEPS)]
    with watch_levels(world) as seen:
        controlled.sample(save_time(world.patch(), Savings(deep=8)), steps=STEPS)
    assert [is_full for _, is_full in seen] == turns
    with watch_levels(world) as seen:
        controlled.sample(save_time(world.patch(), Savings(every=8)), steps=STEPS)
    assert [rows for rows, _ in seen] == [4 if is_full else 2 for is_full in turns]
