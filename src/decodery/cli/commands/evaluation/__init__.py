"""Implements the commands that measure models."""
