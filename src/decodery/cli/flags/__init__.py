"""Reads the flags of a command line and builds the parameters from them."""
