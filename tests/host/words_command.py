"""`python words_command.py VERB ...`: StableIdentity's command, on a host with the miniature."""

import sys

from training_command import (  # type: ignore[import-not-found]  # lies beside this script
    launch,
    use_host_with_miniature,
)

if __name__ == "__main__":
    from pack.infinite_id.stable_identity.command import main

    launch.use_host = use_host_with_miniature
    sys.exit(main())
