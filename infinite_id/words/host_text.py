"""The host's CLIP text encoders: their tables, and prompts that hold rows.

The host itself puts rows into a prompt, as it does for `embedding:name`. Its tokenizers are copied,
and the copies know more names.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import torch
from comfy.sd import CLIP
from comfy.sd1_clip import SDClipModel, SDTokenizer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .files import KEYS, Rows


class ClipError(ValueError):
    """Words cannot be learnt for these text encoders; the message says for which they can."""

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
    """Return a digest of the token table of each encoder; it is the same in float32 and float16."""
    return {key: _digest(read_table(encoder)) for key, encoder in list_encoders(clip).items()}


def _digest(table: Tensor) -> str:
    numbers: Any = table.cpu().half().contiguous().view(torch.uint8).numpy()
    return sha256(numbers).hexdigest()


def tokenise_word(clip: CLIP, key: str, word: str) -> list[int]:
    """Return a text encoder's tokens of a word, without the tokenizer's start and end."""
    own = getattr(clip.tokenizer, key)
    tokens: list[int] = own.tokenizer(word)["input_ids"]
    return tokens[own.tokens_start : -1 if own.tokenizer_adds_end_token else None]


def find_row(clip: CLIP, key: str, word: str) -> Tensor:
    """Return the row `(d,)` of a word in a text encoder's token table.

    Raises:
        ClipError: if the word is not one token, or was never trained.
    """
    tokens = tokenise_word(clip, key, word)
    row = read_table(getattr(clip.cond_stage_model, key))[tokens]
    if len(row) != 1 or not row.any():
        raise ClipError(
            f"'{word[:100]}' is no single word to this CLIP. Give one in 'noun' that it knows as "
            "one token, such as person, man, woman or dog."
        )
    return row[0]


_MARK = re.compile(r"infiniteidrows(\d+)x")


def mark(number: int) -> str:
    """Return the mark in a text for the rows of this number; see `tokenise`."""
    return f" embedding:infiniteidrows{number}x"  # the host finds an embedding by the space


def tokenise(clip: CLIP, text: str, rows: Sequence[Rows]) -> dict[str, Any]:
    """Tokenise a text as the host does, with rows `(m, d)` in the place of each mark.

    Args:
        rows: for each number of a mark, the rows of each text encoder.
    """
    speaking = copy.copy(clip)
    speaking.tokenizer = copy.copy(clip.tokenizer)
    for key, own in vars(clip.tokenizer).items():
        if isinstance(own, SDTokenizer):
            setattr(speaking.tokenizer, key, _teach(own, [one[key] for one in rows]))
    tokens: dict[str, Any] = speaking.tokenize(text)
    return tokens


def _teach(tokenizer: Any, rows: Sequence[Tensor]) -> Any:
    """Return a copy of a tokenizer that finds rows by their marks, and embeddings as before."""
    own = copy.copy(tokenizer)
    own.embedding_directory = tokenizer.embedding_directory or []  # else the host looks for none
    find = own._try_get_embedding

    def find_marked(name: str) -> tuple[Any, ...]:
        found = _MARK.match(name)
        if found is None:
            return find(name)
        _, *more, _ = find(found[0])  # newer hosts return the name as well
        return rows[int(found[1])], *more, name[found.end() :].strip()

    own._try_get_embedding = find_marked
    return own


class Prompts:
    """Prompts through the text encoders, with gradients to a person's rows."""

    def __init__(self, clip: CLIP) -> None:
        """
        Args:
            clip: ordinary tensors, loaded; see `make_differentiable` for gradients.
        """
        self._clip = clip

    def encode(self, prompt: str, rows: Rows | None) -> tuple[Tensor, Tensor]:
        """Return context `(1, l, width)` and pooled vector `(1, w)`, as CLIP Text Encode does.

        Args:
            prompt: with `{}` for the person, if there are rows.
            rows: `(m, d)` of each text encoder.
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
        """Tokenise a prompt as the host does, with the person's rows in their place."""
        if rows is None:
            return tokenise(self._clip, prompt, [])
        return tokenise(self._clip, prompt.format(mark(0)), [rows])


def make_differentiable(clip: CLIP, twice: bool) -> None:
    """Change copied text encoders so that gradients pass through them.

    The host's layers change in place the values that their norms need for gradients; so the norms
    get copies.

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
