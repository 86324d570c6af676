"""Kernels over the vocabulary: what decoding does with rows of logits."""
