"""Makes `requirements/onnxruntime-*.whl`, a wheel that holds metadata only.

insightface asks pip for `onnxruntime`. If `onnxruntime-gpu` is wanted, that puts two
distributions with the same files into one folder, and the later one wins. This wheel
satisfies the name without bringing files. Its version is above every `onnxruntime` 1.x, so that
pip takes it if none is installed, and below 2, so that it satisfies what other packs ask for.
An exact version would have pip replace the onnxruntime that is there, and with it the files that
onnxruntime-gpu shares. Run `python -m pack.dev.onnxruntime_stub` to write it anew;
the bytes are the same every time.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

# Platforms that have onnxruntime-gpu wheels. Elsewhere the tag does not match, pip passes the
# stub over, and insightface brings the plain onnxruntime.
PLATFORMS = ("linux_x86_64", "win_amd64")
VERSION = "1.9999+gpu"
DIST_INFO = f"onnxruntime-{VERSION}.dist-info"
WHEEL_NAME = f"onnxruntime-{VERSION}-py3-none-{'.'.join(PLATFORMS)}.whl"
FOLDER = Path(__file__).resolve().parent.parent / "requirements"

METADATA = f"""Metadata-Version: 2.1
Name: onnxruntime
Version: {VERSION}
Summary: Empty stand-in: onnxruntime-gpu provides the onnxruntime module
License: Apache-2.0
Requires-Dist: onnxruntime-gpu

onnxruntime and onnxruntime-gpu install the same files. Installing both leaves whichever came
last, often without CUDA. This wheel has no files: it satisfies packages that ask for
`onnxruntime` where `onnxruntime-gpu` is installed. To go back to the plain one:
`pip uninstall onnxruntime onnxruntime-gpu`, then `pip install onnxruntime`.
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: onnxruntime_stub\nRoot-Is-Purelib: true\n" + "".join(
    f"Tag: py3-none-{platform}\n" for platform in PLATFORMS
)


def write_stub(folder: Path) -> Path:
    """Write the wheel into `folder` and return its path."""
    files = {f"{DIST_INFO}/METADATA": METADATA.encode(), f"{DIST_INFO}/WHEEL": WHEEL.encode()}
    files[f"{DIST_INFO}/RECORD"] = _record(files)
    path = folder / WHEEL_NAME
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(_entry(name), data)
    return path


def _entry(name: str) -> zipfile.ZipInfo:
    """A zip entry that is the same on every system and at every time."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry


def _record(files: dict[str, bytes]) -> bytes:
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    return "\n".join([*lines, f"{DIST_INFO}/RECORD,,", ""]).encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    print(write_stub(FOLDER))
