"""`python -m miniature.ablation`: repeats the paper's ablations."""

from pack.miniature.experiment.command import main

if __name__ == "__main__":
    main()
