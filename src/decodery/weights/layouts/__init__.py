"""Packs weights in the layout of the native kernels."""
