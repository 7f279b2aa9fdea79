"""From photos of people to what the trainer reads: detection, choice, cached features."""
