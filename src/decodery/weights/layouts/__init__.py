"""Lays weights out as the native kernels take them."""
