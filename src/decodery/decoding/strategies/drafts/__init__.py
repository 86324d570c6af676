"""Drafts tokens ahead of a row and judges them."""
