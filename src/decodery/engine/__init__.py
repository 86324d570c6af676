"""Holds all the state of a running engine: requests, pages and the schedule. Names no strategy."""
