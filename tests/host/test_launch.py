"""The launcher with a real ComfyUI: its own modules are found, and the user's model folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from infinite_id import launch
launch.use_host(launch.HostOptions(cpu=True, model_paths=(Path(sys.argv[2]),)))
import infinite_id.host.patch, nodes, folder_paths
print(Path(nodes.__file__).resolve())
print(folder_paths.get_folder_paths("checkpoints"))
print(sorted(name for name in sys.modules if name.endswith("infinite_id")))
"""


def test_the_hosts_modules_are_found_beside_the_packs(tmp_path: Path) -> None:
    """In a folder with a hyphen, with the pack's `nodes/` beside what is run."""
    pack, paths = tmp_path / "ComfyUI-Infinite-ID", tmp_path / "paths.yaml"
    pack.symlink_to(ROOT, target_is_directory=True)
    paths.write_text("mine:\n  checkpoints: some/where\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(pack), str(paths)],
        check=False,
        capture_output=True,
        text=True,
        cwd=pack,
    )
    assert done.returncode == 0, done.stderr
    nodes, checkpoints, packages = done.stdout.splitlines()[-3:]
    assert Path(nodes) == (Path(os.environ["COMFYUI_PATH"]) / "nodes.py").resolve()
    assert str(tmp_path / "some" / "where") in checkpoints
    assert packages == "['infinite_id']", "one package, under one name"
