"""One evaluation as the host asks for it, and how it is run on some of its rows and conds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from .conds import Conds
from .control import control_copies
from .keys import EVALUATION, RUN
from .run import Evaluation
from .text_stream import MissingError


@dataclass(frozen=True)
class Request:
    """What the host asks for: an evaluation of groups of conds on the sampler's batch."""

    executor: WrapperExecutor
    model: Any
    groups: list[Conds | None]
    x: Tensor
    timestep: Tensor
    model_options: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = self.model_options["transformer_options"]
        return options

    def run(self, evaluation: Evaluation) -> list[Tensor]:
        """Run the host's evaluation of all groups as `evaluation` says, on as many rows.

        The UNet runs in full if the deep features to recall are missing.
        """
        deep, step, signature = self.options[RUN].deep, evaluation.step, self.signature
        if step is None:
            return self._run(evaluation)
        step = replace(step, key=(signature, step.number))
        if not step.is_full and deep.is_found(signature):
            try:
                denoised = self._run(replace(evaluation, step=step))
            except MissingError:
                deep.miss(signature)
            else:
                deep.find(signature)
                return denoised
        deep.note_full()
        return self._run(replace(evaluation, step=replace(step, is_full=True)))

    def _run(self, evaluation: Evaluation) -> list[Tensor]:
        evaluation = replace(evaluation, calls=Counter())
        options = {**self.options, EVALUATION: evaluation}
        noted = {**self.model_options, "transformer_options": options}
        rows = evaluation.streams.rows
        if "model_function_wrapper" in noted:
            noted["model_function_wrapper"] = _check_rows(noted["model_function_wrapper"])
        groups = control_copies(self.groups, evaluation.streams.copies)
        return self.executor(self.model, groups, self.x[:rows], self.timestep[:rows], noted)

    def only(self, kept: Callable[[int], bool]) -> Request:
        """Return this request with some of the groups; the host returns zeros for the others."""
        groups = [group if kept(index) else None for index, group in enumerate(self.groups)]
        return replace(self, groups=groups)

    @property
    def signature(self) -> Hashable:
        """Tells apart requests at one noise level, such as one with perturbed layers."""
        tables = self.options.get("patches_replace", {})
        replaced = frozenset(
            (name, place, _tell(function))
            for name, table in tables.items()
            for place, function in table.items()
        )
        patches = self.options.get("patches", {})
        listed = frozenset((name, tuple(map(_tell, own))) for name, own in patches.items())
        sizes = tuple(None if group is None else len(group) for group in self.groups)
        return tuple(self.x.shape), sizes, replaced, listed

    @property
    def is_wrapped(self) -> bool:
        """Whether another node wraps the model. It may cut the picture or move it."""
        around = self.options["wrappers"].get(WrappersMP.APPLY_MODEL, {})
        return "model_function_wrapper" in self.model_options or len(around) > 1


def _tell(function: Any) -> Hashable:
    """Identify another node's function, even if the node makes it anew at each step."""
    function = getattr(function, "func", function)  # if it is a partial
    kind: Any = type(function)
    code: Hashable = getattr(function, "__code__", kind)
    return code


def _check_rows(wrapper: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap another node's model wrapper to check that it returns as many rows as it is given."""

    def run(apply_model: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        out = wrapper(apply_model, given)
        if len(out) != len(given["input"]):
            raise ValueError(
                f"Infinite-ID: another node around the model, such as a cache, gave {len(out)} "
                f"rows where there are {len(given['input'])} now. Take that node out, or "
                "Infinite-ID Save Time; set end_percent in Apply Infinite-ID to 1."
            )
        return out

    return run
