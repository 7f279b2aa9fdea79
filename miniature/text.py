"""SDXL's pair of text encoders at the miniature's sizes, as the host's own classes."""

from __future__ import annotations

from typing import Any

import torch
from comfy.clip_model import CLIPTextModel
from comfy.sd1_clip import SDClipModel, SDTokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer

from .shapes import TEXT_G, TEXT_L, TOKENS, VOCABULARY_FILE, TextShape
from .tokenizer import END, PAD, START, WordTokenizer, load_vocabulary


class SmallVocabularyTextModel(CLIPTextModel):
    """The host's CLIP text model with few embeddings; the host always makes 49408."""

    def __init__(
        self,
        config: dict[str, Any],
        dtype: torch.dtype | None,
        device: torch.device | str | None,
        operations: Any,
    ) -> None:
        super().__init__(config, dtype, device, operations)
        words = len(load_vocabulary())
        self.set_input_embeddings(
            operations.Embedding(words, config["hidden_size"], dtype=dtype, device=device)
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load weights. The published ones lack rows for the last words of the vocabulary."""
        key = f"{prefix}text_model.embeddings.token_embedding.weight"
        missing = len(load_vocabulary()) - len(state_dict[key])
        state_dict[key] = torch.nn.functional.pad(state_dict[key], (0, 0, 0, missing))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class MiniatureClipModel(SDXLClipModel):
    """`clip_l` and `clip_g`. The context joins both; the pooled vector is `clip_g`'s."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        model_options: dict[str, Any] | None = None,
    ) -> None:
        torch.nn.Module.__init__(self)
        common = {"device": device, "dtype": dtype, "model_options": model_options or {}}
        self.clip_l = _encoder(TEXT_L, pad=END, **common)
        self.clip_g = _encoder(  # type: ignore[assignment]
            TEXT_G, pad=PAD, **common
        )
        self.dtypes = {dtype}


def _encoder(shape: TextShape, pad: int, **common: Any) -> SDClipModel:
    return SDClipModel(
        max_length=TOKENS,
        layer="hidden",
        layer_idx=-2,
        textmodel_json_config=shape.config(),
        model_class=SmallVocabularyTextModel,
        special_tokens={"start": START, "end": END, "pad": pad},
        layer_norm_hidden_state=False,
        **common,
    )


class MiniatureTokenizer(SDXLTokenizer):
    def __init__(
        self,
        embedding_directory: list[str] | str | None = None,
        tokenizer_data: dict[str, Any] | None = None,
    ) -> None:
        common = {
            "tokenizer_path": str(VOCABULARY_FILE),
            "tokenizer_class": WordTokenizer,
            "max_length": TOKENS,
            "embedding_directory": embedding_directory,
            "tokenizer_data": tokenizer_data or {},
        }
        self.clip_l = SDTokenizer(
            embedding_size=TEXT_L.width, embedding_key="clip_l", pad_with_end=True, **common
        )
        self.clip_g = SDTokenizer(  # type: ignore[assignment]
            embedding_size=TEXT_G.width, embedding_key="clip_g", pad_with_end=False, **common
        )
