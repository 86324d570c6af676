"""The `decodery` command."""
