"""Identities: the tokens that stand for a person, what becomes of them, and their files."""
