"""One process, or several that train together: what each does, and what they exchange."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError


class Alone:
    """A single process; needs no further package."""

    rank, count = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrap(self, module: nn.Module) -> Any:
        """The module that is to be called; its gradients are those of all processes."""
        return module.to(self.device)

    @contextmanager
    def apart(self, module: Any) -> Iterator[None]:
        """Keep gradients in this process, inside the context: for all but a step's last part."""
        del module
        yield

    def exchanged(self, module: Any) -> None:
        """Must be called after anything but the optimiser has changed the weights."""

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        return values

    def whole(self, x: Tensor) -> Tensor:
        """Return a tensor of the module or the optimiser in one piece, on the CPU."""
        return x.detach().cpu()

    def part(self, x: Tensor, like: Tensor) -> Tensor:
        """Undo `whole` for a tensor that is stored as `like` is."""
        return x.to(like)

    def wait(self) -> None:
        """Wait until all processes are here."""

    def end(self) -> None:
        """Leave the others."""


class Together(Alone):
    """Several processes with equal weights, by Hugging Face accelerate (DDP)."""

    def __init__(self, cpu: bool) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise UserError(
                f"Training in several processes needs accelerate ({error}): `pip install -r "
                "requirements/training.txt` in this pack's folder."
            ) from error
        self._accelerator: Any = Accelerator(cpu=cpu, mixed_precision="no")  # run.precision says it
        super().__init__(self._accelerator.device)
        self.rank = self._accelerator.process_index
        self.count = self._accelerator.num_processes

    def wrap(self, module: nn.Module) -> Any:
        return self._accelerator.prepare_model(module)

    @contextmanager
    def apart(self, module: Any) -> Iterator[None]:
        with self._accelerator.no_sync(module):
            yield

    def mean(self, values: Tensor) -> Tensor:
        reduced: Tensor = self._accelerator.reduce(values.to(self.device), reduction="mean")
        return reduced.cpu()

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    def end(self) -> None:
        self._accelerator.end_training()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


class Sharded(Together):
    """Several processes, each with a part of weights, gradients and optimiser state (FSDP2)."""

    def wrap(self, module: nn.Module) -> Any:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.count,))
        return fully_shard(module.to(self.device), mesh=mesh)

    @contextmanager
    def apart(self, module: Any) -> Iterator[None]:
        module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.set_requires_gradient_sync(True)

    def exchanged(self, module: Any) -> None:
        module.reshard()  # a forward without backward keeps the gathered weights for the next one

    def whole(self, x: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        return (x.full_tensor() if isinstance(x, DTensor) else x).detach().cpu()

    def part(self, x: Tensor, like: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor):
            return x.to(like)
        return distribute_tensor(x.to(like.device), like.device_mesh, like.placements)


def join(device: torch.device, sharded: bool) -> Alone:
    """The process, or the processes that a launcher such as `accelerate launch` has started.

    Args:
        device: of a single process.
        sharded: whether several share the weights; accelerate's config may say so as well.

    Raises:
        UserError: if the launcher's config wants what the trainer does not do.
    """
    sharded = asks_to_shard(os.environ) or sharded
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Alone(device)
    cpu = device.type == "cpu"
    return Sharded(cpu) if sharded else Together(cpu)


def asks_to_shard(environment: Mapping[str, str]) -> bool:
    """Return whether accelerate's config, as its launcher passes it on, asks to shard (FSDP2).

    Raises:
        UserError: for DeepSpeed, FSDP's first version and offloading.
    """

    def has(name: str) -> bool:
        return environment.get(name, "").lower() in ("true", "1", "yes")

    if has("ACCELERATE_USE_DEEPSPEED"):
        raise UserError(
            "accelerate's config asks for DeepSpeed. Its ZeRO spreads weights, gradients and "
            "moments over the GPUs; run.sharded = true does the same by FSDP2. Choose "
            "distributed_type: MULTI_GPU or FSDP in `accelerate config`."
        )
    if not has("ACCELERATE_USE_FSDP"):
        return False
    if environment.get("FSDP_VERSION", "1") != "2":
        raise UserError(
            "accelerate's config asks for FSDP's first version; write fsdp_version: 2 into it."
        )
    if has("FSDP_OFFLOAD_PARAMS"):
        raise UserError(
            "accelerate's config asks to offload weights to the CPU: what trains takes 6 GB in "
            "all, and less on each GPU. Write fsdp_offload_params: false into it."
        )
    return True
