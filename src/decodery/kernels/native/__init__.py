"""Implements the kernels with compiled code on the CPU."""
