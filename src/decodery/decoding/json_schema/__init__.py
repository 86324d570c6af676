"""Checks JSON texts against JSON schemas, and rewrites schemas for the grammar library. Needs no torch."""
