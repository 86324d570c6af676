"""Answers the routes of encoders: vectors, classes and orders of texts, in batches that requests share."""
