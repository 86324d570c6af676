"""Reads checkpoint files in the formats safetensors and GGUF."""
