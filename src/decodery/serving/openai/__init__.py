"""Speaks OpenAI's API: reads its requests, and writes its answers and streams."""
