"""Compares ways to classify texts: by the labels' names, by labelled examples, and by a prompted model."""

from __future__ import annotations

import csv
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from decodery.decoding.request.grammar_params import Choice
from decodery.decoding.request.params import GenerationParams
from decodery.errors import DecoderyError, ParameterError
from decodery.llm import LLM
from decodery.metrics.classification import accuracy, f1
from decodery.metrics.differences import Difference, mcnemar
from decodery.metrics.score import Score

_REQUESTS = Path(__file__).with_name("library_requests.csv")
# What the vectors of requests are compared with, and what a prompt says about each label.
_DESCRIPTIONS = {
    "account": "the library card, registration, passwords and personal data",
    "events": "readings, courses, clubs, tours and exhibitions",
    "fees": "fines, prices, payments and refunds",
    "hours": "opening hours, directions and the building",
    "loans": "borrowing, renewing, reserving and returning books",
    "technology": "computers, printers, Wi-Fi, apps and e-books",
}
Example = tuple[str, str]
# Returns the label of each text, or None where there was none.
Predict = Callable[[Sequence[str]], list[str | None]]


@dataclass(frozen=True, slots=True)
class ClassifierResult:
    """Holds how one way to classify did on the texts of the test.

    `predicted` has a label for each text, None where the way gave none, which counts as wrong. `f1` is the
    mean over labels. `difference` is the accuracy minus that of the best way on the same texts, with
    McNemar's exact test; None for the best way itself. `fit_seconds` are for learning from examples and
    `predict_seconds` for all texts of the test; loading models is not counted.
    """

    way: str
    model: str
    predicted: tuple[str | None, ...]
    accuracy: Score
    f1: Score
    fit_seconds: float
    predict_seconds: float
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class ClassifierComparison:
    """Holds the results of all ways, over the same `test` examples; `train` are those to learn from."""

    labels: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    results: tuple[ClassifierResult, ...]


def library_requests() -> tuple[list[Example], dict[str, str]]:
    """Returns 300 requests to a town library with their labels, and a description of each of the 6 labels.

    They were written for this recipe: 50 for each label, some of them hard.
    """
    with _REQUESTS.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)], dict(_DESCRIPTIONS)


