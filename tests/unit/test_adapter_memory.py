"""Adapters of the true size load in seconds, and never lie in memory twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pack.bench import adapter_files

ROOT = Path(__file__).parents[2]
SECONDS = 20.0  # on a busy machine; some of them go to reading every weight
PEAK = 1.3  # of the file's size

# Loads in a process of its own, then reads every weight, as projecting does. VmHWM is that
# process's own peak; getrusage's would begin with that of the process which started it.
LOADER = """
import json, sys, time
from pathlib import Path
sys.path.append(sys.argv[1])
import torch
from pack.infinite_id.adapters import formats

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

torch.zeros(8, 8, dtype=torch.float16).amax()
before, start = peak(), time.monotonic()
adapter = formats.load(Path(sys.argv[2]))
seconds, loaded = time.monotonic() - start, peak()
weights = [*adapter.parameters(), *(adapter.lora.tensors.values() if adapter.lora else ())]
read = sum(x.numel() * x.element_size() for x in weights if x.amax() == 0)
print(json.dumps({"load": loaded - before, "all": peak() - before, "seconds": seconds,
                  "read": read}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count")
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("kind", ["FaceID", "FaceID PlusV2", "InstantID"])
def test_true_size(tmp_path: Path, kind: str, suffix: str) -> None:
    """Peak memory over the process's own, in bytes per byte of the file, and seconds."""
    rank = adapter_files.LORA_RANK if kind.startswith("FaceID") else 0
    shapes = adapter_files.shape(kind, lora_rank=rank)
    path = tmp_path / f"adapter.{suffix}"
    if suffix == "safetensors":
        adapter_files.write_sparse_safetensors(path, shapes)
    else:
        adapter_files.write_sparse_bin(path, shapes)
    size = path.stat().st_size
    assert size > 700e6
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(ROOT), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    path.unlink()
    found = json.loads(done.stdout)
    print(f"{kind} .{suffix}: {size / 1e6:.0f} MB, {found['seconds']:.2f} s,", end=" ")
    print(f"peak {found['load'] / size:.2f} loaded, {found['all'] / size:.2f} read")
    assert found["read"] == sum(2 * torch.Size(s).numel() for s in shapes.values())
    assert found["seconds"] < SECONDS
    assert found["load"] < PEAK * size
    assert found["all"] < PEAK * size
    assert found["all"] > 0.5 * size  # else the peak was not seen
