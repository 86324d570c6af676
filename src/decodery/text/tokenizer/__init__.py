"""Converts text to token ids and back, with the vocabularies of folders and GGUF files."""
