"""Infinite-ID on ComfyUI's objects: the only part, with `nodes/`, that imports `comfy`."""
