"""Trains the miniature's nets, stage by stage; see `miniature/train.py`."""
