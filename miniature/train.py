"""`python -m miniature.train`: makes the miniature from seeds; see `training/command.py`."""

from pack.miniature.training.command import main

if __name__ == "__main__":
    main()
