"""Draws the pictures of the learner's pages; each is `WIDTH` wide and shows one way to choose tokens."""
