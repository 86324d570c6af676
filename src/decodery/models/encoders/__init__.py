"""Defines the families of text encoders: models that read a whole text at once and write none."""
