"""Holds the page at `/`: its files, and what answers with them."""
