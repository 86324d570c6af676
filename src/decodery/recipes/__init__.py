"""Holds recipes: small experiments over the public interface that answer one question each with a table.

The functions are `compare_classifiers` and `library_requests`.
"""

from decodery.recipes.classification import (
    ClassifierComparison,
    ClassifierResult,
    compare_classifiers,
    library_requests,
)

__all__ = ["ClassifierComparison", "ClassifierResult", "compare_classifiers", "library_requests"]
