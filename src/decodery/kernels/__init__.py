"""The arithmetic: plain functions with one signature in every backend; `reference` is torch."""
