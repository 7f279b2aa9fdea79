"""A new adapter that begins with parts of another one, of any format that the pack reads.

| file | K', V' | face mapper | CLIP mapper |
|---|---|---|---|
| native Infinite-ID | taken | taken | taken |
| IP-Adapter FaceID | taken | taken | fresh |
| FaceID PlusV2 | taken | taken, without what it reads in the CLIP states | fresh |
| Plus Face | taken | fresh | fresh |
| InstantID | taken | fresh | fresh |

A part is taken if all its tensors have the new adapter's shapes, and is fresh otherwise. A LoRA of
the file acts on the model and is not taken.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ..adapters.adapter import Adapter
from ..adapters.mappers import IdentityMapper
from ..adapters.mappers.native import FaceMapper

FACE, CLIP = "face mapper", "CLIP mapper"


@dataclass(frozen=True)
class Taken:
    """What happened to each part, in words.

    Attributes:
        taken: the parts that were copied.
        fresh: the parts that begin anew, each with the reason.
        unused: what else the file holds.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


@torch.no_grad()
def take_over(adapter: Adapter, source: Adapter) -> Taken:
    """Copy into an adapter the parts of another one that fit it.

    Args:
        adapter: for the same layers as the source, see `adapter.check_fits`; it is changed.
    """
    adapter.layers.load_state_dict(source.layers.state_dict())
    taken, fresh = [f"K', V' of {len(adapter.config.layers)} layers"], []
    theirs = _list_parts(source.mapper)
    for name, part in _list_parts(adapter.mapper).items():
        reason = _copy(part, theirs[name]) if name in theirs else "the file has none"
        if reason:
            fresh.append(f"{name} ({reason})")
        else:
            taken.append(name)
    return Taken(tuple(taken), tuple(fresh), tuple(_list_unused(source)))


def _list_parts(mapper: nn.Module) -> dict[str, nn.Module]:
    if isinstance(mapper, IdentityMapper):
        return {FACE: mapper.face, CLIP: mapper.clip}
    return {FACE: mapper} if isinstance(mapper, FaceMapper) else {}


def _copy(part: nn.Module, source: nn.Module) -> str:
    """Copy the tensors of a part. If they do not fit, return why; else an empty text."""
    theirs, own = source.state_dict(), part.state_dict()
    for name, x in own.items():
        if x.shape != theirs[name].shape:
            shapes = " and not ".join(str(tuple(y.shape)) for y in (theirs[name], x))
            return f"its {name} is {shapes}"
    part.load_state_dict({name: theirs[name] for name in own})
    return ""


def _list_unused(source: Adapter) -> list[str]:
    unused = ["LoRA"] if source.lora is not None else []
    rest = {name.partition(".")[0] for name in source.mapper.state_dict()}
    if not isinstance(source.mapper, IdentityMapper):
        known = {"proj", "norm"} if isinstance(source.mapper, FaceMapper) else set()
        unused += ["resampler"] if rest - known else []
    return unused
