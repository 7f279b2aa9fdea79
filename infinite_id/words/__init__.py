"""Shared by the methods that learn words of CLIP: prompts with rows, names, files, learning."""
