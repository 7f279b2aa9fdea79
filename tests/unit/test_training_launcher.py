"""accelerate's config files, read by its own launcher: accepted, or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from pack.infinite_id.errors import UserError
from pack.infinite_id.training.processes import asks_to_shard

COMMON = """
compute_environment: LOCAL_MACHINE
machine_rank: 0
main_training_function: main
mixed_precision: bf16
num_machines: 1
num_processes: 2
use_cpu: false
"""
DDP = COMMON + "distributed_type: MULTI_GPU\n"
FSDP = COMMON + (
    "distributed_type: FSDP\nfsdp_config:\n  fsdp_version: {version}\n"
    "  fsdp_offload_params: {offload}\n  fsdp_auto_wrap_policy: NO_WRAP\n"
    "  fsdp_reshard_after_forward: true\n"
)
DEEPSPEED = COMMON + "distributed_type: DEEPSPEED\ndeepspeed_config:\n  zero_stage: 2\n"


def launch(text: str, tmp_path: Path) -> dict[str, str]:
    """The environment that `accelerate launch` gives its processes."""
    command = pytest.importorskip(
        "accelerate.commands.launch", reason="accelerate: requirements/training.txt"
    )
    from accelerate.utils.launch import (
        prepare_deepspeed_cmd_env,
        prepare_multi_gpu_env,
    )

    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    options = command.launch_command_parser().parse_args(["--config_file", str(path), "train.py"])
    options = command._validate_launch_command(options)[0]
    if options.use_deepspeed:
        options.deepspeed_fields_from_accelerate_config = "zero_stage"
        return prepare_deepspeed_cmd_env(options)[1]
    return prepare_multi_gpu_env(options)


def test_several_gpus_are_not_sharded_unless_asked(tmp_path: Path) -> None:
    assert not asks_to_shard(launch(DDP, tmp_path))


def test_the_second_version_of_fsdp_is_accepted(tmp_path: Path) -> None:
    assert asks_to_shard(launch(FSDP.format(version=2, offload="false"), tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FSDP.format(version=1, offload="false"), "fsdp_version: 2"),
        (FSDP.format(version=2, offload="true"), "fsdp_offload_params: false"),
        (DEEPSPEED, "run.sharded = true does the same"),
    ],
)
def test_what_is_not_done_is_refused_in_words(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        asks_to_shard(launch(text, tmp_path))
