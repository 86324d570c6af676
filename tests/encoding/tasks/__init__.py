"""Tests what the heads of encoders say of texts."""
