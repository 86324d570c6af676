"""Implements the kernels with torch."""
