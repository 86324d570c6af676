"""Scores texts against references: summaries, translations and answers that are in files."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from decodery.errors import ParameterError
from decodery.metrics.differences import Difference, bootstrap
from decodery.metrics.score import Score, mean
from decodery.metrics.short_answers import exact_match, token_f1
from decodery.metrics.summaries import rouge, rouge_scores
from decodery.metrics.token_matching import Baseline, Embed, bert_scores
from decodery.metrics.translation import Tokenizer, bleu, chrf, corpus_difference, sentence_bleu

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
METRICS = (*ROUGE, "bleu", "chrf", "bertscore", "exact_match", "token_f1")
KINDS: Mapping[str, tuple[str, ...]] = {
    "summary": ROUGE,
    "translation": ("bleu", "chrf"),
    "answer": ("exact_match", "token_f1"),
}
# Without a kind, what needs no encoder and compares texts of any length.
UNSAID = (*ROUGE, "bleu", "chrf")
References = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class TextScoring:
    """Says how texts are scored: `metrics` by their names, and what these depend on.

    `embed` gives the tokens' vectors for "bertscore", `encoder` is its name in the results, and `baseline`
    what unrelated texts have. `tokenize` and `lowercase` are BLEU's, `word_order` is 2 for chrF++, and
    `stemmer` is ROUGE's.
    """

    metrics: tuple[str, ...]
    embed: Embed | None = None
    encoder: str = ""
    baseline: Baseline | None = None
    tokenize: Tokenizer = "13a"
    lowercase: bool = False
    word_order: int = 0
    stemmer: bool = False

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ParameterError(f"metrics must name one or more of {', '.join(METRICS)}")
        _known(self.metrics)
        if "bertscore" in self.metrics and self.embed is None:
            raise ParameterError("bertscore needs an encoder")


def named_metrics(names: Sequence[str], kind: str | None = None) -> tuple[str, ...]:
    """Returns the metrics of these names, or of a kind of texts where none is named.

    "rouge" stands for all kinds of ROUGE. Raises `ParameterError` for an unknown kind or metric.
    """
    if kind is not None and kind not in KINDS:
        raise ParameterError(f"kind must be {', '.join(KINDS)}, not {kind!r}")
    if not names:
        return UNSAID if kind is None else KINDS[kind]
    spread = [one for name in names for one in (ROUGE if name == "rouge" else (name,))]
    _known(spread)
    return tuple(dict.fromkeys(spread))


def _known(names: Sequence[str]) -> None:
    for name in names:
        if name not in METRICS:
            raise ParameterError(f"metrics has {name!r}, which is none of rouge, {', '.join(METRICS)}")


@dataclass(frozen=True, slots=True)
class TextScores:
    """Holds the scores of all texts by metric, and those of each text, None where undefined.

    BLEU and chrF of a corpus are not the mean of those of its texts.
    """

    scores: Mapping[str, Score]
    texts: tuple[Mapping[str, float | None], ...]


def score_texts(
    predictions: Sequence[str],
    references: References,
    how: TextScoring,
    *,
    groups: Sequence[Hashable] | None = None,
) -> TextScores:
    """Returns the scores of texts, each of which has one reference or more.

    `groups` names for each text the group that it belongs to, such as the document that several texts
    summarise; the standard errors take each group as one draw. Raises `ParameterError` for no texts, other
    lengths, and a text without references.
    """
    checked(predictions, references)
    values = text_values(predictions, references, how)
    rouges = _rouges(predictions, references, how, groups)
    scores: dict[str, Score] = {}
    for name in how.metrics:
        if name in ROUGE:
            scores[name] = rouges[name]
        elif name == "bleu":
            scores[name] = bleu(
                predictions, references, tokenize=how.tokenize, lowercase=how.lowercase, groups=groups
            )
        elif name == "chrf":
            scores[name] = chrf(predictions, references, word_order=how.word_order, groups=groups)
        elif name == "bertscore":
            base = "not rescaled" if how.baseline is None else f"rescaled by {how.baseline[2]}"
            settings = f"F1, {how.encoder}, {base}"
            scores[name] = mean(values[name], unit="similarity", groups=groups, settings=settings)
        else:
            measure = exact_match if name == "exact_match" else token_f1
            scores[name] = measure(references, predictions, groups=groups)
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return TextScores(scores, tuple(rows))


def score_differences(
    one: Sequence[str],
    other: Sequence[str],
    references: References,
    how: TextScoring,
    *,
    scored: TextScores | None = None,
    seed: int = 0,
) -> dict[str, Difference]:
    """Returns by metric how much better the second texts are, with the paired bootstrap.

    For BLEU and chrF each round scores a corpus; the other metrics are means over texts. `scored` are the
    scores of the first texts where they are known. Raises the errors of `score_texts`.
    """
    for texts in (one, other):
        checked(texts, references)
    means = [name for name in how.metrics if name not in ("bleu", "chrf")]
    alone = replace(how, metrics=tuple(means)) if means else None
    second = text_values(other, references, alone) if alone else {}
    first = text_values(one, references, alone) if alone and scored is None else {}
    if scored is not None:
        first = {name: [row[name] for row in scored.texts] for name in means}
    found = {}
    for name in how.metrics:
        if name in ("bleu", "chrf"):
            found[name] = corpus_difference(
                "bleu" if name == "bleu" else "chrf",
                one,
                other,
                references,
                tokenize=how.tokenize,
                lowercase=how.lowercase,
                word_order=how.word_order,
                seed=seed,
            )
        else:
            found[name] = bootstrap(first[name], second[name], seed)
    return found


def checked(predictions: Sequence[str], references: References) -> None:
    """Raises `ParameterError` unless each text has one reference or more."""
    if len(predictions) != len(references):
        fewer = min(len(predictions), len(references))
        raise ParameterError(
            f"there are {len(predictions)} texts and {len(references)} references: number {fewer + 1} has no"
            " partner"
        )
    if not predictions:
        raise ParameterError("there are no texts to score")
    for number, options in enumerate(references, 1):
        if not options:
            raise ParameterError(f"text {number} has no reference")


def text_values(
    predictions: Sequence[str], references: References, how: TextScoring
) -> dict[str, list[float | None]]:
    """Returns by metric the value of each text, None where it is undefined.

    That of BLEU is the sentence BLEU, with effective order. Raises `ParameterError` if a library is missing.
    """
    pairs = list(zip(predictions, references, strict=True))
    kinds = [name for name in how.metrics if name in ROUGE]
    overlaps = (
        [rouge_scores(text, known, kinds, stemmer=how.stemmer) for text, known in pairs] if kinds else []
    )
    values: dict[str, list[float | None]] = {}
    for name in how.metrics:
        if name in ROUGE:
            values[name] = [None if (one := row[name]) is None else one.f1 for row in overlaps]
        elif name == "bertscore":
            assert how.embed is not None
            found = bert_scores(predictions, references, how.embed, baseline=how.baseline)
            values[name] = [None if one is None else one.f1 for one in found]
        else:
            values[name] = [_text_value(name, how)(text, known).value for text, known in pairs]
    return values


def _text_value(name: str, how: TextScoring) -> Callable[[str, Sequence[str]], Score]:
    if name == "bleu":
        return lambda text, known: sentence_bleu(text, known, tokenize=how.tokenize, lowercase=how.lowercase)
    if name == "chrf":
        return lambda text, known: chrf([text], [known], word_order=how.word_order)
    measure = exact_match if name == "exact_match" else token_f1
    return lambda text, known: measure([known], [text])


def _rouges(
    predictions: Sequence[str],
    references: References,
    how: TextScoring,
    groups: Sequence[Hashable] | None,
) -> dict[str, Score]:
    kinds = [name for name in how.metrics if name in ROUGE]
    if not kinds:
        return {}
    alone = all(len(options) == 1 for options in references)
    given = [options[0] for options in references] if alone else references
    return rouge(predictions, given, kinds, stemmer=how.stemmer, groups=groups)
