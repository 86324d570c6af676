"""Reads texts with encoders: vectors, classes, spans and masked tokens, in batches without a cache."""
