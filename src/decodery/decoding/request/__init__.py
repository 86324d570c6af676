"""Holds the parameter objects that a user writes: immutable, validated when built. Needs no torch."""
