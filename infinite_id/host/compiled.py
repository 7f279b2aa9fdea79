"""Runs a compiled model without compilation, for one forward only.

A compiled UNet does not read the transformer options again. It would repeat the hooks of the first
forward, or none, even if other people act now. Compilation can only be switched off for the whole
process, where other forwards may run. So one forward is run on a copy of the modules that hold
compiled parts.
"""

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

from comfy.patcher_extension import WrapperExecutor
from torch.nn import Module


def uncompiled(executor: WrapperExecutor) -> WrapperExecutor:
    """Return the rest of a forward's wrappers; the innermost runs the model uncompiled.

    One of those wrappers may put the compiled parts into the model, so the copy is made last.
    """
    return on_copy(executor, as_written)


def on_copy(executor: WrapperExecutor, copied: Callable[[Module], Module]) -> WrapperExecutor:
    """Return the rest of a forward's wrappers; the innermost copies the model and runs it."""
    method = executor.original
    model = getattr(method, "__self__", None)
    if not isinstance(method, MethodType) or not isinstance(model, Module):
        return executor

    def run(*args: Any, **kwargs: Any) -> Any:
        return method.__func__(copied(model), *args, **kwargs)

    return WrapperExecutor(run, executor.class_obj, executor.wrappers, executor.idx)


def as_written(module: Module) -> Module:
    """Return the module if nothing in it is compiled, else a copy that shares all parameters.

    It finds modules that `torch.compile` returned, modules that were compiled in place, and
    compiled functions that replaced a module's `forward`.
    """
    children = {name: child for name, child in module._modules.items() if child is not None}
    if "_orig_mod" in children:
        return as_written(children["_orig_mod"])
    changed = {}
    for name, child in children.items():
        if (written := as_written(child)) is not child:
            changed[name] = written
    function = getattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable", None)
    is_compiled = module.__dict__.get("_compiled_call_impl") is not None
    if not changed and function is None and not is_compiled:
        return module
    written = copy.copy(module)
    written.__dict__["_modules"] = {**module._modules, **changed}
    written.__dict__.pop("_compiled_call_impl", None)
    if function is not None:
        is_own = isinstance(function, MethodType) and function.__self__ is module
        written.__dict__["forward"] = MethodType(function.__func__, written) if is_own else function
    return written
