"""The paper's ablations on the miniature; see `miniature/ablation.py`."""
