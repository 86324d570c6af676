"""Checkpoints: where they come from, how they are read, and how their names map onto modules."""
