"""The host's CLIP text encoders: their tables, and prompts that hold a person's rows.

Rows go into a prompt as the host's own `embedding:name` does: as tensors among the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import torch
from comfy.sd import CLIP
from comfy.sd1_clip import SDClipModel
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .celebs import (
    CelebSpace,
    Name,
    NamesError,
    Tokenise,
    check_known,
    find_tokens,
    measure,
    take_rows,
)
from .mapper import Rows
from .word_file import KEYS


class ClipError(ValueError):
    """Text encoders that no words can be learnt for; the message says which can."""

    __module__ = "infinite_id"  # the page shows it; as a node pack's it would be a path


def list_encoders(clip: CLIP) -> dict[str, Any]:
    """The text encoders by the host's keys.

    Raises:
        ClipError: if there is another kind among them, as in SD3 and Flux.
    """
    own = {
        name: module
        for name, module in clip.cond_stage_model.named_children()
        if isinstance(module, SDClipModel)
    }
    if not own or not {*own} <= {*KEYS}:
        raise ClipError(
            "Words are learnt for the CLIP text encoders of SD 1.5, SD 2.1 and SDXL alone, and "
            f"this CLIP is a {type(clip.cond_stage_model).__name__} with "
            f"{', '.join(own) or 'none of them'}. Connect such a model's CLIP; the words then work "
            "with other models that share it."
        )
    return own


def read_table(encoder: Any) -> Tensor:
    """The token embeddings `(vocabulary, d)`."""
    table: Tensor = encoder.transformer.get_input_embeddings().weight
    return table.detach()


def digest_tables(clip: CLIP) -> dict[str, str]:
    """What tells token tables apart, by encoder; the same in float32 and float16."""
    return {key: _digest(read_table(encoder)) for key, encoder in list_encoders(clip).items()}


def _digest(table: Tensor) -> str:
    numbers: Any = table.cpu().half().contiguous().view(torch.uint8).numpy()
    return sha256(numbers).hexdigest()


def measure_names(clip: CLIP, names: Sequence[Name]) -> dict[str, CelebSpace]:
    """The celeb space of each text encoder, of the names that all of them know.

    Raises:
        NamesError: if too few names are known.
    """
    tables = {key: read_table(x).cpu() for key, x in list_encoders(clip).items()}
    tokens = {
        key: find_tokens(names, _tokeniser(clip, key), table) for key, table in tables.items()
    }
    shared = [name for name in names if all(name in found for found in tokens.values())]
    check_known(shared, names)
    return {
        key: measure(take_rows(table, [tokens[key][name] for name in shared]))
        for key, table in tables.items()
    }


def find_placeholder(clip: CLIP, names: Sequence[Name]) -> Name:
    """A name of which each word is one token to all encoders. Raises NamesError if none is."""
    tokenisers = [_tokeniser(clip, key) for key in list_encoders(clip)]
    for name in names:
        if all(len(tokenise(word)) == 1 for tokenise in tokenisers for word in name):
            return name
    raise NamesError("No name is known to this CLIP; give some in 'names', one a line.")


def _tokeniser(clip: CLIP, key: str) -> Tokenise:
    """A text encoder's tokens of a word, as the host's tokenizer cuts them out."""
    own = getattr(clip.tokenizer, key)

    def tokenise(word: str) -> Sequence[int]:
        tokens: list[int] = own.tokenizer(word)["input_ids"]
        return tokens[own.tokens_start : -1 if own.tokenizer_adds_end_token else None]

    return tokenise


class Prompts:
    """Prompts through the text encoders, with gradients to a person's rows."""

    def __init__(self, clip: CLIP, names: Sequence[Name]) -> None:
        """
        Args:
            clip: ordinary tensors, loaded; see `make_differentiable` for gradients.
            names: a known one of them holds the person's place while a prompt is tokenised.

        Raises:
            NamesError: if none is known.
        """
        self._clip = clip
        self._keys = list(list_encoders(clip))
        self._place = find_placeholder(clip, names)

    def encode(self, prompt: str, rows: Rows | None) -> tuple[Tensor, Tensor]:
        """Context `(1, l, width)` and pooled vector `(1, w)`, as the host's CLIP Text Encode.

        Args:
            prompt: with `{}` for the person, if there are rows.
            rows: `(2, d)` of each text encoder.
        """
        tokens = self.tokenise(prompt, rows)
        clip, model = self._clip, self._clip.cond_stage_model
        # As CLIP.encode_from_tokens, which would load the encoders anew, and so unload others.
        model.reset_clip_options()
        if clip.layer_idx is not None:
            model.set_clip_options({"layer": clip.layer_idx})
        model.set_clip_options({"execution_device": clip.patcher.load_device})
        context, pooled = model.encode_token_weights(tokens)[:2]
        return context, pooled

    def tokenise(self, prompt: str, rows: Rows | None) -> dict[str, Any]:
        """The host's tokens of a prompt, with the person's rows in their place."""
        tokens: dict[str, Any] = self._clip.tokenize(prompt.format(" ".join(self._place)))
        if rows is None:
            return tokens
        return {
            short: [self._put(part, f"clip_{short}", rows) for part in parts]
            for short, parts in tokens.items()
        }

    def _put(self, part: list[Any], key: str, rows: Rows) -> list[Any]:
        tokenise = _tokeniser(self._clip, key)
        wanted = [token for word in self._place for token in tokenise(word)]
        done = list(part)
        for n in range(len(part) - len(wanted) + 1):
            if [token for token, *_ in part[n : n + len(wanted)]] == wanted:
                for i, row in enumerate(rows[key]):
                    done[n + i] = (row, *part[n + i][1:])
        return done


def make_differentiable(clip: CLIP, twice: bool) -> None:
    """Change copied text encoders so that gradients pass through them.

    The host's layers add in place to what their norms need for the gradient: the norms get copies.

    Args:
        twice: keep no activations inside layers; compute them again for the gradient.
    """
    for encoder in list_encoders(clip).values():
        for layer in encoder.transformer.text_model.encoder.layers:
            for norm in (layer.layer_norm1, layer.layer_norm2):
                norm.register_forward_pre_hook(_copy_input)
            if twice:
                _compute_twice(layer)


def _copy_input(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].clone(), *inputs[1:])


def _compute_twice(layer: Any) -> None:
    forward = layer.forward

    def twice(x: Tensor, *rest: Any) -> Any:
        def run(x: Tensor) -> Any:
            return forward(x.clone(), *rest)

        return checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)

    layer.forward = twice
