"""The native backend: compiled kernels on the CPU."""
