"""Draws the tables that `decodery explain` prints in the terminal."""
