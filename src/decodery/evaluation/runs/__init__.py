"""Runs tasks, keeps what was answered, and writes the files of a run."""
