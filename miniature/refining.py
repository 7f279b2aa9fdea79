"""`python -m miniature.refining`: measures Refine Identity; see `ablation/refining.py`."""

from pack.miniature.ablation.refining import main

if __name__ == "__main__":
    main()
