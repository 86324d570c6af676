"""Holds the chat page at `/`: its files, and what answers with them."""
