"""Reads checkpoint files: safetensors and GGUF."""
