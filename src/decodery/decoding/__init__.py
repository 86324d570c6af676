"""Chooses tokens from rows of logits. This package knows no model, no cache page and no text."""
