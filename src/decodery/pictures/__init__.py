"""Draws the trace of a generation: as an HTML page and as an SVG picture."""
