"""Decodes token ids to text as they arrive, and finds where the text stops."""
