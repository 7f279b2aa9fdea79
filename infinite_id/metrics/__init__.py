"""How alike, how obedient, how varied pictures of people are; `python -m infinite_id.metrics`."""
