"""The same noise in both streams: random numbers are drawn once for each latent.

A sampler sees several copies of every latent, see `streams`. Each random number that it draws for
the first copy is given to all copies. The generators advance as they would for the latents alone.
So the identity stream gets exactly the numbers that it would get without a text stream.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.overrides import _pop_mode as _pop_function_mode
from torch.overrides import _push_mode as _push_function_mode
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode
from torch.utils._pytree import tree_map_only

from .streams import Streams

_Call = Callable[..., Any]


@dataclass
class _Draws:
    """Draws for single latents, one after another from one place in the sampler's code.

    Attributes:
        count: how many there were since the model was last evaluated.
        kept: for each latent, what was drawn and the generator's state before it.
    """

    count: int = 0
    kept: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)


class SharedNoise(TorchFunctionMode):
    """While active, random numbers for the batch are the same for all copies of a latent.

    The mode acts in this thread alone. It sees each call of a torch function from Python, and runs
    it under a second mode, which sees the random operators inside the function.
    """

    def __init__(self, streams: Streams, shape: Sequence[int]) -> None:
        """`shape` is the latents', `(latents, channels, height, width)`."""
        super().__init__()
        self._operators = _Operators(streams, tuple(shape[1:]))
        self._pauses = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether calls got repeated numbers but turned out not to be one call for each row."""
        return self._operators.is_doubtful

    def __torch_function__(
        self,
        func: _Call,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # Not by `with`, which would tell the whole process that a dispatch mode is active.
        _push_mode(self._operators)
        try:
            return func(*args, **(kwargs or {}))
        finally:
            _pop_mode()

    def __exit__(self, *exception: Any) -> None:
        """Leave this mode, wherever it is on the stack: other modes may have come or gone."""
        _take_out(self)

    @contextmanager
    def paused(self, shape: Sequence[int]) -> Iterator[None]:
        """Suspend the mode, so that a model's forward neither pays for it nor draws shared noise.

        `shape` is the shape of the model's input: some samplers make the latents larger as they go.
        A guider may evaluate another guider, so pauses can be nested. The inner one does nothing.
        """
        self._pauses += 1
        place = _take_out(self) if self._pauses == 1 else None
        self._operators.begin(tuple(shape[1:]))
        try:
            yield
        finally:
            self._pauses -= 1
            if place is not None:
                _put_in(self, place)


def _take_out(mode: TorchFunctionMode) -> int | None:
    """Remove a mode from this thread's stack. Return its place from below, None if not found."""
    stack = _get_current_function_mode_stack()
    place = next((i for i, found in enumerate(stack) if found is mode), None)
    if place is not None:
        above = [_pop_function_mode() for _ in stack[place:]][:-1]
        for other in reversed(above):
            _push_function_mode(other)
    return place


def _put_in(mode: TorchFunctionMode, place: int) -> None:
    above = [_pop_function_mode() for _ in _get_current_function_mode_stack()[place:]]
    for one in (mode, *reversed(above)):
        _push_function_mode(one)


class _Operators(TorchDispatchMode):
    """Draws random operators for the latents and gives the numbers to their copies."""

    def __init__(self, streams: Streams, latent: tuple[int, ...]) -> None:
        super().__init__()
        self._streams = streams
        self._latent = latent
        self._single: dict[Any, _Draws] = {}
        self.is_doubtful = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, seconds long

    def begin(self, latent: tuple[int, ...]) -> None:
        """Note that the model is evaluated: later draws for single latents are new noise."""
        rows, latents = self._streams.rows, self._streams.latents
        counts = [draws.count for draws in self._single.values()]
        self.is_doubtful |= any(count > latents and count % rows for count in counts)
        self._latent = latent
        self._single.clear()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in getattr(func, "tags", ()):
            return func(*args, **kwargs)
        shapes = [shape for shape in map(_shape, (*args, *kwargs.values())) if shape is not None]
        for shape in shapes:
            if (axis := self._batch_axis(shape)) is not None:
                return self._draw_batch(_Draw(func, args, kwargs), axis)
        if any(shape in (self._latent, (1, *self._latent)) for shape in shapes):
            return self._draw_single(_Draw(func, args, kwargs))
        return func(*args, **kwargs)

    def _batch_axis(self, shape: tuple[int, ...]) -> int | None:
        """The axis along which a tensor of this shape has all rows; None if it is no batch.

        A batch may be the sampler's own, the same with its first axes folded into one, or one such
        batch for each step. It may have other channels, another size, or no channels.
        """
        rows, latent = self._streams.rows, self._latent
        for axis in (0, 1):
            if shape[axis:] == (rows, *latent):
                return axis
        if shape == latent or not shape:
            return None
        folded = [rows * prod(latent[:n]) for n in range(len(latent) + 1)]
        if shape[0] in folded and prod(shape) == rows * prod(latent):
            return 0
        without_channels = len(shape) == len(latent) and rows != latent[0]
        is_batch = len(shape) == len(latent) + 1 or without_channels
        return 0 if shape[0] == rows and is_batch else None

    def _draw_batch(self, draw: "_Draw", axis: int) -> Any:
        """Draw for the first copy of each latent as if it was the only one, then for the others."""
        copies = self._streams.copies

        def part(copy: int) -> "_Draw":
            def cut(x: Any) -> Any:
                shape = _shape(x)
                own = None if shape is None else self._batch_axis(shape)
                if shape is None or own is None:
                    return x
                length = shape[own] // copies
                if isinstance(x, Tensor):
                    return x.narrow(own, copy * length, length)
                return [*shape[:own], length, *shape[own + 1 :]]

            return draw.map(cut)

        parts = [part(copy) for copy in range(copies)]
        state = draw.state()
        outs = [parts[0].run()]
        for one in parts[1:]:
            outs.append(one.repeat(outs[0], state))
        if draw.written is not None:
            return draw.written
        if isinstance(outs[0], Tensor):
            return torch.cat(outs, axis)
        return type(outs[0])(torch.cat(each, axis) for each in zip(*outs, strict=True))

    def _draw_single(self, draw: "_Draw") -> Any:
        """Draw for one row. Rows of first copies get new numbers, which the other copies repeat.

        The place of the call in the sampler's code tells whether calls go over the rows. A draw for
        all rows at once comes once from its place between two evaluations of the model.
        """
        draws = self._single.setdefault((draw.func, _find_caller()), _Draws())
        row = draws.count % self._streams.rows
        draws.count += 1
        if row < self._streams.latents:
            if row == 0:
                draws.kept.clear()
            state = draw.state()
            out = draw.run()
            draws.kept.append((out.clone(), state))
            return out
        kept, state = draws.kept[row % self._streams.latents]
        return draw.repeat(kept, state)


