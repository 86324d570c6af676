"""Defines transformer families as plain torch modules; the same definition serves and trains."""
