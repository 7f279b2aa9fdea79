"""`python -m dev bench`: what the pack costs, timed and counted, beside what it must cost."""
