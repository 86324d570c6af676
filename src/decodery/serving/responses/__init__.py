"""Speaks OpenAI's Responses API, on the parts that answer chat completions."""
