"""The paper's ablations on the miniature."""
