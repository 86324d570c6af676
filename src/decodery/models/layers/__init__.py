"""Defines the layers that families are built of."""
