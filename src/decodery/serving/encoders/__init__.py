"""Answers the routes of encoders: vectors, classes and orders of texts, read in batches that requests share."""
