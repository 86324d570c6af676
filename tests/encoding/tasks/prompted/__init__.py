"""Tests decoders that judge texts."""
