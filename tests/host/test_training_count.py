"""What `plan` counts on tensors without storage is what tensors with storage take."""

from __future__ import annotations

import torch
from pack.infinite_id.adapters.adapter import Adapter, AdapterConfig
from pack.infinite_id.adapters.mappers import MapperConfig
from pack.infinite_id.attention.blocks import list_layers
from pack.infinite_id.training import host_count
from pack.infinite_id.training.host_frozen import HostFrozen
from pack.infinite_id.training.objective import Objective

CPU = torch.device("cpu")
MAPPER = MapperConfig(clip_width=32, clip_hidden=32, face_hidden=32, token_width=128)
SMALL = host_count.UNET | {
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 128,
}


def count_really(checkpointing: bool, samples: int) -> int:
    model = host_count.make_model(SMALL, torch.float32, CPU)
    for p in model.diffusion_model.parameters():
        torch.nn.init.normal_(p, std=0.02)
    adapter = Adapter(AdapterConfig(MAPPER, list_layers(model.diffusion_model)))
    objective = Objective(adapter, HostFrozen(model, checkpointing))
    return host_count.count_memory(objective, MAPPER, 256, samples)


def test_counts_without_storage_are_those_with_it() -> None:
    kept, twice = (
        host_count.count(MAPPER, 256, torch.float32, checkpointing, SMALL)
        for checkpointing in (False, True)
    )
    for checkpointing, counts in ((False, kept), (True, twice)):
        for samples in (8, 12):
            expected = count_really(checkpointing, samples)
            assert abs(counts.peak(samples) - expected) < 0.01 * expected
    assert twice.sample < 0.7 * kept.sample
    assert 1.1 * kept.flops < twice.flops < 1.5 * kept.flops


def test_the_parts_are_those_of_the_model() -> None:
    counts = host_count.count(MAPPER, 128, torch.bfloat16, False, SMALL)
    model = host_count.make_model(SMALL, torch.float32, CPU).diffusion_model
    assert counts.unet == 2 * sum(p.numel() for p in model.parameters())
    adapter = Adapter(AdapterConfig(MAPPER, list_layers(model)))
    assert counts.adapter == 4 * sum(p.numel() for p in adapter.parameters())


def test_the_true_model_has_its_published_size() -> None:
    with torch.device("meta"):
        model = host_count.make_model(host_count.UNET, torch.float16, CPU).diffusion_model
    assert sum(p.numel() for p in model.parameters()) == 2_567_463_684
    assert len(list_layers(model)) == 70
