"""Turns conversations into prompts: chat templates and their sandbox."""
