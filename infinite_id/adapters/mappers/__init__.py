"""Mappers: features of a face -> identity tokens. One module for each family of architectures."""

from .base import ClipLayer, Crop, FaceVector, MapperSpec, Recipe
from .native import IdentityMapper, MapperConfig

__all__ = [
    "ClipLayer",
    "Crop",
    "FaceVector",
    "IdentityMapper",
    "MapperConfig",
    "MapperSpec",
    "Recipe",
]
