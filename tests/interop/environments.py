"""Installs the pack's requirements into environments that have an onnxruntime already, or none.

    python tests/interop/environments.py [--uv PATH_OF_UV] >> tests/interop/environments.md

pip and uv; the whole file at once, and line by line as ComfyUI-Manager does; from nothing, beside
plain onnxruntime, beside onnxruntime-gpu, beside both; then what another pack asks for. torch is
left out of the requirements: it takes gigabytes and has no part in this.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STARTS = {
    "nothing": [],
    "plain": ["onnxruntime==1.22.1"],
    "gpu": ["onnxruntime-gpu==1.22.0"],
    "plain, gpu": ["onnxruntime==1.22.1", "onnxruntime-gpu==1.22.0"],
}
OTHER_PACK = "onnxruntime>=1.17,<2"
LOOK = """
import json
from importlib.metadata import PackageNotFoundError, version
import onnxruntime
found = {}
for name in ("onnxruntime", "onnxruntime-gpu"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        found[name] = "-"
import insightface.app
cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
print(json.dumps([found, onnxruntime.__version__, cuda]))
"""
Install = Callable[..., Any]
Installers = dict[str, Callable[[Path], tuple[Path, Install]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", default=shutil.which("uv"), help="uv's program")
    uv = parser.parse_args().uv
    print(f"# Beside another onnxruntime\n\nWritten by `{Path(__file__).name}`, Python", end=" ")
    print(f"{platform.python_version()}, {platform.system()}. Before and after the requirements;")
    print(f"the last column: after `{OTHER_PACK}`, too, as another pack asks for it.\n")
    print(
        "| installer | before | onnxruntime | onnxruntime-gpu | imported | CUDA provider | then |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "ComfyUI Infinite-ID"
        shutil.copytree(ROOT / "requirements", pack / "requirements")
        lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
        lines = [line for line in lines if line and not line.startswith("#") and line != "torch"]
        (pack / "requirements.txt").write_text("\n".join(lines), encoding="utf-8")
        for name, make in installers(uv).items():
            for start, packages in STARTS.items():
                environment = Path(folder) / "environment"
                python, install = make(environment)
                for package in packages:
                    install([package], pack)
                whole = [["--requirement", "requirements.txt"]]
                for arguments in [[line] for line in lines] if "line" in name else whole:
                    install(arguments, pack)
                found, imported, cuda = look(python)
                install([OTHER_PACK], pack)
                same = "the same" if look(python) == [found, imported, cuda] else "CHANGED"
                cells = [name, start, *found.values(), imported, "yes" if cuda else "NO", same]
                print(f"| {' | '.join(cells)} |", flush=True)
                shutil.rmtree(environment)


def installers(uv: str | None) -> Installers:
    """Names of installers, each with what makes an environment and installs into it."""

    def make_pip(folder: Path) -> tuple[Path, Install]:
        run([sys.executable, "-m", "venv", str(folder)])
        python = folder / "bin" / "python"
        return python, lambda args, cwd: run([str(python), "-m", "pip", "install", *args], cwd)

    def make_uv(folder: Path) -> tuple[Path, Install]:
        run([str(uv), "venv", "--python", sys.executable, str(folder)])
        python = folder / "bin" / "python"
        command = [str(uv), "pip", "install", "--python", str(python)]
        return python, lambda args, cwd: run([*command, *args], cwd)

    found: Installers = {"pip": make_pip, "pip, line by line": make_pip}
    return {**found, "uv": make_uv, "uv, line by line": make_uv} if uv else found


def look(python: Path) -> Any:
    return json.loads(run([str(python), "-c", LOOK]).splitlines()[-1])


def run(command: Sequence[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
