"""Reads the files of published data sets."""
