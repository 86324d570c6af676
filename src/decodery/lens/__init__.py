"""Holds what shows the layers of a model: where attention looks, and what each layer predicts."""
