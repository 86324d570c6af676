"""Runs the commands for encoders, one file each; `cli/encoder_commands.py` declares them."""
