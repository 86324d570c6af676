"""Writes outputs, events and traces as plain JSON values, and reads them. Needs no torch."""
