"""Defines the decoder families that normalise by mean and variance."""
