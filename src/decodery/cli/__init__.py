"""Implements the command line `decodery`: the commands, their flags, and the tables that they print."""
