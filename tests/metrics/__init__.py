"""Tests the metrics: hand-computed values, libraries as oracles, and input that has no value."""
