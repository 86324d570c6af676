"""The decoder families, one file each."""
