"""A face parser as an ONNX file: which pixels of a headshot are face, and which are hair.

Its interface is that of BiSeNet in zllrunning/face-parsing.PyTorch and in facexlib: RGB with
ImageNet's statistics in, scores of 19 classes out. Further outputs, of its training, are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..files import file_digest
from .face import FaceError
from .providers import choose_providers

_CLASSES = 19
_FACE = (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13)
"""Skin, brows, eyes, glasses, ears, nose, mouth, lips; StableIdentity takes these and no earrings,
necklace, hat, neck or clothes."""
_HAIR = (17,)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIDE = 512
"""Pixels, for nets that take pictures of any size."""


class FaceParser:
    """A loaded net.

    Attributes:
        digest: of the file.
    """

    def __init__(self, file: Path, provider: str = "auto") -> None:
        """Load a file.

        Raises:
            FaceError: if onnxruntime is missing, or the file is no such net.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise FaceError(
                f"A face parser needs onnxruntime ({error}). Install it with `pip install -r "
                "requirements.txt` in this node pack's folder and restart."
            ) from error
        providers = choose_providers(provider, onnxruntime.get_available_providers())
        try:
            self._session = onnxruntime.InferenceSession(str(file), providers=providers)
        except Exception as error:  # onnxruntime has an exception for each way to be damaged
            raise FaceError(
                f"{file.name} cannot be used as a face parser ({error}). Download it again, or "
                "choose another file."
            ) from error
        taken, given = self._session.get_inputs(), self._session.get_outputs()[0].shape
        shape = taken[0].shape
        if len(taken) != 1 or len(shape) != 4 or shape[1] != 3 or given[1:2] != [_CLASSES]:
            raise FaceError(
                f"{file.name} is no face parser that this pack reads: it takes {shape} and gives "
                f"{given}. Expected (n, 3, height, width) and (n, {_CLASSES}, height, width), as "
                "BiSeNet of face-parsing.PyTorch has them."
            )
        self._input: str = taken[0].name
        self._size = tuple(n if isinstance(n, int) else _SIDE for n in shape[2:])
        self.digest = file_digest(file)

    def parse(self, headshot: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masks of face and hair, each `(1, side, side)` in 0..1.

        Args:
            headshot: `(3, side, side)` RGB in 0..1.
        """
        mean, std = (torch.tensor(x)[:, None, None] for x in (_MEAN, _STD))
        scaled = interpolate(headshot[None], self._size, mode="bilinear", antialias=True)[0]
        pixels: Any = ((scaled - mean) / std)[None].numpy()
        scores = torch.from_numpy(self._session.run(None, {self._input: pixels})[0])
        classes = scores.argmax(dim=1)
        size = (headshot.shape[-2], headshot.shape[-1])
        face, hair = (torch.isin(classes, torch.tensor(own)) for own in (_FACE, _HAIR))
        face, hair = (interpolate(x[None].float(), size, mode="bilinear")[0] for x in (face, hair))
        return face, hair
