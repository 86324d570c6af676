"""Carries out searches that keep several sequences of a request at once: beam search and its variants."""