@dataclass(frozen=True)
class _Draw:
    """A call of a random operator."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def written(self) -> Tensor | None:
        """The tensor that the call fills and returns; None if the call makes a new one."""
        if not self.func._schema.is_mutable:
            return None
        out: Tensor = self.kwargs["out"] if "out" in self.kwargs else self.args[0]
        return out

    @property
    def is_plain(self) -> bool:
        """Whether the values do not depend on those of a tensor."""
        if self.func._schema.name.endswith("_like"):
            return True
        given = (*self.args, *self.kwargs.values())
        return not any(isinstance(x, Tensor) and x is not self.written for x in given)

    @property
    def _generator(self) -> torch.Generator | None:
        given = (*self.args, *self.kwargs.values())
        return next((x for x in given if isinstance(x, torch.Generator)), None)

    def map(self, function: Callable[[Any], Any]) -> "_Draw":
        args = tuple(function(x) for x in self.args)
        return _Draw(self.func, args, {name: function(x) for name, x in self.kwargs.items()})

    def run(self) -> Any:
        return self.func(*self.args, **self.kwargs)

    def repeat(self, out: Any, state: Tensor | None) -> Any:
        """Make the call again with the numbers that gave `out` from the generator's `state`."""
        if self.is_plain:
            if self.written is None:
                return tree_map_only(Tensor, torch.clone, out)
            return self.written.copy_(out)
        assert state is not None  # it was kept, since this call is not plain
        now = self._state()
        self._set_state(state)
        try:
            return self.run()
        finally:
            self._set_state(now)

    def state(self) -> Tensor | None:
        """The generator's state, for `repeat`; None for plain calls, which do not need it."""
        return None if self.is_plain else self._state()

    def _state(self) -> Tensor:
        generator = self._generator
        state: Tensor = (self._random.get_rng_state if generator is None else generator.get_state)()
        return state

    def _set_state(self, state: Tensor) -> None:
        generator = self._generator
        (self._random.set_rng_state if generator is None else generator.set_state)(state)

    @property
    def _random(self) -> Any:
        """Torch's module for the generator of the device on which the numbers are drawn."""
        tensors = [x for x in (*self.args, *self.kwargs.values()) if isinstance(x, Tensor)]
        device = torch.device(self.kwargs.get("device") or "cpu")
        kind = (tensors[0].device if tensors else device).type
        return torch.random if kind == "cpu" else getattr(torch, kind)


def _shape(x: Any) -> tuple[int, ...] | None:
    """The shape of a tensor, or of a size argument such as `[2, 4]`; None for anything else."""
    if isinstance(x, Tensor):
        return tuple(x.shape)
    is_size = isinstance(x, list | tuple) and len(x) > 0 and all(isinstance(n, int) for n in x)
    return tuple(x) if is_size else None


def _find_caller() -> tuple[tuple[Any, int], ...]:
    """The chain of calls that leads here: the same for each turn of a loop."""
    chain = []
    frame: FrameType | None = sys._getframe(3)
    while frame is not None:
        chain.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(chain)
