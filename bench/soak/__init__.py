"""Hundreds of random prompts through one server: `run` queues them, `prompts` draws them."""
