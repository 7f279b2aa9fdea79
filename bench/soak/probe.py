"""A custom node for the soak's server only: it reports what is held after all has been freed.

Between prompts the allocator keeps memory that it may need again, and cyclic garbage waits for its
collection. So resident memory varies by hundreds of megabytes. Here both are freed first.
"""

import ctypes
import gc
from contextlib import suppress
from typing import Any

import psutil
import torch
from aiohttp import web
from server import PromptServer

_server: Any = PromptServer  # it has an instance once it has started
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
