"""Contenders that measure models on tasks of choices."""
