"""ComfyUI entry point of the Infinite-ID node pack."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./nodes/help"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
