"""The same noise for both streams, whatever sampler draws it, and however.

Samplers see the rows of all streams as one batch and draw noise for it. Each stream must get what
it would get alone: so noise is drawn for one copy of the latents and repeated.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from types import CodeType, FrameType
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode

from .streams import Streams

log = logging.getLogger(__name__)

# PyTorch's random functions, of the module and of tensors; those in place end in an underscore.
DRAWS = frozenset(
    (
        *("rand", "randn", "randint", "normal", "rand_like", "randn_like", "randint_like"),
        *("bernoulli", "binomial", "poisson", "_standard_gamma", "_sample_dirichlet"),
        *("normal_", "uniform_", "exponential_", "cauchy_", "log_normal_", "geometric_"),
        *("random_", "bernoulli_", "trunc_normal_"),
    )
)

Draw = Callable[[], Tensor]
Place = tuple[tuple[CodeType, int], ...]
"""Where in a program something was called: each function on the stack, and how far it was."""


@dataclass
class _Row:
    """Draws of one latent at a time from one place, since the model ran last."""

    count: int = 0
    drawn: list[Tensor] = field(default_factory=list)


class SharedNoise(TorchFunctionMode):
    """While active, random tensors for all rows, or for one row after another, repeat in streams.

    The numbers are those that a single stream draws, in its order, from whatever generator. Noise
    that comes otherwise is left as it is, and the log says so once.

    Args:
        streams: rows of the batch.
        shape: of the latents, `(latents, c, h, w)`.
    """

    def __init__(self, streams: Streams, shape: Sequence[int]) -> None:
        super().__init__()
        self._streams = streams
        self._latent = tuple(shape[1:])
        self._rows: dict[Place, _Row] = {}
        self._is_paused = self._has_warned = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name not in DRAWS:
            return func(*args, **kwargs)
        shape = _find_shape(name, args, kwargs)
        if shape in (self._latent, (1, *self._latent)):
            return self._draw_row(lambda: func(*args, **kwargs), _find_place())
        if len(shape) > 1 and shape[0] == self._streams.rows:
            return self._draw_all(func, args, kwargs)
        if prod(shape) >= prod(self._latent):
            self._warn(f"{name}{list(shape)}")
        return func(*args, **kwargs)

    def _draw_all(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Draw for one copy of the latents, and repeat it for all rows."""
        latents, rows = self._streams.latents, self._streams.rows

        def shorten(value: Any) -> Any:
            if isinstance(value, Tensor) and value.ndim and len(value) == rows:
                return value[:latents]
            if isinstance(value, list | tuple) and len(value) > 1 and value[0] == rows:
                return (latents, *value[1:])
            return value

        if _has_size_in_args(func.__name__, args):
            args = (args,)
        short = {name: shorten(value) for name, value in kwargs.items()}
        single = func(*map(shorten, args), **short)
        spread = self._streams.spread(single)
        whole = kwargs.get("out")
        if whole is None and func.__name__.endswith("_"):
            whole = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        return spread if whole is None else whole.copy_(spread)

    def _draw_row(self, draw: Draw, place: Place) -> Tensor:
        """Draw for the next row, as a loop over the batch does, or again what its latent had."""
        row = self._rows.setdefault(place, _Row())
        if row.count < self._streams.latents:
            row.drawn.append(draw())
        found = row.drawn[row.count % self._streams.latents]
        row.count += 1
        if row.count == self._streams.rows:
            del self._rows[place]
        return found.clone()

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            log.warning(
                "Infinite-ID: this sampler draws noise as %s, and both streams may get different "
                "noise. Another sampler, or shared_latents in Infinite-ID Save Time, avoids that.",
                what,
            )
        self._has_warned = True

    def __exit__(self, *error: Any) -> None:
        self._remove()

    def _remove(self) -> list[TorchFunctionMode]:
        """Take this mode off the stack; return the modes that others have put above it."""
        above: list[TorchFunctionMode] = []
        while (mode := _pop_mode()) is not self:
            above.append(mode)
        for mode in reversed(above):
            _push_mode(mode)
        return above

    def _insert(self, above: int) -> None:
        """Put this mode back below so many others."""
        modes = [_pop_mode() for _ in range(above)]
        for mode in (self, *reversed(modes)):
            _push_mode(mode)

    @contextmanager
    def paused(self, shape: Sequence[int]) -> Iterator[None]:
        """Suspend the mode while the model runs on rows of a shape, which has no noise to share.

        A guider may evaluate another guider: the inner pause of a pause does nothing.
        """
        if self._is_paused:
            yield
            return
        self._latent = tuple(shape[1:])
        if any(1 < row.count < self._streams.rows for row in self._rows.values()):
            self._warn("some rows at a time")
        self._rows.clear()
        above = len(self._remove())
        self._is_paused = True
        try:
            yield
        finally:
            self._insert(above)
            self._is_paused = False


def _find_shape(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    """The shape that a random function's result will have."""
    if "size" in kwargs:
        return tuple(kwargs["size"])
    if _has_size_in_args(name, args):
        return args
    values = (*args, *kwargs.values())
    sizes = [tuple(value) for value in values if isinstance(value, list | tuple)]
    tensors = [tuple(value.shape) for value in values if isinstance(value, Tensor)]
    return max(sizes or tensors, key=len, default=())


def _has_size_in_args(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a size is given as several numbers, as in `torch.randn(2, 4, 8, 8)`."""
    return name in ("rand", "randn") and bool(args) and isinstance(args[0], int)


def _find_place() -> Place:
    """Where the program is, from the random function's caller on."""
    frame: FrameType | None = sys._getframe(2)
    place = []
    while frame is not None:
        place.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(place)
