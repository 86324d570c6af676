"""Orders documents by how well they answer a query, with a cross-encoder or the vectors of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.input_errors import numbered
from decodery.encoding.results import Ranked
from decodery.encoding.tasks.classify import scores_of
from decodery.encoding.tasks.head_scores import ordered_scores
from decodery.encoding.tasks.inputs import checked_long, checked_text, several
from decodery.encoding.tasks.labels import Scoring, pair_scoring
from decodery.encoding.tasks.late_interaction import max_sims
from decodery.encoding.tasks.prompted.yes_no import answer_logits, has_form_of_pairs, pair_texts
from decodery.encoding.text_batches import TokenText
from decodery.encoding.texts import Long, pair
from decodery.encoding.vectors.sentence_folder import default_prompt
from decodery.errors import ParameterError


def rerank(
    parts: EncoderParts,
    query: str,
    documents: Sequence[str],
    *,
    top_n: int | None = None,
    long: Long = "error",
    instruction: str | None = None,
    answers: Sequence[str] | None = None,
) -> list[Ranked]:
    """Returns the documents, the best first; `LLM.rerank` explains the arguments."""
    if top_n is not None and (type(top_n) is not int or top_n < 1):
        raise ParameterError(f"top_n must be a whole number from 1 on, not {top_n!r}")
    if isinstance(documents, str):
        raise ParameterError("documents must be a list of texts, not one text")
    given = several(documents, "documents")
    pairs = [(query, document) for document in given]
    logits, texts = pair_logits(
        parts, pairs, long=checked_long(long), instruction=instruction, answers=answers
    )
    lost = [text.lost for text in texts]
    return ranked(given, logits, lost, pair_scoring(parts), top_n)


def pair_logits(
    parts: EncoderParts,
    pairs: Sequence[tuple[str, str]],
    *,
    long: Long,
    instruction: str | None = None,
    answers: Sequence[str] | None = None,
) -> tuple[list[float], list[TokenText]]:
    """Returns the logit of each pair of a query and a document, and what the model read of them.

    Only a document is cut, and where tokens have vectors also a query. A decoder without a head of classes is
    asked for its answer. Raises `ModelError` if the head has several classes, and `ParameterError` for
    `instruction` and `answers` where they have no meaning.
    """
    if parts.multi_vectors is not None:
        if instruction is not None or answers is not None:
            name = "answers" if instruction is None else "instruction"
            raise ParameterError(f"{name} has no meaning for a model that compares the vectors of tokens")
        return max_sims(parts, pairs, long=long)
    asks = "next_token" in parts.model.heads
    if not asks:
        parts.check_one_score()
    if answers is not None and not asks:
        raise ParameterError("answers have no meaning for a model with a head of classes")
    if asks or has_form_of_pairs(parts):
        texts = pair_texts(parts, pairs, instruction=instruction, long=long)
    else:
        texts = _pairs(parts, pairs, instruction, long)
    if asks:
        return answer_logits(parts, texts, answers), texts
    rows = ordered_scores(parts, "classes", texts)
    return [float(row[0, 0]) for row in rows], texts


def _pairs(
    parts: EncoderParts, pairs: Sequence[tuple[str, str]], instruction: str | None, long: Long
) -> list[TokenText]:
    """Returns what a cross-encoder reads: the instruction, or the folder's prompt, is before the query."""
    prompt = default_prompt(parts.folder) if instruction is None else checked_text(instruction, "instruction")
    texts = []
    for index, (query, document) in enumerate(pairs):
        with numbered(index, len(pairs), "document"):
            first = prompt + checked_text(query, "the query")
            texts.append(pair(parts, first, checked_text(document, "each document"), long=long))
    return texts


def ranked(
    documents: Sequence[str],
    logits: Sequence[float],
    lost: Sequence[int],
    how: Scoring,
    top_n: int | None = None,
) -> list[Ranked]:
    """Returns documents in the order of their logits, equal ones in the given order.

    Scores of large logits are all near 1, so they decide nothing.
    """
    order = sorted(range(len(logits)), key=lambda index: (-logits[index], index))[:top_n]
    return [
        Ranked(
            index=index,
            score=float(scores_of(np.array(logits[index], np.float64), how)),
            logit=logits[index],
            document=documents[index],
            lost=lost[index],
        )
        for index in order
    ]
