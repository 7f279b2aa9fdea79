"""Identities: tokens that stand for a person, their mixing, their projections and their files."""
