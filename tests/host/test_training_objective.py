"""The objective against plain torch, which modules get gradients, and how often attention runs."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import comfy.ldm.modules.attention
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.attention.blocks import list_transformers
from pack.infinite_id.host import attend
from pack.infinite_id.training.data import Batch
from pack.infinite_id.training.host_frozen import HostFrozen
from pack.infinite_id.training.initialise import new_adapter
from pack.infinite_id.training.objective import Objective, Prediction, make_target
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from pack.infinite_id.adapters.adapter import Adapter
    from pack.tests.host.world import World

MAPPER = MapperConfig(16, 32, 4, 24, 24, token_width=128)


def draw_batch(rows: int = 4) -> Batch:
    random = torch.Generator().manual_seed(3)
    return Batch(
        latents=torch.randn(rows, 4, 16, 16, generator=random) * 5,
        noise=torch.randn(rows, 4, 16, 16, generator=random),
        times=torch.tensor([3, 250, 600, 999])[:rows],
        face=torch.randn(rows, 16, generator=random),
        clip=torch.randn(rows, 5, 24, generator=random),
        sizes=torch.randint(0, 512, (rows, 6), generator=random),
        names=("",) * rows,
    )


def make(world: World, checkpointing: bool = False, min_snr: float = 0.0) -> Objective:
    torch.manual_seed(0)
    adapter = new_adapter(world.unet, MAPPER)
    frozen = HostFrozen(world.model.model, checkpointing)
    return Objective(adapter, frozen, min_snr)


# --- The method, in plain torch ---------------------------------------------------------------


def reference_tokens(adapter: Adapter, face: Tensor, clip: Tensor) -> Tensor:
    w = dict(adapter.mapper.named_parameters())
    x = face / face.norm(dim=-1, keepdim=True)
    x = F.gelu(x @ w["face.proj.0.weight"].T + w["face.proj.0.bias"])
    x = (x @ w["face.proj.2.weight"].T + w["face.proj.2.bias"]).reshape(len(x), 4, -1)
    x = F.layer_norm(x, x.shape[-1:], w["face.norm.weight"], w["face.norm.bias"])
    y = F.gelu(clip @ w["clip.proj.0.weight"].T + w["clip.proj.0.bias"])
    y = y @ w["clip.proj.2.weight"].T + w["clip.proj.2.bias"]
    y = F.layer_norm(y, y.shape[-1:], w["clip.proj.3.weight"], w["clip.proj.3.bias"])
    return torch.cat([x, y], dim=1)


def reference_unet(world: World, adapter: Adapter, tokens: Tensor, *inputs: Any) -> Tensor:
    """The UNet with each cross-attention layer itself replaced by one over the identity tokens."""
    before = []
    for block, transformer in list_transformers(world.unet):
        projection = adapter.get_submodule(f"layers.{block}")
        attn2 = transformer.attn2

        def forward(x: Tensor, *_: Any, a: Any = attn2, p: Any = projection, **__: Any) -> Tensor:
            def split(y: Tensor) -> Tensor:
                return y.unflatten(-1, (a.heads, -1)).transpose(1, 2)

            q, k, v = split(a.to_q(x)), split(tokens @ p.to_k.weight.T), split(p.to_v(tokens))
            weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
            return a.to_out((weights @ v).transpose(1, 2).flatten(2))

        before.append((attn2, attn2.forward))
        attn2.forward = forward
    try:
        z, t, y = inputs
        unread = z.new_zeros(len(z), 1, tokens.shape[-1])
        return world.unet(z, t, context=unread, y=y, transformer_options={})
    finally:
        for attn2, forward in before:
            attn2.forward = forward


def reference_loss(world: World, adapter: Adapter, batch: Batch, velocity: bool) -> Tensor:
    model = world.model.model
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    a = (1 - betas).cumprod(0).float()[batch.times].reshape(-1, 1, 1, 1)
    z0 = batch.latents * 0.13025
    zt = a.sqrt() * z0 + (1 - a).sqrt() * batch.noise
    frequencies = torch.exp(-torch.arange(128) / 128 * torch.log(torch.tensor(10000.0)))
    angles = batch.sizes[..., None] * frequencies
    sizes = torch.cat([angles.cos(), angles.sin()], dim=-1).flatten(1)
    y = torch.cat([torch.zeros(len(sizes), model.adm_channels - sizes.shape[1]), sizes], dim=1)
    tokens = reference_tokens(adapter, batch.face, batch.clip)
    predicted = reference_unet(world, adapter, tokens, zt, batch.times.float(), y)
    target = a.sqrt() * batch.noise - (1 - a).sqrt() * z0 if velocity else batch.noise
    return ((predicted - target) ** 2).mean()


@pytest.mark.parametrize("velocity", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_agree_with_plain_torch(
    worlds: Any, velocity: bool, checkpointing: bool
) -> None:
    world, batch = worlds("tiny"), draw_batch()
    forwards = [(t, t.forward) for _, t in list_transformers(world.unet)]
    try:
        objective = make(world, checkpointing)
        if velocity:
            objective._frozen.prediction = Prediction.VELOCITY
        loss = objective(batch).mean()
        loss.backward()
    finally:
        for transformer, forward in forwards:
            transformer.forward = forward
    own = {name: p.grad.clone() for name, p in objective.adapter.named_parameters()}
    objective.zero_grad()
    expected = reference_loss(world, objective.adapter, batch, velocity)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, p in objective.adapter.named_parameters():
        assert (own[name] - p.grad).norm() <= 2e-4 * p.grad.norm(), name


@pytest.mark.parametrize("kind", ["eps", "v_prediction"])
@pytest.mark.parametrize("zsnr", [False, True])
def test_what_is_predicted_is_as_the_model_samples(tiny: World, kind: str, zsnr: bool) -> None:
    """What the host takes out of the very target is the picture."""
    (patched,) = ModelSamplingDiscrete().patch(tiny.model, kind, zsnr)
    sampling: Any = patched.get_model_object("model_sampling")
    model = copy.copy(tiny.model.model)
    model._modules = {**model._modules, "model_sampling": sampling}
    frozen, batch = HostFrozen(model, False), draw_batch()
    alpha = frozen.alphas_cumprod[batch.times]
    target = make_target(batch.latents, batch.noise, alpha, frozen.prediction)
    sigma = sampling.sigmas[batch.times]
    x = batch.latents + sigma[:, None, None, None] * batch.noise
    torch.testing.assert_close(
        sampling.calculate_denoised(sigma, target, x), batch.latents, rtol=1e-3, atol=1e-2
    )


def test_the_size_conditioning_is_the_hosts(tiny: World) -> None:
    """`encode_adm` is what sampling calls, one size at a time."""
    frozen = make(tiny)._frozen
    assert isinstance(frozen, HostFrozen)
    sizes = torch.tensor([[480, 640, 16, 0, 512, 768], [1024, 1024, 0, 0, 1024, 1024]])
    names = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")
    pooled = torch.zeros(1, tiny.model.model.adm_channels - 6 * 256)
    for row, own in zip(sizes, frozen.condition(sizes), strict=True):
        values = dict(zip(names, row.tolist(), strict=True))
        expected = tiny.model.model.encode_adm(pooled_output=pooled, **values)
        torch.testing.assert_close(own[None], expected)


@pytest.mark.parametrize(("velocity", "gamma"), [(False, 5.0), (True, 5.0), (False, 0.0)])
def test_min_snr_weights(tiny: World, velocity: bool, gamma: float) -> None:
    plain, weighted = make(tiny), make(tiny, min_snr=gamma)
    for objective in (plain, weighted):
        objective._frozen.prediction = Prediction.VELOCITY if velocity else Prediction.NOISE
    batch = draw_batch()
    with torch.no_grad():
        ratio = weighted(batch) / plain(batch)
    snr = 1 / tiny.model.model.model_sampling.sigmas[batch.times].double() ** 2
    expected = snr.clamp(max=gamma) / (snr + 1 if velocity else snr) if gamma else snr**0
    torch.testing.assert_close(ratio.double(), expected, rtol=1e-4, atol=0)


def test_gradients_exist_exactly_for_what_trains(tiny: World) -> None:
    objective = make(tiny)
    trains = {f"learner.{name}" for name, _ in objective.adapter.named_parameters()}
    assert {name for name, _ in objective.named_parameters()} == trains
    objective(draw_batch()).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())
    assert all(p.grad is None and not p.requires_grad for p in tiny.unet.parameters())


def test_text_attention_never_runs(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer attends twice: to the picture's own pixels, and to the identity's tokens."""
    calls: Counter[str] = Counter()
    tokens = 4 + draw_batch().clip.shape[1]

    def count(place: str, function: Any) -> Any:
        def counted(q: Tensor, k: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            calls[f"{place} {'pixels' if k.shape[1] == q.shape[1] else k.shape[1]}"] += 1
            return function(q, k, *args, **kwargs)

        return counted

    for place, module in (("host", comfy.ldm.modules.attention), ("pack", attend)):
        for name in ("optimized_attention", "optimized_attention_masked"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, count(place, getattr(module, name)))
    with torch.no_grad():
        make(tiny)(draw_batch())
    layers = len(list(list_transformers(tiny.unet)))
    assert calls == {"host pixels": layers, f"pack {tokens}": layers}


def test_bfloat16_is_near(worlds: Any) -> None:
    whole = make(worlds("tiny"))(draw_batch()).mean()
    objective = make(worlds("tiny", torch.bfloat16))
    half = objective(draw_batch()).mean()
    half.backward()
    assert half.item() == pytest.approx(whole.item(), rel=2e-2)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in objective.parameters())


