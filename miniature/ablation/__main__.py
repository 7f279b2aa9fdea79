"""`python -m miniature.ablation`: repeats the paper's ablations."""

from pack.miniature.ablation.command import main

if __name__ == "__main__":
    main()
