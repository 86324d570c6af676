"""The decoder families with mixtures of experts, one file each."""
