"""Implements the commands of `decodery recipe`."""
