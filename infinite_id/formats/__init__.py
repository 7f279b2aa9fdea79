"""Adapter files. One module a format; `load` recognises a file by its contents."""

from .errors import FormatError
from .native import load, save

__all__ = ["FormatError", "load", "save"]
