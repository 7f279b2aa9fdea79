"""Measures of pictures of people: likeness, prompt, variety; `python -m infinite_id.metrics`."""
