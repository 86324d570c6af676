"""Computes what the heads of encoders say of texts: classes, spans, masked tokens and ranks."""
