"""Identity-enhanced training: the seed that trainers grow from."""
