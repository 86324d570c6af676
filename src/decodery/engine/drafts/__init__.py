"""Drafts tokens for requests that speculate automatically, as many as make steps faster."""
