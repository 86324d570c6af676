"""Implements `decodery eval score` and `decodery eval bertscore-baseline`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from decodery.cli.commands.evaluation.run import shown
from decodery.cli.flags.line_options import EncoderOptions
from decodery.cli.flags.score_options import ScoreOptions
from decodery.cli.load_encoder import load_encoder
from decodery.cli.terminal import aligned, emit, emit_json, note
from decodery.errors import DecoderyError, ParameterError
from decodery.evaluation.layouts.text_files import has_rows, read_options, read_texts
from decodery.evaluation.text_scores import (
    KINDS,
    References,
    TextScores,
    TextScoring,
    checked,
    score_differences,
    score_texts,
)
from decodery.llm import LLM
from decodery.metrics.differences import Difference
from decodery.metrics.token_matching import random_baseline, read_baseline


def score(predictions: Path, how: ScoreOptions, *, as_json: bool) -> None:
    """Prints the scores; raises `ParameterError` for files that do not fit before a model is loaded."""
    metrics = _metrics(how)
    texts = read_texts(predictions, how.prediction_field)
    references = _references(predictions, how)
    checked(texts, references)
    others = None if how.compare is None else read_texts(Path(how.compare), how.prediction_field)
    if others is not None:
        checked(others, references)
    scoring = _scoring(metrics, how)
    found = score_texts(texts, references, scoring)
    if how.out is not None:
        _write(Path(how.out), texts, references, found)
    compared = {} if others is None else score_differences(texts, others, references, scoring)
    if as_json:
        plain = {name: dataclasses.asdict(one) for name, one in found.scores.items()}
        differences = {name: dataclasses.asdict(one) for name, one in compared.items()}
        emit_json({"texts": len(texts), "scores": plain, "differences": differences})
        return
    emit(_table(len(texts), found))
    if compared:
        emit(f"\n{how.compare} minus {predictions}\n{_differences(compared)}")


def bertscore_baseline(
    lines: Path, model: EncoderOptions, out: Path, *, field: str, limit: int | None, seed: int
) -> None:
    """Writes the BERTScore of unrelated texts for each layer, in the layout of bert-score's files."""
    texts = list(dict.fromkeys(text for text in read_texts(lines, field) if text.strip()))[:limit]
    if len(texts) < 2:
        raise ParameterError(f"{lines} has {len(texts)} different texts that are not empty; two are needed")
    llm = load_encoder(model)
    rows = ["LAYER,P,R,F"]
    for layer in range(llm.encoder.model.depth + 1):
        note(f"decodery: layer {layer} of {llm.encoder.model.depth}, {len(texts)} texts")
        numbers = random_baseline(texts, _embed(llm, layer), seed=seed)
        rows.append(",".join([str(layer), *(f"{number:.8f}" for number in numbers)]))
    _replace(out, "".join(f"{row}\n" for row in rows))


def _metrics(how: ScoreOptions) -> tuple[str, ...]:
    if how.metrics is not None:
        return tuple(name.strip() for name in how.metrics.split(",") if name.strip())
    if how.kind is None:
        raise ParameterError(f"say what the texts are, --kind {'|'.join(KINDS)}, or which --metrics to use")
    if how.kind not in KINDS:
        raise ParameterError(f"kind must be {', '.join(KINDS)}, not {how.kind!r}")
    return KINDS[how.kind]


def _references(predictions: Path, how: ScoreOptions) -> References:
    """Returns the references of each text, which may be in the same rows as the texts."""
    files = [Path(name) for name in how.references]
    if not files and not has_rows(predictions):
        raise ParameterError("--references is missing: a file with the reference of each text")
    files = files or [predictions]
    columns = [read_options(file, how.reference_field) for file in files]
    for file, column in zip(files, columns, strict=True):
        if len(column) != len(columns[0]):
            raise ParameterError(f"{files[0]} has {len(columns[0])} references and {file} has {len(column)}")
    return [[one for options in row for one in options] for row in zip(*columns, strict=True)]


def _scoring(metrics: Sequence[str], how: ScoreOptions) -> TextScoring:
    tokenize: Any = how.tokenize
    scoring = partial(
        TextScoring,
        tuple(metrics),
        tokenize=tokenize,
        lowercase=how.lowercase,
        word_order=how.word_order,
        stemmer=how.stemmer,
    )
    if "bertscore" not in metrics:
        return scoring()
    llm = load_encoder(EncoderOptions(model=how.encoder))
    depth = llm.encoder.model.depth
    layer = how.layer if how.layer >= 0 else depth + 1 + how.layer
    baseline = None if how.baseline is None else read_baseline(how.baseline, layer)
    return scoring(embed=_embed(llm, layer), encoder=f"{llm.path.name}, layer {layer}", baseline=baseline)


def _embed(llm: LLM, layer: int) -> Any:
    return partial(llm.embed_tokens, layer=layer, long="cut")


def _table(count: int, found: TextScores) -> str:
    rows = [[f"  {name}", shown(score), score.settings] for name, score in found.scores.items()]
    return f"{count} texts\n{aligned(rows)}"


def _differences(found: dict[str, Difference]) -> str:
    rows = []
    for name, one in found.items():
        if one.value is None:
            rows.append([f"  {name}", "undefined", "", "", ""])
            continue
        between = "" if one.low is None or one.high is None else f"{one.low:+.4f} to {one.high:+.4f}"
        real = "unknown" if one.p_value is None else "real" if one.p_value < 0.05 else "not told apart"
        p_value = "" if one.p_value is None else f"p {one.p_value:.4f}"
        rows.append([f"  {name}", f"{one.value:+.4f}", between, p_value, real])
    return aligned(rows, right=(1,))


def _write(out: Path, texts: Sequence[str], references: References, found: TextScores) -> None:
    rows = zip(texts, references, found.texts, strict=True)
    _replace(
        out,
        "".join(
            json.dumps({"prediction": text, "references": list(known), **values}, ensure_ascii=False) + "\n"
            for text, known, values in rows
        ),
    )


def _replace(out: Path, text: str) -> None:
    """Writes a file, which has its name once it is whole."""
    part = out.with_name(f"{out.name}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        os.replace(part, out)
    except OSError as error:
        raise DecoderyError(f"{out} cannot be written: {error.strerror or error}") from error
