"""Measures the quality of answers: functions over lists that return a value, its unit and its error."""

from decodery.metrics.score import Score, mean, mean_of_scores

__all__ = ["Score", "mean", "mean_of_scores"]
