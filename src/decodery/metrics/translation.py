"""Measures translations with sacrebleu: BLEU and chrF, with the signature that makes numbers comparable.

Post, A Call for Clarity in Reporting BLEU Scores (2018).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Literal

from decodery.errors import ParameterError
from decodery.metrics.arguments import chosen, count, listed, refuse, same_length, texts
from decodery.metrics.differences import Difference
from decodery.metrics.resampling import jackknife_error, members
from decodery.metrics.score import Score

Tokenizer = Literal["13a", "intl", "zh", "char", "none"]
UNIT = "score 0-100"
# chrF++ counts two; the time grows with each.
MOST_WORDS = 9


def bleu(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: Tokenizer = "13a",
    lowercase: bool = False,
    effective_order: bool = False,
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """Returns the BLEU of a corpus; `settings` is sacrebleu's signature.

    `references` has a list of texts for each prediction, as many as there are. `tokenize` is one of
    sacrebleu's tokenizers that need no download; Chinese needs "zh", and other scripts without spaces "char".
    Without `effective_order` a corpus that is too short for four words in a row has 0. BLEU is that of the
    corpus, not the mean of sentences. It is undefined if all references are empty. The error is the
    jackknife's.
    Raises `ParameterError` for no texts, other lengths, and references that are not a list for each
    prediction.
    """
    chosen("tokenize", tokenize, ("13a", "intl", "zh", "char", "none"))
    metric = _sacrebleu().BLEU(
        tokenize=tokenize, lowercase=lowercase, effective_order=effective_order, force=True
    )
    return _corpus_score(metric, predictions, references, groups)


def sentence_bleu(
    prediction: str, references: Sequence[str], *, tokenize: Tokenizer = "13a", lowercase: bool = False
) -> Score:
    """Returns the BLEU of one text with effective order: two words are compared by one and two words.

    Arguments and exceptions are those of `bleu`.
    """
    return bleu([prediction], [references], tokenize=tokenize, lowercase=lowercase, effective_order=True)


def chrf(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    word_order: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """Returns the chrF of a corpus, or chrF++ with `word_order` 2; `settings` is sacrebleu's signature.

    Of several references of a text the best counts. Other arguments, undefined cases, the error and
    exceptions are those of `bleu`. Popović, chrF: Character N-gram F-score for Automatic MT Evaluation
    (2015).
    """
    metric = _sacrebleu().CHRF(word_order=_words_in_a_row(word_order))
    return _corpus_score(metric, predictions, references, groups)


def corpus_difference(
    metric: Literal["bleu", "chrf"],
    one: Sequence[str],
    other: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: Tokenizer = "13a",
    lowercase: bool = False,
    word_order: int = 0,
    rounds: int = 1000,
    seed: int = 0,
) -> Difference:
    """Returns how much better the corpus score of `other` is than that of `one`, with the paired bootstrap.

    Each round draws as many texts as there are, with replacement, and scores both corpora on them. The
    interval has 95% of the rounds, and the p-value is twice the smaller share of rounds with a difference of
    at most 0, or of at least 0. There is no standard error beside the interval. All is undefined if all
    references are empty, and one text alone has a value only. Arguments and exceptions are those of `bleu`
    and `chrf`, and fewer than 100 rounds are an error.
    Koehn, Statistical Significance Tests for Machine Translation Evaluation (2004).
    """
    import numpy as np

    chosen("metric", metric, ("bleu", "chrf"))
    rounds, seed = count("rounds", rounds, 100), count("seed", seed)
    if metric == "bleu":
        scores = [bleu(texts, references, tokenize=tokenize, lowercase=lowercase) for texts in (one, other)]
        scorer = _sacrebleu().BLEU(tokenize=tokenize, lowercase=lowercase, force=True)
    else:
        scores = [chrf(texts, references, word_order=word_order) for texts in (one, other)]
        scorer = _sacrebleu().CHRF(word_order=_words_in_a_row(word_order))
    settings = f"paired bootstrap, {rounds} rounds, seed {seed}, {len(one)} texts"
    values = [score.value for score in scores]
    if values[0] is None or values[1] is None:
        return Difference(None, None, None, None, None, 0, len(one), settings)
    if len(one) < 2:
        return Difference(values[1] - values[0], None, None, None, None, 1, settings=settings)
    streams = _streams(_references(references))
    counts = [np.array(scorer._extract_corpus_statistics(list(texts), streams)) for texts in (one, other)]
    random = np.random.default_rng(seed)
    gaps = []
    for _ in range(rounds):
        times = np.bincount(random.integers(0, len(one), len(one)), minlength=len(one))
        first, second = (scorer._compute_score_from_stats((times @ of).tolist()).score for of in counts)
        gaps.append(second - first)
    drawn = np.array(gaps)
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    low, high = (float(edge) for edge in np.quantile(drawn, (0.025, 0.975)))
    return Difference(
        values[1] - values[0],
        None,
        low,
        high,
        min(1.0, 2 * (tail + 1) / (rounds + 1)),
        len(one),
        settings=settings,
    )


def _words_in_a_row(word_order: int) -> int:
    found = count("word_order", word_order)
    if found > MOST_WORDS:
        refuse("word_order", f"must be at most {MOST_WORDS}, not {found}")
    return found


def _corpus_score(
    metric: Any,
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: Sequence[Hashable] | None,
) -> Score:
    given, known = texts("predictions", predictions), _references(references)
    same_length(predictions=given, references=known)
    streams = _streams(known)
    value = metric.corpus_score(given, streams).score
    settings = f"{metric.get_signature()}"
    if not any(option.strip() for options in known for option in options):
        return Score(None, None, UNIT, 0, len(given), settings)
    error = jackknife_error(_without_each(metric, given, streams, groups))
    return Score(min(float(value), 100.0), error, UNIT, len(given), settings=settings)


def _without_each(
    metric: Any, given: list[str], streams: list[list[str | None]], groups: Sequence[Hashable] | None
) -> Iterator[tuple[float, int]]:
    """Yields the corpus score without each group: counts of n-grams are summed over texts."""
    import numpy as np

    counts = np.array(metric._extract_corpus_statistics(given, streams))
    total = counts.sum(0)
    for group in members(groups, len(given)):
        rest = total - counts[group].sum(0)
        yield float(metric._compute_score_from_stats(rest.tolist()).score), 1


def _streams(known: list[list[str]]) -> list[list[str | None]]:
    """Returns the first reference of all texts, then the second; None where a text has fewer."""
    most = max(len(options) for options in known)
    return [[options[at] if at < len(options) else None for options in known] for at in range(most)]


def _references(references: Sequence[Sequence[str]]) -> list[list[str]]:
    known = []
    for index, options in enumerate(listed("references", references)):
        if isinstance(options, str):
            refuse(f"references[{index}]", "is a text: give a list of references for each prediction")
        known.append(texts(f"references[{index}]", options))
    return known


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise ParameterError(
            f'BLEU and chrF need sacrebleu: run pip install "decodery[evaluation]" ({error})'
        ) from None
    return metrics
