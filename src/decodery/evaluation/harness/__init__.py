"""Lets the harnesses of others measure an open model."""
