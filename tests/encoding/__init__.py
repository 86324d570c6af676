"""Tests the reading of texts with encoders."""
