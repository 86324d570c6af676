"""The arithmetic: plain functions with one signature in every backend; `reference` is torch."""

PAGE_SIZE = 16
"""Tokens whose keys and values one page of the cache holds."""
