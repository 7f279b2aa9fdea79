"""Photos of people on a disk: how they are listed, decoded and judged."""
