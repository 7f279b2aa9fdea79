"""`python -m infinite_id.staged_identity` in the pack's folder, or `python` with its path."""

import sys
from pathlib import Path

if not __package__:  # run by its path: Python knows no package yet
    sys.path[0] = str(Path(__file__).absolute().parents[2])

from infinite_id.staged_identity.command import main

sys.exit(main())
