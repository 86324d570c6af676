"""Runs the commands, one file each; `cli/main.py` declares them and their flags."""