def compare_classifiers(
    encoder: LLM,
    chat: LLM,
    examples: Sequence[Example] | None = None,
    *,
    descriptions: Mapping[str, str] | None = None,
    shots: int = 2,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> ClassifierComparison:
    """Returns how well and how fast texts are classified in three ways, and by the most frequent label.

    The ways are the similarity of a text's vector to those of the labels' descriptions; a logistic regression
    on the vectors of half of the examples; and a chat model that is asked for the label, without examples and
    with `shots` for each label, and can answer labels only. `examples` are texts and labels (default:
    `library_requests`). Half of each label's texts are for the test; `seed` chooses them, and equal texts
    stay together. `descriptions` say in a few words what the labels are about (default: the labels
    themselves). `progress` is told the name of each way before it begins.

    Raises `ParameterError` for fewer than two labels, a label without a text in both halves or with more
    shots than its half has, and a description of another label; `ModelError` for a model that does not fit.
    """
    if examples is None:
        examples, own = library_requests()
        descriptions = own if descriptions is None else descriptions
    train, test = halves(examples, shots=shots, seed=seed)
    labels = tuple(sorted({label for _, label in test}))
    meanings = _meanings(labels, descriptions)
    ways = {
        "most frequent label": ("", lambda: _most_frequent(train)),
        "similarity to labels": (encoder.path.name, lambda: _by_similarity(encoder, meanings)),
        "logistic regression": (encoder.path.name, lambda: _by_regression(encoder, train)),
        "chat model, zero-shot": (chat.path.name, lambda: _by_chat(chat, meanings, [])),
        f"chat model, {shots} per label": (
            chat.path.name,
            lambda: _by_chat(chat, meanings, _shots(train, labels, shots)),
        ),
    }
    results = []
    for way, (model, fit) in ways.items():
        progress(way)
        results.append(_measured(way, model, fit, labels, test))
    return ClassifierComparison(labels, tuple(train), tuple(test), _compared(results, test))


def _meanings(labels: Sequence[str], descriptions: Mapping[str, str] | None) -> dict[str, str]:
    given = {} if descriptions is None else descriptions
    if unknown := sorted(given.keys() - set(labels)):
        raise ParameterError(f"no example has the label {unknown[0]!r} of a description")
    return {label: given.get(label, label) for label in labels}


def halves(examples: Sequence[Example], *, shots: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Returns the examples to learn from and those of the test.

    The order within a label is that of a hash of seed and text, so it doesn't depend on the other examples.
    Raises the errors of `compare_classifiers` for examples.
    """
    if shots < 1:
        raise ParameterError(f"shots must be 1 or more, not {shots}")
    labels = sorted({label for _, label in examples})
    if len(labels) < 2:
        raise ParameterError(f"two different labels or more are needed, not {len(labels)}")
    label_of: dict[str, str] = {}
    for text, label in examples:
        if label_of.setdefault(text, label) != label:
            raise ParameterError(f"the text {text!r} has two labels, {label_of[text]!r} and {label!r}")
    train: list[Example] = []
    test: list[Example] = []
    for label in labels:
        texts = sorted(
            (text for text, its in label_of.items() if its == label), key=lambda text: _hash(seed, text)
        )
        if len(texts) // 2 < shots:
            raise ParameterError(
                f"the label {label!r} has {len(texts)} different texts, and {shots} shots need"
                f" {2 * shots} or more"
            )
        half = len(texts) // 2
        train += [(text, label) for text in texts[:half]]
        test += [(text, label) for text in texts[half:]]
    return train, sorted(test, key=lambda example: _hash(seed, example[0]))


def _hash(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).digest()


def _shots(train: Sequence[Example], labels: Sequence[str], count: int) -> list[Example]:
    """Returns the first examples of each label, one label after another so that none comes last twice."""
    by_label = {label: [example for example in train if example[1] == label] for label in labels}
    return [by_label[label][place] for place in range(count) for label in labels]


def _most_frequent(train: Sequence[Example]) -> Predict:
    [(label, _)] = Counter(label for _, label in train).most_common(1)
    return lambda texts: [label for _ in texts]


def _by_similarity(encoder: LLM, meanings: Mapping[str, str]) -> Predict:
    labels = {meaning: label for label, meaning in meanings.items()}
    if len(labels) < len(meanings):
        raise ParameterError("two labels have the same description")

    def predict(texts: Sequence[str]) -> list[str | None]:
        found = encoder.classify(list(texts), labels=list(labels), method="similarity", top_k=1)
        return [labels[one.label] for one in found]

    return predict


def _by_regression(encoder: LLM, train: Sequence[Example]) -> Predict:
    learned = encoder.learn_labels(train)
    return lambda texts: [one.label for one in encoder.classify(list(texts), examples=learned)]


def _by_chat(chat: LLM, meanings: Mapping[str, str], shots: Sequence[Example]) -> Predict:
    """Returns a function that asks for labels; the same beginning of all conversations is computed once."""
    listed = "\n".join(
        f"- {label}" if meaning == label else f"- {label}: {meaning}" for label, meaning in meanings.items()
    )
    instruction = f"Answer with the label of the text, one of:\n{listed}"
    turns = [{"role": "system", "content": instruction}]
    for text, label in shots:
        turns += [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
    longest = max(len(chat.tokenizer.encode(label)) for label in meanings)
    params = GenerationParams(temperature=0, max_tokens=2 * longest + 4, grammar=Choice(tuple(meanings)))

    def predict(texts: Sequence[str]) -> list[str | None]:
        outputs = chat.chat([[*turns, {"role": "user", "content": text}] for text in texts], params)
        answers = [output.completions[0].text for output in outputs]
        return [answer if answer in meanings else None for answer in answers]

    return predict


def _measured(
    way: str, model: str, fit: Callable[[], Predict], labels: Sequence[str], test: Sequence[Example]
) -> ClassifierResult:
    started = time.perf_counter()
    predict = fit()
    learned = time.perf_counter()
    predicted = predict([text for text, _ in test])
    ended = time.perf_counter()
    if len(predicted) != len(test):
        raise DecoderyError(f"{way} answered {len(predicted)} of {len(test)} texts")
    gold = [label for _, label in test]
    return ClassifierResult(
        way,
        model,
        tuple(predicted),
        accuracy(gold, predicted),
        f1(gold, predicted, labels=labels),
        learned - started,
        ended - learned,
    )


def _compared(results: Sequence[ClassifierResult], test: Sequence[Example]) -> tuple[ClassifierResult, ...]:
    """Returns the results with their differences to the best one, the first of equals."""
    right = [
        [answer == label for answer, (_, label) in zip(one.predicted, test, strict=True)] for one in results
    ]
    best = max(range(len(results)), key=lambda place: sum(right[place]))
    return tuple(
        one if place == best else replace(one, difference=mcnemar(right[best], right[place]))
        for place, one in enumerate(results)
    )
