"""Identity-enhanced training of adapters: data, objective, loop and export."""
