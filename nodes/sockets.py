"""Every socket type of the pack, named once."""

from typing import Any

from comfy_api.latest import io

Adapter = io.Custom("INFINITE_ID_MODEL")
Encoder = io.Custom("INFINITE_ID_ENCODER")
Identity = io.Custom("INFINITE_ID_IDENTITY")
Crops = io.Custom("INFINITE_ID_CROPS")
Grid = io.Custom("INFINITE_ID_GRID")
FaceAnalysis = io.Custom("INSIGHTFACE")
"""A raw `insightface.app.FaceAnalysis`, as other packs pass it."""
FACE_ANALYSIS_TYPES: list[Any] = [FaceAnalysis, io.Custom("FACEANALYSIS")]

CATEGORY = "Infinite-ID"
