"""A custom node for the soak's server alone: what is still held when everything has been freed.

Between prompts an allocator keeps what it may need again, and cyclic garbage waits for its turn, so
resident memory alone rises and falls by hundreds of megabytes. Here both are given back first.
"""

import ctypes
import gc
from contextlib import suppress
from typing import Any

import psutil
import torch
from aiohttp import web
from server import PromptServer

_server: Any = PromptServer  # which learns of its instance as it starts
NODE_CLASS_MAPPINGS: dict[str, type] = {}


@_server.instance.routes.get("/soak/held")
async def tell_held(_: web.Request) -> web.Response:
    gc.collect()
    with suppress(OSError, AttributeError):  # the C library of Linux has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    objects = gc.get_objects()
    tensors = [x for x in objects if issubclass(type(x), torch.Tensor) and x.device.type != "meta"]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return web.json_response(
        {
            "resident": psutil.Process().memory_info().rss / 1e6,
            "tensors": sum(storages.values()) / 1e6,
            "objects": len(objects),
        }
    )
