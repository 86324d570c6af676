"""Implements the arithmetic: plain functions with one signature in every backend.

`reference` computes with torch, `native` with compiled kernels.
"""

PAGE_SIZE = 16
"""The number of tokens whose keys and values one page of the cache holds."""
