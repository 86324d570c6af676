"""Measurements: us and the peers in turn, in one run, on one machine."""
