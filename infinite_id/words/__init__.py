"""What the methods share that make words of CLIP: prompts with rows, names, files, learning."""
