"""One forward of the UNet: image cross-attention and mixed attention around its own.

APPLY_MODEL sees the patch tables as this very forward will use them, so whatever other packs put
there, before or after us, statically or for one call, is wrapped here and never lost.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from einops import repeat
from torch import Tensor

from ..attention.blocks import Block
from ..attention.cross import Attend, add_image_attention
from ..attention.mask import Area, mask_tokens
from ..attention.mixed import Mixing, Style, adapt, mix, needs_text_stream
from ..streams import Layout, Streams
from .state import KEY, RUN, STEP, Acting, Person, Run, Step
from .text_stream import Memory, Part

Options = dict[str, Any]
Replacement = Callable[[Tensor, Tensor, Tensor, Options], Tensor]


@dataclass(frozen=True, eq=False)
class Forward:
    """What the hooks of one forward share.

    Attributes:
        people: those who act at this sigma, and the factors on their weights.
        given: the rows that the host calls with.
        layout: the rows that the UNet is run with. Text rows may have been added, with the
            identity's latents, or those left out that are the same as another chunk's.
        latent: height and width of the whole latent.
        positive: for each cond chunk of the batch, whether it is positive.
        areas: for each cond chunk, the crop of the latent that it covers.
        conds: for each cond chunk, the host's name for its cond.
        part: what the text stream does; `memory` has its features where it is recalled.
    """

    people: list[Acting]
    given: Layout
    layout: Layout
    latent: tuple[int, int]
    positive: list[bool]
    areas: list[Area | None]
    conds: list[Any]
    part: Part
    memory: Memory | None

    @property
    def streams(self) -> Streams:
        return self.layout.streams

    @property
    def mixing(self) -> Mixing:
        return self.people[-1].person.application.mixing

    @property
    def style(self) -> Style:
        return self.people[-1].person.application.style

    @property
    def reads_text(self) -> bool:
        """Whether this forward's self-attention reads the text stream."""
        exists = self.streams.has_text or self.part is Part.RECALLED
        return exists and needs_text_stream(self.mixing, self.style)

    def read_text(self, block: Block, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The text stream's keys and values, of this forward or of its last one."""
        if self.part is Part.RECALLED and self.memory is not None:
            kept = self.memory.recall(block, self.conds)
            # HyperTile may cut the rows otherwise now: `(c 1 b l d)` by this forward's l.
            k, v = (x.to(k).reshape(*x.shape[:2], -1, *k.shape[-2:]) for x in kept)
            return k, v
        if self.memory is not None:
            self.memory.keep(block, self.conds, k, v)
        return k, v


def apply_model(
    executor: WrapperExecutor,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: Options = {},  # noqa: B006  # the host's own signature
    **kwargs: Any,
) -> Tensor:
    """Run the host's forward with the identity's hooks around whatever attention is patched in."""
    forward = _begin(x, transformer_options)
    given, layout = forward.given, forward.layout
    inputs = (x, t, c_concat, c_crossattn, control)
    if layout != given:
        inputs, kwargs = (_arrange(part, len(x), forward) for part in (inputs, kwargs))
    if forward.people:
        with _uncompiled():
            out = executor(*inputs, _hook(transformer_options, forward), **kwargs)
    else:
        out = executor(*inputs, transformer_options, **kwargs)
    return out if layout == given else given.arrange(out, layout)


def _uncompiled() -> AbstractContextManager[Any]:
    """Run a compiled UNet as it was written.

    The host's compiled models do not look at the transformer options again: they would repeat the
    hooks of the first forward, or none, whoever acts by now.
    """
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()  # nothing is compiled, or torch is older than 2.6
    return torch.compiler.set_stance("force_eager")


def _arrange(inputs: Any, rows: int, forward: Forward) -> Any:
    """The layout's rows of all tensors that have as many rows as the host called with."""
    if isinstance(inputs, dict):
        return {name: _arrange(part, rows, forward) for name, part in inputs.items()}
    if isinstance(inputs, list | tuple):
        return type(inputs)(_arrange(part, rows, forward) for part in inputs)
    if isinstance(inputs, Tensor) and inputs.ndim and inputs.shape[0] == rows:
        return forward.layout.arrange(inputs, forward.given)
    return inputs


def _begin(x: Tensor, options: Options) -> Forward:
    run: Run = options[RUN]
    step: Step = options[STEP]
    chunks = len(options["cond_or_uncond"])
    expected = chunks * (step.streams.latents if run.is_single else step.streams.rows)
    fits = x.shape[0] % chunks == 0 if run.is_single else x.shape[0] == expected
    if not fits:
        raise RuntimeError(
            f"Infinite-ID: the model was called with {x.shape[0]} rows where {expected} (both "
            f"streams of {chunks} conds) were expected. A node that cuts the batch into "
            "pieces, such as a tiled sampler, is in the way: switch it off, or switch on "
            "shared_latents in Infinite-ID Save Time."
        )
    streams = step.streams
    if run.is_single:
        streams = Streams(latents=x.shape[0] // chunks, has_text=False)
    given = Layout(streams, chunks)
    return Forward(
        people=[acting.on(x.device) for acting in step.people],
        given=given,
        layout=_choose_layout(given, run, step, options),
        latent=run.latent,
        positive=[index in step.positive for index in options["cond_or_uncond"]],
        areas=[step.areas.get(uuid) for uuid in options["uuids"]],
        conds=options["uuids"],
        part=step.part,
        memory=None if run.is_single else run.text.memory,
    )


def _choose_layout(given: Layout, run: Run, step: Step, options: Options) -> Layout:
    """With text rows of this forward's own where it needs them, and equal ones only once."""
    streams = given.streams
    if run.is_single and step.mixes:
        streams = replace(streams, has_text=True)
    is_alike = step.is_alike and given.chunks > 1 and not _is_patched(options)
    return Layout(streams, given.chunks, has_one_text=streams.has_text and is_alike)


def _is_patched(options: Options) -> bool:
    """Whether other nodes' code runs within this forward: it counts on as many rows for each cond.

    For the host's own, and for what is around this forward, the rows are those of the call.
    """
    kinds = (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
    wrappers = (options["wrappers"].get(kind, {}) for kind in kinds)
    foreign = [found for table in wrappers for key, found in table.items() if key != KEY]
    patches = [options.get(name, {}) for name in ("patches", "patches_replace")]
    return any(foreign) or any(any(table.values()) for table in patches)


def _hook(options: Options, forward: Forward) -> Options:
    """Copy the options, every layer's attention wrapped; the caller's tables stay as they are."""
    tables: dict[str, dict[Any, Replacement]] = options.get("patches_replace", {})
    blocks = [Block(*block) for block in forward.people[0].person.identity]
    hooked = {**tables, "attn2": dict(tables.get("attn2", {}))}
    for block in blocks:
        hooked["attn2"][block] = make_attn2(forward, block, _foreign(tables, "attn2", block))
    if forward.reads_text:
        hooked["attn1"] = dict(tables.get("attn1", {}))
        for block in blocks:
            hooked["attn1"][block] = make_attn1(forward, block, _foreign(tables, "attn1", block))
    return {**options, "patches_replace": hooked}


def _foreign(
    tables: dict[str, dict[Any, Replacement]], name: str, block: Block
) -> Replacement | None:
    """The replacement that the host would have called for this block, if any."""
    table = tables.get(name, {})
    return table.get(block, table.get((block.stage, block.number)))


def make_attn1(forward: Forward, block: Block, foreign: Replacement | None) -> Replacement:
    """Mixed attention: the host's `attn1` replacement for one block.

    Around a foreign replacement only the style is applied: what it computes from q, k and v of
    equal length is its own affair, and twice as many keys would break it.
    """
    layout, style = forward.layout, forward.style
    mixing = forward.mixing if foreign is None else Mixing.OFF

    def attn1(q: Tensor, k: Tensor, v: Tensor, options: Options) -> Tensor:
        # HyperTile cuts the queries alone; the host's attention then cuts the keys as they lie.
        k, v = (x.reshape(q.shape[0], -1, x.shape[-1]) for x in (k, v))
        k_id, k_t = layout.part(k)
        v_id, v_t = layout.part(v)
        k_read, v_read = forward.read_text(block, k_t, v_t)
        k_mixed = mix(mixing, style, k_id, k_read).flatten(0, 2)
        v_mixed = mix(mixing, style, v_id, v_read).flatten(0, 2)
        k_t, v_t = k_t.flatten(0, 2), v_t.flatten(0, 2)
        if foreign is not None:
            return foreign(q, layout.join(k_mixed, k_t), layout.join(v_mixed, v_t), options)
        q_id, q_t = layout.split(q)
        attend = make_attend(options)
        identity = attend(q_id, k_mixed, v_mixed)
        if not layout.streams.has_text:
            return identity
        return layout.join(identity, attend(q_t, k_t, v_t))

    return attn1


def make_attn2(forward: Forward, block: Block, foreign: Replacement | None) -> Replacement:
    """Image cross-attention beside the text's: the host's `attn2` replacement for one block."""
    layout = forward.layout

    def attn2(q: Tensor, k: Tensor, v: Tensor, options: Options) -> Tensor:
        attend = make_attend(options)
        out = attend(q, k, v) if foreign is None else foreign(q, k, v, options).clone()
        identity, _ = layout.part(out)
        q_id, _ = layout.split(q)
        for acting in forward.people:
            person, application = acting.person, acting.person.application
            weight = application.weight_at(block) * acting.factor
            if weight == 0:
                continue
            k_id, v_id = _select_key_values(forward, person, block, q)
            if application.style_in_cross_attention:
                k_id = adapt(forward.style, k_id, layout.split(k)[0])
                v_id = adapt(forward.style, v_id, layout.split(v)[0])
            mask = _mask(forward, person, options["activations_shape"], like=q)
            bias = _bias(forward, person, like=q)
            add_image_attention(identity, q_id, k_id, v_id, attend, weight, mask, bias)
        return out

    return attn2


def make_attend(options: Options) -> Attend:
    """The attention that the host would use in this layer, overrides included.

    Raises:
        ValueError: if another node replaced the attention blocks: they may cut the batch, and what
            the rows are is unknown then.
    """
    if "attn_precision" not in options:
        raise ValueError(
            "Infinite-ID: another node has put attention blocks of its own into this model, such "
            "as a Reference ControlNet of ComfyUI-Advanced-ControlNet, and identities cannot be "
            "drawn through them. Take that node out, or Apply Infinite-ID."
        )

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return optimized_attention(
            q,
            k,
            v,
            options["n_heads"],
            mask=bias,
            attn_precision=options["attn_precision"],
            transformer_options=options,
        )

    return attend


def _select_key_values(
    forward: Forward, person: Person, block: Block, like: Tensor
) -> tuple[Tensor, Tensor]:
    """K', V' for the identity rows: the identity in positive chunks, no identity in the others.

    A stack of n photos attends to n times the unconditional tokens, which is as good as once.
    """
    streams = forward.streams

    def select(identity: Tensor, nothing: Tensor) -> Tensor:
        identity = identity.to(like)
        chunks = []
        if any(forward.positive):
            rows = streams.identity // len(identity)
            chunks.append(repeat(identity, "p l d -> (p r) l d", r=rows))
        if not all(forward.positive):
            nothing = nothing.to(like, non_blocking=True)
            photos = identity.shape[1] // nothing.shape[1]
            chunks.append(repeat(nothing, "1 l d -> r (n l) d", r=streams.identity, n=photos))
        return torch.cat([chunks[0 if positive else -1] for positive in forward.positive])

    (k, v), (k_nothing, v_nothing) = person.identity[block], person.nothing[block]
    return select(k, k_nothing), select(v, v_nothing)


def _bias(forward: Forward, person: Person, like: Tensor) -> Tensor | None:
    """The tokens' shares for the identity rows, `(chunks * identity, 1, tokens)`."""
    if person.bias is None:
        return None
    key = ("bias", forward.streams.identity, *forward.positive, like.device, like.dtype)
    if key not in person.cache:
        rows = forward.streams.identity // len(person.bias)
        identity = repeat(person.bias, "p 1 l -> (p r) 1 l", r=rows)
        alike = torch.zeros_like(identity)
        chunks = [identity if positive else alike for positive in forward.positive]
        person.cache[key] = torch.cat(chunks).to(like)
    return person.cache[key]


def _mask(forward: Forward, person: Person, shape: list[int], like: Tensor) -> Tensor | None:
    """A person's mask for the identity rows, `(chunks * identity, tokens, 1)`."""
    if person.mask is None:
        return None
    grid = (shape[-2], shape[-1])
    latents, people = forward.streams.latents, forward.streams.people
    key = ("mask", latents, grid, *forward.areas, like.device, like.dtype)
    if key not in person.cache:
        masks = [mask_tokens(person.mask, forward.latent, area, grid) for area in forward.areas]
        chunks = [_fit(mask, latents).repeat(people, 1, 1) for mask in masks]
        person.cache[key] = torch.cat(chunks).to(like)
    return person.cache[key]


def _fit(masks: Tensor, latents: int) -> Tensor:
    """A mask for each latent of a batch: those there are, over and over."""
    return masks.repeat(-(-latents // masks.shape[0]), 1, 1)[:latents]
