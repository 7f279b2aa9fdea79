"""The text stream of earlier runs, as one sampling run finds it and adds to it."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .archive import GIGABYTE, Archive, Record
from .conds import Conds, strip
from .fingerprint import Fingerprint, IncomparableError, digest
from .keys import KEY, STAGED

log = logging.getLogger(__name__)

_INNER = (WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
_TABLES = ("wrappers", "callbacks")


class Recollection:
    """Finds the text stream of each evaluation in an archive, and adds what is new to it.

    The key of an evaluation is all that its text rows are made of, their latents included. A
    sampler that lets the rows of a batch act on each other gives them other latents for another
    person, and finds nothing.

    Attributes:
        found: how many evaluations were recalled.
        ran: how many ran with text rows.
        missed: how many of these did not find room to be kept.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._fingerprint = Fingerprint()
        self._is_on = True
        self.found = self.ran = self.missed = 0
        archive.begin(self)

    def stop(self, reason: str) -> None:
        """From now on neither find nor keep anything; say why."""
        if self._is_on:
            self._is_on = False
            log.warning("Infinite-ID Save Time does not remember the text stream: %s.", reason)

    def make_key(
        self,
        patcher: ModelPatcher,
        groups: Sequence[Conds | None],
        rows: tuple[Tensor, Tensor],
        model_options: dict[str, Any],
        course: Hashable,
    ) -> Hashable:
        """Return the key of an evaluation; None if it is not to be remembered.

        Args:
            rows: latents and noise levels of the text rows, `(latents, c, h, w)` and `(latents,)`.
            course: see `read_course`.
        """
        if not self._is_on:
            return None
        of = self._fingerprint.of
        try:
            model = of(list(_list_model(patcher)))
            options = of(_read_options(model_options))
            conds = of([None if group is None else list(map(strip, group)) for group in groups])
        except IncomparableError as error:
            self.stop(f"{error} may change it, and cannot be compared with what it did before")
            return None
        return model, options, conds, *((x.shape, x.dtype, digest(x)) for x in rows), course

    def find(self, key: Hashable, needs_layers: bool) -> Record | None:
        """Return what was kept of an evaluation, on the CPU; None if it was not."""
        record = self._archive.find(key)
        return None if record is None or (needs_layers and not record.layers) else record

    def begin(self) -> Record:
        """Return an empty record for an evaluation that is about to run."""
        return Record(self._archive)

    def keep(self, key: Hashable, record: Record, denoised: Sequence[Tensor]) -> None:
        """Keep an evaluation with the prediction for each group, `(latents, c, h, w)`."""
        record.finish(key, denoised)
        self.ran += 1
        self.missed += not record.is_whole

    def describe(self) -> str | None:
        """Say what was recalled and what was kept; None if nothing was to be remembered."""
        count = self.found + self.ran
        if not count:
            return None
        size, limit = (x / GIGABYTE for x in (self._archive.nbytes, self._archive.limit))
        text = f"text stream recalled in {self.found} of {count} evaluations, {size:.2f} GB kept"
        if not self.missed:
            return text
        return f"{text}; {self.missed} found no room within remember_text's {limit:g} GB"


def _list_model(patcher: ModelPatcher) -> Iterator[Any]:
    """What makes the model what it is: its weights, its patches, where and how it runs.

    Raises:
        IncomparableError: if another node has put something into its modules.
    """
    for foreign in (patcher.injections, getattr(patcher, "weight_wrapper_patches", {})):
        for name in foreign:
            raise IncomparableError(f"another node ({name})")
    yield patcher
    yield patcher.object_patches
    yield patcher.load_device
    yield patcher.model.get_dtype()
    yield patcher.model.manual_cast_dtype


def _read_options(model_options: dict[str, Any]) -> dict[str, Any]:
    """Select the options that act within an evaluation.

    Raises:
        IncomparableError: if another node is around the model.
    """
    wrapper = model_options.get("model_function_wrapper")
    if wrapper is not None:
        name = getattr(wrapper, "__qualname__", type(wrapper).__qualname__)
        raise IncomparableError(f"another node around the model ({name})")
    options = model_options["transformer_options"]
    for kind in _INNER:
        for key, found in options["wrappers"].get(kind, {}).items():
            if found and key == STAGED:
                raise IncomparableError("Apply Staged Identity")
            if found and key != "torch.compile" and not str(key).startswith(KEY):
                raise IncomparableError(f"another node around the model ({key})")
    return {
        name: value
        for name, value in options.items()
        if name not in _TABLES and not str(name).startswith(KEY)
    }


def stop_for(recollection: Recollection, sampler: Any) -> None:
    """Remember nothing for a sampler whose steps depend on the whole batch."""
    name = getattr(getattr(sampler, "sampler_function", None), "__name__", "")
    if "dpm_adaptive" in name:
        recollection.stop("the sampler dpm_adaptive sizes its steps by both streams")
