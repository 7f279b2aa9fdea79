"""`python -m miniature.train`: makes the miniature from seeds; see `training/command.py`."""

import sys

from pack.miniature.training.command import main

if __name__ == "__main__":
    sys.exit(main())
