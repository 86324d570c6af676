"""Implements the kernels over the vocabulary: the operations of decoding on rows of logits."""
