"""StableIdentity (arXiv 2401.15975): one photo of a person becomes two words of CLIP."""
