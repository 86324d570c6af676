"""Measures summaries by the words that they share with references: ROUGE.

Lin, ROUGE: A Package for Automatic Evaluation of Summaries (2004).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from decodery.errors import ParameterError
from decodery.metrics.arguments import chosen, listed, same_length, texts
from decodery.metrics.score import Score, mean
from decodery.metrics.subsequences import common_length, common_places
from decodery.metrics.word_splitting import latin_words, lines, sentences, words

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")

Tokenizer = Literal["unicode", "rouge-score"]
Splitter = Literal["sentences", "lines"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Holds what two texts share: its share of the candidate, of the reference, and their harmonic mean.

    `precision` is None for a candidate without the units that are compared, such as pairs of words.
    """

    precision: float | None
    recall: float
    f1: float


def rouge(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    kinds: Sequence[str] = KINDS,
    *,
    tokenizer: Tokenizer = "unicode",
    stemmer: bool = False,
    split: Splitter = "sentences",
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Score]:
    """Returns the mean F1 of ROUGE by kind: words, pairs of words, and longest common subsequences.

    `references` has one text for each prediction, or a list of them, of which the best F1 counts, for each
    kind alone. "rougeLsum" compares sentences: `split` finds them ("sentences"), or takes lines as
    rouge-score does. The tokenizer "unicode" keeps letters of every script, "rouge-score" a-z and 0-9 only.
    `stemmer` takes Porter's stems of words of more than three letters, of English alone, from nltk. A text is
    undefined if no reference has the units that are compared: no words, or for "rouge2" one word. An empty
    prediction is 0.
    Raises `ParameterError` for no texts, other lengths, an empty list of references, and an unknown kind.
    """
    given, known = texts("predictions", predictions), listed("references", references)
    same_length(predictions=given, references=known)
    found = [
        rouge_scores(
            prediction, reference, kinds, tokenizer=tokenizer, stemmer=stemmer, split=split, place=index
        )
        for index, (prediction, reference) in enumerate(zip(given, known, strict=True))
    ]
    several = any(not isinstance(reference, str) for reference in known)
    result = {}
    for kind in found[0]:
        settings = f"{kind}, F1, tokenizer {tokenizer}, {'Porter stems' if stemmer else 'no stems'}"
        if kind == "rougeLsum":
            settings += f", split into {split}"
        settings += ", best of several references" if several else ""
        values = [None if (one := overlaps[kind]) is None else one.f1 for overlaps in found]
        result[kind] = mean(values, groups=groups, settings=settings)
    return result


def rouge_scores(
    prediction: str,
    reference: str | Sequence[str],
    kinds: Sequence[str] = KINDS,
    *,
    tokenizer: Tokenizer = "unicode",
    stemmer: bool = False,
    split: Splitter = "sentences",
    place: int = 0,
) -> dict[str, Overlap | None]:
    """Returns precision, recall and F1 of ROUGE for one prediction by kind, None where it is undefined.

    The arguments are those of `rouge`; `place` stands in the messages of errors.
    """
    references = [reference] if isinstance(reference, str) else texts(f"references[{place}]", reference)
    for kind in listed("kinds", kinds):
        chosen("kinds", kind, KINDS)
    tokens = _tokens(tokenizer, stemmer)
    chosen("split", split, ("sentences", "lines"))
    divide = sentences if split == "sentences" else lines

    def units(text: str) -> list[list[str]]:
        return [tokens(part) for part in divide(text)]

    candidate = tokens(prediction)
    result: dict[str, Overlap | None] = {}
    for kind in kinds:
        if kind == "rougeLsum":
            parts = units(prediction)
            options = [_summary_overlap(parts, units(text)) for text in references]
        elif kind == "rougeL":
            options = [_sequence_overlap(candidate, tokens(text)) for text in references]
        else:
            options = [_ngram_overlap(candidate, tokens(text), int(kind[-1])) for text in references]
        defined = [option for option in options if option is not None]
        result[kind] = max(defined, key=lambda option: option.f1, default=None)
    return result


def _overlap(shared: int, candidate: int, reference: int) -> Overlap | None:
    if not reference:
        return None
    precision = shared / candidate if candidate else None
    return Overlap(precision, shared / reference, 2 * shared / (candidate + reference))


def _ngram_overlap(candidate: Sequence[str], reference: Sequence[str], size: int) -> Overlap | None:
    ours, theirs = (
        Counter(tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1))
        for tokens in (candidate, reference)
    )
    return _overlap((ours & theirs).total(), ours.total(), theirs.total())


def _sequence_overlap(candidate: Sequence[str], reference: Sequence[str]) -> Overlap | None:
    return _overlap(common_length(reference, candidate), len(candidate), len(reference))


def _summary_overlap(
    candidate: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]
) -> Overlap | None:
    """Returns the overlap of summaries: for each sentence the union of what it shares with any other.

    A word counts at most as often as it occurs in either summary, as in version 1.5.5 of the ROUGE package.
    """
    ours = Counter(word for sentence in candidate for word in sentence)
    theirs = Counter(word for sentence in reference for word in sentence)
    shared: Counter[str] = Counter()
    for sentence in reference:
        places = set().union(*(common_places(sentence, other) for other in candidate))
        shared.update(sentence[place] for place in places)
    return _overlap((shared & ours & theirs).total(), ours.total(), theirs.total())


def _tokens(tokenizer: Tokenizer, stemmer: bool) -> Callable[[str], list[str]]:
    chosen("tokenizer", tokenizer, ("unicode", "rouge-score"))
    divide = words if tokenizer == "unicode" else latin_words
    if not stemmer:
        return divide
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError as error:
        raise ParameterError(f"stemmer needs nltk: run pip install nltk ({error})", param="stemmer") from None
    stem = PorterStemmer().stem
    return lambda text: [stem(word) if len(word) > 3 else word for word in divide(text)]