# --- With text: the ablation ------------------------------------------------------------------


class Words:
    """Text encoders that make a tensor of a caption's letters."""

    def __init__(self, width: int, pooled: int) -> None:
        self.width, self.pooled = width, pooled
        self.asked: list[str] = []

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens(self, text: str, return_pooled: bool) -> tuple[Tensor, Tensor]:
        assert return_pooled
        self.asked.append(text)
        random = torch.Generator().manual_seed(len(text))
        return (
            torch.randn(1, 77 * (1 + len(text) // 300), self.width, generator=random),
            torch.randn(1, self.pooled, generator=random),
        )


def test_with_text_both_attentions_add_up(tiny: World) -> None:
    """The stock UNet's text attention, and the image attention beside it, as IP-Adapter has it."""
    batch = replace(draw_batch(2), captions=("a man", "a woman on the beach"))
    torch.manual_seed(0)
    adapter = new_adapter(tiny.unet, MAPPER)
    model = tiny.model.model
    embedded = HostFrozen(model, False).condition(batch.sizes)
    words = Words(MAPPER.token_width, model.adm_channels - 6 * 256)
    own = Objective(adapter, HostFrozen(model, False, words))(batch)
    for layer in adapter.layers.values():
        torch.nn.init.zeros_(layer.to_v.weight)
    silent = Objective(adapter, HostFrozen(model, False, words)).denoise(batch)
    encoded = [Words(words.width, words.pooled).encode_from_tokens(c, True) for c in batch.captions]
    context, pooled = (torch.cat(x) for x in zip(*encoded, strict=True))
    y = torch.cat([pooled, embedded[:, words.pooled :]], dim=1)
    alpha = HostFrozen(model, False).alphas_cumprod[batch.times][:, None, None, None]
    latents = model.process_latent_in(batch.latents)
    noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * batch.noise
    with torch.no_grad():
        stock = tiny.unet(noised, batch.times.float(), context=context, y=y, transformer_options={})
    expected = (noised - (1 - alpha).sqrt() * stock) / alpha.sqrt()
    torch.testing.assert_close(silent, expected, rtol=1e-4, atol=1e-4)
    plain = (stock - batch.noise).square().mean(dim=(1, 2, 3))
    assert ((own - plain).abs() > 1e-6 * plain).all()


def test_captions_are_encoded_once_and_cut(tiny: World) -> None:
    words = Words(MAPPER.token_width, tiny.model.model.adm_channels - 6 * 256)
    torch.manual_seed(0)
    objective = Objective(
        new_adapter(tiny.unet, MAPPER), HostFrozen(tiny.model.model, False, words)
    )
    with torch.no_grad():
        for _ in range(2):
            objective(replace(draw_batch(2), captions=("short", "long " * 100)))
    assert words.asked == ["short", "long " * 100]
