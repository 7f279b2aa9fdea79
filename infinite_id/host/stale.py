"""Detects nodes that return the rows of an earlier forward, such as a careless cache.

Without this pack all forwards of a run have the same rows. With it the text rows come and go: a
person stops acting, or Save Time leaves the rows out. So the rows are counted in the UNet after all
patches of other nodes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

_ROWS = "infinite_id_forward_rows"


def count_rows(options: dict[str, Any], rows: int) -> dict[str, Any]:
    """Copy a forward's options and have each layer raise ValueError for a wrong number of rows."""
    patches: dict[str, list[Any]] = options.get("patches", {})
    counted = {name: [*patches.get(name, []), check] for name, check in _CHECKS.items()}
    return {**options, _ROWS: rows, "patches": {**patches, **counted}}


def refuse(found: int, rows: int) -> ValueError:
    """Return the error for a node that gave a wrong number of rows."""
    return ValueError(
        f"Infinite-ID: another node in the model's layers gave {found} rows where there are {rows} "
        "now, such as a cache that keeps what a layer gave in an earlier step (T-GATE). Take that "
        "node out, or Infinite-ID Save Time; set end_percent in Apply Infinite-ID to 1."
    )


# Functions of the module, not closures: new functions would have a model compiled again.


def _check(x: Tensor, options: dict[str, Any]) -> Tensor:
    if len(x) != options[_ROWS]:
        raise refuse(len(x), options[_ROWS])
    return x


def _check_embedding(x: Tensor, _channels: int, options: dict[str, Any]) -> Tensor:
    return _check(x, options)


def _check_middle(given: dict[str, Any]) -> dict[str, Any]:
    _check(given["h"], given["transformer_options"])
    return given


def _check_output(x: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return _check(x, options), _check(skip, options)


_CHECKS = {
    "emb_patch": _check_embedding,
    "attn1_output_patch": _check,
    "middle_patch": _check,
    "attn2_output_patch": _check,
    "input_block_patch": _check,
    "input_block_patch_after_skip": _check,
    "middle_block_after_patch": _check_middle,
    "output_block_patch": _check_output,
}
