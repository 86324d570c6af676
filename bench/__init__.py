"""Measures Decodery and its peers in turn, in one run, on one machine."""
