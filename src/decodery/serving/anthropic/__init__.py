"""Speaks Anthropic's API: reads its conversations as chat completions, and writes its answers and streams."""
