"""Scores pairs of a query and a document by the vectors of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.input_errors import named, numbered
from decodery.encoding.tasks.inputs import checked_text
from decodery.encoding.text_batches import TokenText
from decodery.encoding.texts import Long
from decodery.encoding.vectors.multi_vectors import multi_vectors, read_role


def max_sims(
    parts: EncoderParts, pairs: Sequence[tuple[str, str]], *, long: Long
) -> tuple[list[float], list[TokenText]]:
    """Returns the score of each pair, and what the model read of its document.

    A query is read once for all of its documents. The tokens that a cut query lost are added to those of the
    document. Raises the errors of `read_role` and `multi_vectors`.
    """
    queries: dict[str, TokenText] = {}
    documents = []
    for index, (query, document) in enumerate(pairs):
        if checked_text(query, "the query") not in queries:
            with named("the query", "query"):
                queries[query] = read_role(parts, query, query=True, long=long)
        with numbered(index, len(pairs), "document"):
            read = read_role(parts, checked_text(document, "each document"), query=False, long=long)
        documents.append(replace(read, lost=read.lost + queries[query].lost))
    names = list(queries)
    of_query = {
        names[index]: found for index, found in multi_vectors(parts, list(queries.values()), query=True)
    }
    scores = {
        index: of_query[pairs[index][0]].max_sim(found)
        for index, found in multi_vectors(parts, documents, query=False)
    }
    return [scores[index] for index in range(len(pairs))], documents
