"""Carries out the strategies: each is a method with `propose` and `judge`."""
