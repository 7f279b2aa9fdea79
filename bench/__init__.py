"""`python -m dev bench`: the pack's cost, timed and counted, beside the least possible cost."""
