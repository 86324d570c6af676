"""Constrains texts to grammars, with the llguidance library."""
