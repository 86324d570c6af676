"""Holds texts to grammars, over the llguidance library."""
