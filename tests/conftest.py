"""Paths for every test: the host first, then the pack under the name `pack`.

The pack's `nodes/` would shadow the host's nodes.py if the repository's root were on the path, so
it is not: its modules are imported as `pack.infinite_id...`, relative imports and all.
"""

import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]

pack = ModuleType("pack")
pack.__path__ = [str(ROOT)]
sys.modules["pack"] = pack

if "COMFYUI_PATH" in os.environ:
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True
