"""Defines classification by vectors as MTEB does: a regression on few examples of each label, several times.

Muennighoff et al., MTEB: Massive Text Embedding Benchmark (2023).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, Outcome, Sample
from decodery.evaluation.layouts.splits import files_of
from decodery.evaluation.layouts.tables import Row, read_rows, read_text
from decodery.evaluation.vectors.contract import Embed, Evaluated, Floats, VectorData
from decodery.evaluation.vectors.sklearn_fits import one_thread, scikit_learn
from decodery.evaluation.vectors.vector_files import label_of, required_data, text_of
from decodery.metrics.classification import f1
from decodery.metrics.score import Score, mean

# MTEB's numbers. With the run's seed 0, the draws are MTEB's own.
EXAMPLES, DRAWS, SEED, STEPS = 8, 10, 42, 100


@dataclass(frozen=True, slots=True)
class ClassificationTask:
    """Holds a task of texts with one label each. `labels` is the number of labels that the data must have."""

    name: str
    labels: int | None = None
    version: int = 1

    def read(self, data: Path | None) -> VectorData:
        """Reads text and label (or category) of the rows of the files train and test."""
        folder = required_data(self.name, data)
        if not folder.is_dir():
            raise ParameterError(f"{self.name} needs a folder with files train and test: {folder} is a file")
        if not files_of(folder, "train") and (inner := folder / "banking_data").is_dir():
            folder = inner
        named = folder / "categories.json"
        known = _categories(named) if named.is_file() else None
        splits = {split: self._documents(folder, split, known) for split in ("train", "test")}
        found = {document.fields["label"] for document in splits["train"]}
        strange = next((one for one in splits["test"] if one.fields["label"] not in found), None)
        if strange is not None:
            raise ParameterError(f"{strange.id}: the label {strange.fields['label']} is not one of train")
        if len(found) < 2:
            raise ParameterError(f"{folder}: train has {len(found)} label: two or more are needed")
        if self.labels is not None and len(found) != self.labels:
            raise ParameterError(
                f"{folder}: train has {len(found)} labels, and {self.name} has {self.labels}"
            )
        return VectorData(splits["test"], {"train": splits["train"]}, f"{folder.name}, train and test")

    def _documents(self, folder: Path, split: str, known: set[str] | None) -> tuple[Document, ...]:
        files = files_of(folder, split)
        if not files:
            raise ParameterError(f"{folder} has no file {split}")
        return tuple(
            _document(row, f"{file.name}, row {number}", known)
            for file in files
            for number, row in enumerate(read_rows(file), 1)
        )

    def evaluate(self, data: VectorData, embed: Embed, *, seed: int) -> Evaluated:
        """Returns the mean accuracy and macro F1 of several regressions, and their spread over the draws."""
        train = list(data.beside["train"])
        labels = [document.fields["label"] for document in train]
        gold = [document.fields["label"] for document in data.documents]
        draws = drawn_examples(labels, SEED + seed)
        needed = sorted({place for draw in draws for place in draw})
        examples = embed([train[place].fields["text"] for place in needed])
        vectors = dict(zip(needed, examples.vectors, strict=True))
        asked = embed([document.fields["text"] for document in data.documents])
        predicted = [
            predictions([vectors[place] for place in draw], [labels[place] for place in draw], asked.vectors)
            for draw in draws
        ]
        samples = [
            _sample(document, [each[i] for each in predicted], int(asked.lost[i]))
            for i, document in enumerate(data.documents)
        ]
        return Evaluated(samples, _results(samples, gold, predicted, needed, labels))


def drawn_examples(labels: Sequence[str], seed: int) -> list[list[int]]:
    """Returns the places of at most 8 examples of each label, for each of 10 draws.

    The places are shuffled by numpy's `RandomState(seed)`, and shuffled on for the next draw.
    """
    places = list(range(len(labels)))
    draws = []
    for _ in range(DRAWS):
        np.random.RandomState(seed).shuffle(places)
        times: Counter[str] = Counter()
        chosen = []
        for place in places:
            if times[labels[place]] < EXAMPLES:
                chosen.append(place)
                times[labels[place]] += 1
        draws.append(chosen)
    return draws


def predictions(vectors: Sequence[Any], labels: Sequence[str], asked: Floats) -> list[str]:
    """Returns the labels that a logistic regression on labelled vectors gives to those asked for."""
    library = scikit_learn("sklearn.linear_model")
    with one_thread():
        regression = library.LogisticRegression(max_iter=STEPS, random_state=SEED)
        regression.fit(np.stack(vectors), list(labels))
        return [str(label) for label in regression.predict(asked)]


def _sample(document: Document, found: Sequence[str], lost: int) -> Sample:
    gold = document.fields["label"]
    right = [label == gold for label in found]
    most = Counter(found).most_common(1)[0][0]
    outcome = Outcome(
        {"accuracy": sum(right) / len(right)},
        gold=gold,
        predicted=most,
        why=f"right in {sum(right)} of {len(right)} draws",
        counts={"cut": int(lost > 0)},
        details={"draws": list(found)},
    )
    return Sample(document, outcome)


def _results(
    samples: Sequence[Sample],
    gold: Sequence[str],
    predicted: Sequence[Sequence[str]],
    needed: Sequence[int],
    labels: Sequence[str],
) -> dict[str, Score]:
    few = [label for label, times in sorted(Counter(labels).items()) if times < EXAMPLES]
    settings = f"{DRAWS} draws of {EXAMPLES} examples a label, {len(needed)} different ones"
    settings += f"; fewer examples: {', '.join(few)}" if few else ""
    accuracies = [sum(a == b for a, b in zip(gold, each, strict=True)) / len(gold) for each in predicted]
    names = sorted(set(labels))
    scores = [f1(gold, each, labels=names).value for each in predicted]
    spread = "standard deviation of the accuracy over draws"
    return {
        "accuracy": mean([one.outcome.values["accuracy"] for one in samples], settings=settings),
        "f1": mean(scores, settings=f"{settings}; macro average; the error is over the draws alone"),
        "spread": Score(float(np.std(accuracies, ddof=1)), None, spread, len(accuracies), settings=settings),
    }


def _document(row: Row, place: str, known: set[str] | None) -> Document:
    label = label_of(row, place, "label", "category")
    if known is not None and label not in known:
        raise ParameterError(f"{place}: the label {label} is not in categories.json")
    return Document(place, {"text": text_of(row, place, "text"), "label": label})


def _categories(file: Path) -> set[str]:
    try:
        found = json.loads(read_text(file))
    except ValueError as error:
        raise ParameterError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ParameterError(f"{file} must hold a list of names")
    return set(found)
