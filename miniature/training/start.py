"""Initial weights, because the host's layers skip PyTorch's own initialisation."""

from __future__ import annotations

import torch
from torch import nn


def initialise(net: nn.Module, seed: int = 0) -> None:
    """Draw weights uniformly by fan-in, as PyTorch does; biases are zero and norms one."""
    torch.manual_seed(seed)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif "token_embedding" in name:
            nn.init.normal_(parameter, std=0.5)
        elif "_embedding" in name:
            nn.init.normal_(parameter, std=0.1)
        elif parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter, a=5**0.5)
        elif name.endswith("weight"):
            nn.init.ones_(parameter)
