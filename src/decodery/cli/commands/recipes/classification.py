"""Implements `decodery recipe classification`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from decodery.cli.flags.line_options import EncoderOptions
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.load_encoder import load_encoder
from decodery.cli.load_llm import load
from decodery.cli.resumable_file import check_outputs, replace_file
from decodery.cli.terminal import aligned, emit, emit_json, note
from decodery.errors import ParameterError
from decodery.evaluation.layouts.tables import read_rows
from decodery.metrics.score import Score
from decodery.recipes.classification import (
    ClassifierComparison,
    ClassifierResult,
    Example,
    compare_classifiers,
    halves,
    library_requests,
)

HEADER = ("way", "accuracy", "F1", "p", "fit s", "predict s")


def classification(
    data: Path | None,
    encoder: str | None,
    model: ModelOptions,
    shots: int,
    seed: int,
    *,
    show: int,
    out: Path | None,
    markdown: bool,
    as_json: bool,
) -> None:
    """Prints the table; raises `ParameterError` for data that cannot be used before a model is loaded."""
    if markdown and as_json:
        raise ParameterError("--markdown and --json exclude each other: give one")
    examples = None if data is None else _examples(data)
    halves(library_requests()[0] if examples is None else examples, shots=shots, seed=seed)
    if out is not None:
        check_outputs([out], [] if data is None else [data])
    chat = load(model)
    _ = chat.engine  # Raises for an encoder, before anything is computed.
    found = compare_classifiers(
        load_encoder(EncoderOptions(model=encoder, threads=model.threads)),
        chat,
        examples,
        shots=shots,
        seed=seed,
        progress=lambda way: note(f"decodery: {way}"),
    )
    if out is not None:
        rows = _rows(found.results, found)
        replace_file(out, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    if as_json:
        emit_json(_plain(found))
        return
    if markdown:
        _print_markdown(found)
    else:
        _print_table(found)
    _print_differing(found, show)


def _examples(data: Path) -> list[Example]:
    rows = read_rows(data, ("text", "label"))
    for number, row in enumerate(rows, 1):
        for name in ("text", "label"):
            if not isinstance(row[name], str) or not row[name].strip():
                raise ParameterError(
                    f"{data}: the {name} of row {number} of {len(rows)} must be a text that is not empty"
                )
    return [(row["text"], row["label"].strip()) for row in rows]


def _print_table(found: ClassifierComparison) -> None:
    rows = [HEADER, *map(_cells, found.results)]
    emit(f"{_title(found)}\n{aligned(rows, right=range(1, len(HEADER)))}")


def _print_markdown(found: ClassifierComparison) -> None:
    print(_title(found), end="\n\n")
    print(f"| {' | '.join(HEADER)} |\n|---|{'---:|' * (len(HEADER) - 1)}")
    for one in found.results:
        print(f"| {' | '.join(_cells(one))} |")


def _title(found: ClassifierComparison) -> str:
    counts = f"{len(found.labels)} labels, {len(found.train)} examples, {len(found.test)} texts in the test"
    models = dict.fromkeys(one.model for one in found.results if one.model)
    return f"{counts}; {', '.join(models)}; p is that of a difference to the best"


def _cells(one: ClassifierResult) -> list[str]:
    against = "best" if one.difference is None else _number(one.difference.p_value)
    seconds = (f"{one.fit_seconds:.2f}", f"{one.predict_seconds:.2f}")
    return [one.way, _shown(one.accuracy), _shown(one.f1), against, *seconds]


def _shown(score: Score) -> str:
    if score.value is None:
        return "undefined"
    return f"{score.value:.3f}" + ("" if score.error is None else f" ± {score.error:.3f}")


def _number(value: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _print_differing(found: ClassifierComparison, show: int) -> None:
    ways = [one for one in found.results if one.model]
    rows = [
        (text, label, answers)
        for (text, label), *answers in zip(found.test, *(one.predicted for one in ways), strict=True)
        if len(set(answers)) > 1
    ]
    print(f"\n{len(rows)} texts get different labels" + (":" if rows and show > 0 else ""))
    for text, label, answers in rows[: max(show, 0)]:
        print(f"  {text} ({label})")
        for one, answer in zip(ways, answers, strict=True):
            print(f"    {'right' if answer == label else 'wrong'}  {answer or 'no label'} ({one.way})")


def _plain(found: ClassifierComparison) -> dict[str, Any]:
    results = []
    for one in found.results:
        plain = dataclasses.asdict(one)
        del plain["predicted"]
        results.append(plain | {"unanswered": one.predicted.count(None)})
    counts = {"labels": found.labels, "train": len(found.train), "test": len(found.test)}
    return counts | {"results": results}


def _rows(results: Sequence[ClassifierResult], found: ClassifierComparison) -> Iterator[dict[str, Any]]:
    for place, (text, label) in enumerate(found.test):
        yield {"text": text, "label": label, **{one.way: one.predicted[place] for one in results}}
