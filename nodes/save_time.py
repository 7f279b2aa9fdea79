"""A node that saves time at the price of some faithfulness."""

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..infinite_id.host.patch import save_time
from ..infinite_id.savings import FEW, PRESETS, Preset, Savings
from . import sockets
from .node import Node, make_tell


class SaveTime(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDSaveTime",
            display_name="Infinite-ID Save Time",
            category=sockets.CATEGORY,
            description="Makes two streams cheaper at some cost in faithfulness: the deeper levels "
            "of the UNet or the text stream run less often. Without this node nothing is saved and "
            "nothing is lost.",
            search_aliases=["faster infinite-id", "speed up", "cache text stream", "deepcache"],
            inputs=[
                io.Model.Input("model", tooltip="Before or after Apply Infinite-ID."),
                io.Int.Input(
                    "text_every",
                    default=2,
                    min=1,
                    max=8,
                    tooltip="The text stream runs at every n-th step. In between the identity "
                    "stream reads what it was. 1: at every step, as in the paper. Above 1 its "
                    "keys and values are kept on the device.",
                ),
                io.Float.Input(
                    "mix_until",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="The share of the sampling after which the text stream ends and "
                    "nothing is mixed any more. 1: never.",
                ),
                io.Boolean.Input(
                    "text_guidance",
                    default=True,
                    tooltip="Off: the text stream does not run for the negative prompt, so that "
                    "its own picture goes without guidance.",
                ),
                io.Boolean.Input(
                    "shared_latents",
                    default=False,
                    tooltip="On: the text stream has no latents of its own and sees the person's "
                    "picture as it grows. For nodes that cut the batch into pieces, such as tiled "
                    "samplers; the inputs above have no effect then. Context windows need no "
                    "switch.",
                    optional=True,
                    advanced=True,
                ),
                io.Int.Input(
                    "deep_every",
                    default=1,
                    min=1,
                    max=8,
                    tooltip="All of the UNet runs at every n-th step. In between only its "
                    "outermost level runs, for both streams, with what the deeper levels said "
                    "last, which is kept on the device. 1: at every step. text_every then counts "
                    "the steps in full. Works without an identity, too.",
                    optional=True,
                ),
                io.Combo.Input(
                    "preset",
                    options=[preset.value for preset in Preset],
                    default=Preset.CUSTOM.value,
                    tooltip="'faithful' saves nothing. 'fast' is deep_every 2: a person for about "
                    "the price of the plain picture. 'draft' is deep_every 3, for trying prompts. "
                    "With these the inputs above have no effect, but for shared_latents; nor do "
                    f"they save anything in {FEW} steps or fewer. 'custom': as set above.",
                    optional=True,
                ),
                io.Float.Input(
                    "remember_text",
                    default=0.0,
                    min=0.0,
                    max=1024.0,
                    step=0.5,
                    tooltip="Gigabytes of the computer's memory in which the text stream is kept "
                    "from one queue to the next. If prompts, seed, sampler and model stay and only "
                    "the person, weight, mask or style changes, it is recalled: the same picture "
                    "for about the plain picture's price. Put this node before Apply Infinite-ID. "
                    "0: off. Not with deep_every above 1.",
                    optional=True,
                ),
                io.Float.Input(
                    "guidance_until",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    round=False,
                    tooltip="How alike (cosine) the predictions for the positive and the negative "
                    "prompt become before the negative one is left out, in both streams, for the "
                    "rest of the sampling. 1: never; about .99 saves a quarter of the work. Works "
                    "without an identity, too. With preset 'custom' alone.",
                    optional=True,
                    advanced=True,
                ),
                io.Float.Input(
                    "deep_change",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="A criterion instead of a clock: all of the UNet runs before its "
                    "deeper levels' output would have changed by more than this share, as fast as "
                    "it last changed, and at the latest after deep_every steps. 0: at every "
                    "deep_every-th step. The node shows how many ran in full. With preset "
                    "'custom' and deep_every above 1 alone.",
                    optional=True,
                    advanced=True,
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[io.Model.Output("patched", display_name="model", tooltip="For any sampler.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        text_every: int,
        mix_until: float,
        text_guidance: bool,
        shared_latents: bool = False,
        deep_every: int = 1,
        preset: str = Preset.CUSTOM.value,
        remember_text: float = 0.0,
        guidance_until: float = 1.0,
        deep_change: float = 0.0,
    ) -> io.NodeOutput:
        custom = Savings(
            text_every,
            mix_until,
            text_guidance,
            deep=deep_every,
            change=deep_change,
            agree=guidance_until,
        )
        chosen = PRESETS.get(Preset(preset), custom)
        savings = replace(chosen, shared=shared_latents, remember=remember_text)
        return io.NodeOutput(save_time(model, savings, make_tell(cls)))
