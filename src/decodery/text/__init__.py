"""Converts between text and token ids: tokenizers, chat templates, streaming text and stop strings."""
