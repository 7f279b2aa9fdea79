"""`python -m dev COMMAND`, with any Python from 3.11 on; `--help` lists the commands."""

import sys

from pack.dev.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
