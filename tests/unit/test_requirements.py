"""One onnxruntime, not two."""

import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from pack.dev.onnxruntime_stub import write_stub

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements.txt"


def lines() -> list[str]:
    text = REQUIREMENTS.read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_names_what_the_pack_needs() -> None:
    found = "\n".join(lines())
    for name in ("torch", "insightface", "onnxruntime-gpu", "safetensors", "einops"):
        assert name in found


def test_line_by_line_installation_begins_with_the_stub() -> None:
    """ComfyUI-Manager gives each line to pip as one argument."""
    assert lines()[0] == "--requirement=requirements/insightface.txt"


def test_stub_holds_no_code_and_is_reproducible(tmp_path: Path) -> None:
    (committed,) = (ROOT / "requirements").glob("onnxruntime-*.whl")
    with zipfile.ZipFile(committed) as wheel:
        assert all(".dist-info/" in name for name in wheel.namelist())
    assert write_stub(tmp_path).read_bytes() == committed.read_bytes()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has the plain onnxruntime alone")
def test_this_environment_has_one_onnxruntime_that_knows_cuda() -> None:
    """The environment was made from requirements.txt, in one pip call, from nothing."""
    owners = {
        dist.metadata["Name"]
        for dist in distributions()
        for file in dist.files or ()
        if file.parts[0] == "onnxruntime"
    }
    assert owners == {"onnxruntime-gpu"}
    code = "import onnxruntime; print(onnxruntime.get_available_providers())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "CUDAExecutionProvider" in done.stdout
