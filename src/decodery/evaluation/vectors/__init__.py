"""Measures vectors of texts: similarity, classification, retrieval, reranking, clustering."""
