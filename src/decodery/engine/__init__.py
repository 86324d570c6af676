"""Requests, pages, scheduling and the step: all the state of a running engine. Knows no strategy by name."""
