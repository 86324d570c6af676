"""Makes vectors of texts and of tokens."""
