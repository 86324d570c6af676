"""Reads whole texts with decoders."""
