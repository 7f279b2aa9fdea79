"""Adapters: mappers and projections K', V', and the files that they come in."""
