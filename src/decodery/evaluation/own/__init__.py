"""Reads tasks that users describe in TOML files."""
