"""The checkout as one package, whatever its folder is called: `import pack`, `python -m pack.dev`.

In ComfyUI this folder is a package by ComfyUI's doing. Elsewhere Python cannot import it by its
name, which has hyphens (ComfyUI-Infinite-ID) or is any that a clone was given; and to import its
folders one by one would give a module two names as soon as one folder imports another. So for
tests, `dev`, `bench`, `gallery` and `miniature`, this module is the package: all that is in them
is `pack.…`, once. `infinite_id` needs nothing beside itself, and is run under its own name too.

To find this module the checkout's folder must be on `sys.path`. It must come behind ComfyUI's
there, since its `nodes/` would hide ComfyUI's `nodes.py`: `pack.infinite_id.launch` sees to that.
"""

from pathlib import Path

__path__ = [str(Path(__file__).absolute().parent)]
