"""Looks for what a score hides: bias, inconsistency, and test data that was trained on."""
