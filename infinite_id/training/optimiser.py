"""The optimisers, and their state as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .settings import Optimiser


def make_optimiser(parameters: Iterable[nn.Parameter], settings: Optimiser) -> Any:
    """AdamW by torch, or with moments of 8 bits by bitsandbytes.

    Raises:
        UserError: if bitsandbytes is wanted and not installed.
    """
    return _find_class(settings)(
        list(parameters),
        lr=settings.rate,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
    )


def _find_class(settings: Optimiser) -> Any:
    if settings.kind == "adamw":
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UserError(
            f"optimiser.kind = adamw8bit needs bitsandbytes ({error}): `pip install bitsandbytes`, "
            "or set it to adamw."
        ) from error
    return AdamW8bit


def list_state(state: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """A parameter's state by name; whole numbers as tensors."""
    for name, value in state.items():
        yield name, value if isinstance(value, Tensor) else torch.tensor(value)


def read_state(name: str, x: Tensor, settings: Optimiser) -> Any:
    """Undo `list_state`: bitsandbytes counts its steps by a whole number, torch by a tensor."""
    return int(x) if name == "step" and settings.kind == "adamw8bit" else x
