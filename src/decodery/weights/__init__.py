"""Finds checkpoints, reads them, and maps their tensor names onto modules."""
