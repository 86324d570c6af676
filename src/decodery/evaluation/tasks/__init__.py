"""Holds the tasks, a file each, and finds them by name."""
