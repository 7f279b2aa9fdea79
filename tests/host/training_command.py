"""`python training_command.py VERB ...`: the trainer's command, on a host that has the miniature.

Run by its path from any directory, as users run the command.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[0] = str(ROOT)

from pack.infinite_id import launch  # noqa: E402
from pack.infinite_id.training.command import main  # noqa: E402

use_host = launch.use_host


def use_host_with_miniature(options: launch.HostOptions) -> Path:
    """As a custom node would, register the miniature once the host is there."""
    folder = use_host(options)
    from pack.miniature.host import register

    register()
    return folder


if __name__ == "__main__":
    launch.use_host = use_host_with_miniature
    sys.exit(main())
