"""Combines several identities into one, and two into a row from one to the other."""

from collections.abc import Callable, Sequence

import torch
from comfy_api.latest import io

from ..infinite_id.identities import mixing
from ..infinite_id.identities.identity import Identity
from . import sockets
from .node import Node


class MixIdentities(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDMix",
            display_name="Mix Identities",
            category=sockets.CATEGORY,
            description="Stacks two identities into one, as the paper mixes people; for more, put "
            "one node after another. The mix has both sets of tokens, and the picture takes from "
            "both.",
            search_aliases=["merge faces", "stack identities", "combine identities"],
            inputs=[
                sockets.Identity.Input("identity_a", tooltip="From Encode or Load Identity."),
                sockets.Identity.Input("identity_b", tooltip="From Encode or Load Identity."),
                _weight("weight_a", "first"),
                _weight("weight_b", "second"),
            ],
            outputs=[
                sockets.Identity.Output(
                    "identity", display_name="identity", tooltip="For Apply Infinite-ID."
                )
            ],
        )

    @classmethod
    def execute(
        cls, identity_a: Identity, identity_b: Identity, weight_a: float, weight_b: float
    ) -> io.NodeOutput:
        return io.NodeOutput(mixing.stack([identity_a, identity_b], [weight_a, weight_b]))


def _weight(name: str, which: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=1.0,
        min=0.0,
        max=10.0,
        step=0.05,
        tooltip=f"How much the {which} identity counts beside the other. 0 leaves it out.",
    )


Blend = Callable[[Sequence[Identity], Sequence[float]], Identity]
BLENDS: dict[str, Blend] = {
    "linear": mixing.interpolate,
    "spherical (face vector)": mixing.interpolate_faces,
    "stack": mixing.cross_fade,
}


class BlendIdentities(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDBlend",
            display_name="Blend Identities",
            category=sockets.CATEGORY,
            description="In-betweens of two to four identities. With a count above 1 it is a "
            "sweep: Apply Infinite-ID and one sampler then draw the whole row from one latent, "
            "with the same noise, beside a single text stream.",
            search_aliases=["interpolate identities", "identity sweep", "morph faces"],
            inputs=[
                sockets.Identity.Input("identity_a", tooltip="The row begins here."),
                sockets.Identity.Input("identity_b", tooltip="The next one on the way."),
                io.Int.Input(
                    "count",
                    default=5,
                    min=1,
                    max=64,
                    tooltip="How many identities, evenly spaced from 'start' to 'end', both "
                    "included; 1 gives the one at 'start'. Each costs a picture.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(BLENDS),
                    tooltip="'linear' goes straight from token to token (the paper). 'spherical "
                    "(face vector)' turns the face recogniser's vector and maps each anew. "
                    "'stack' has the tokens of both and fades their weights.",
                ),
                _place("start", 0.0, "begins"),
                _place("end", 1.0, "ends"),
                *(
                    sockets.Identity.Input(
                        f"identity_{letter}", optional=True, tooltip="A further one on the way."
                    )
                    for letter in "cd"
                ),
            ],
            outputs=[
                sockets.Identity.Output(
                    "identities", display_name="identities", tooltip="For Apply Infinite-ID."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        identity_a: Identity,
        identity_b: Identity,
        count: int,
        method: str,
        start: float,
        end: float,
        identity_c: Identity | None = None,
        identity_d: Identity | None = None,
    ) -> io.NodeOutput:
        keys = [identity_a, identity_b, identity_c, identity_d]
        given = [key for key in keys if key is not None]
        if any(key.count > 1 for key in given):
            raise ValueError("Blend Identities: a sweep cannot be blended again; connect its keys.")
        places = torch.linspace(start, end, count, dtype=torch.float64) * (len(given) - 1)
        return io.NodeOutput(BLENDS[method](given, places.tolist()))


def _place(name: str, default: float, verb: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip=f"Where the row {verb}: 0 is the first identity, 1 the last.",
    )
