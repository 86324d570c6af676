"""Searches files by meaning and by words, in an index that grows and shrinks by file."""

from decodery.search.index import SearchHit, SearchIndex
from decodery.search.writing import IndexChanges

__all__ = ["IndexChanges", "SearchHit", "SearchIndex"]
