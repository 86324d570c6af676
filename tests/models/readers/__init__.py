"""Tests decoders that read whole texts."""
