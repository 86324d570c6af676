"""Defines Gemma 4."""
