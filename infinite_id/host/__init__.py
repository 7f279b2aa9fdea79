"""Infinite-ID on ComfyUI's objects. Only this package and `nodes/` import `comfy`."""
