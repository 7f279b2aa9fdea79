"""Photos of people on a disk: which there are, and what can be seen in one."""
