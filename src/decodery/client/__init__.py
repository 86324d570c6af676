"""Asks a running server what `LLM` answers in the process. Needs no torch."""
