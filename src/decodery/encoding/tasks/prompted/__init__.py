"""Writes prompts for decoders that judge texts, and reads their answers."""
