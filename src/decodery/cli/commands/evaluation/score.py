"""Implements `decodery eval score`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from decodery.cli.commands.evaluation.run import shown
from decodery.cli.flags.line_options import EncoderOptions
from decodery.cli.flags.score_options import ScoreOptions
from decodery.cli.load_encoder import load_encoder
from decodery.cli.resumable_file import check_outputs, replace_file
from decodery.cli.terminal import aligned, emit, emit_json, note
from decodery.errors import ParameterError
from decodery.evaluation.layouts.text_files import has_rows, read_references, read_texts
from decodery.evaluation.runs.text_report import text_report
from decodery.evaluation.text_scores import (
    References,
    TextScores,
    TextScoring,
    checked,
    named_metrics,
    score_differences,
    score_texts,
)
from decodery.llm import LLM
from decodery.metrics.differences import Difference
from decodery.metrics.token_matching import Embed, EmbeddedTokens, read_baseline

# The flags of each metric, or of those whose names begin so.
FLAGS = {
    "bleu": ("tokenize", "lowercase"),
    "chrf": ("word_order",),
    "rouge": ("stemmer",),
    "bertscore": ("encoder", "layer", "baseline", "long"),
}


def score(predictions: Path, how: ScoreOptions, *, as_json: bool) -> None:
    """Prints the scores; raises `ParameterError` for files that do not fit before a model is loaded."""
    metrics = named_metrics(_names(how), how.kind)
    _check_flags(metrics, how)
    given = (str(predictions), how.compare, how.sources, *how.references)
    written = [Path(name) for name in (how.out, how.report) if name is not None]
    check_outputs(written, [Path(name) for name in given if name is not None])
    texts = read_texts(predictions, how.prediction_field)
    references = _references(predictions, how)
    checked(texts, references)
    sources = _sources(len(texts), how)
    others = None if how.compare is None else read_texts(Path(how.compare), how.prediction_field)
    if others is not None:
        checked(others, references)
    scoring = _scoring(metrics, how)
    found = score_texts(texts, references, scoring)
    compared = {} if others is None else score_differences(texts, others, references, scoring, scored=found)
    if how.out is not None:
        replace_file(Path(how.out), _lines(texts, references, sources, found))
    if how.report is not None:
        page = text_report(predictions.name, texts, references, found, sources=sources, differences=compared)
        replace_file(Path(how.report), page)
    if as_json:
        plain = {name: dataclasses.asdict(one) for name, one in found.scores.items()}
        differences = {name: dataclasses.asdict(one) for name, one in compared.items()}
        emit_json({"texts": len(texts), "scores": plain, "differences": differences})
        return
    emit(_table(len(texts), found))
    if compared:
        emit(f"\n{how.compare} minus {predictions}\n{_differences(compared)}")


def _check_flags(metrics: Sequence[str], how: ScoreOptions) -> None:
    """Raises `ParameterError` for a flag of a metric that is not among these."""
    plain = ScoreOptions()
    for kind, names in FLAGS.items():
        changed = [name for name in names if getattr(how, name) != getattr(plain, name)]
        if changed and not any(metric.startswith(kind) for metric in metrics):
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
            raise ParameterError(f"{flags} says how {kind} is computed, which is not among the metrics")


def _names(how: ScoreOptions) -> list[str]:
    if how.metrics is None:
        return []
    names = [name.strip() for name in how.metrics.split(",") if name.strip()]
    if not names:
        raise ParameterError("metrics is empty: leave it out, or name some, such as rouge,bleu")
    return names


def _references(predictions: Path, how: ScoreOptions) -> References:
    """Returns the references of each text, which may be in the same rows as the texts."""
    files = [Path(name) for name in how.references]
    if not files and not has_rows(predictions):
        raise ParameterError("--references is missing: a file with the reference of each text")
    return read_references(files or [predictions], how.reference_field)


def _sources(count: int, how: ScoreOptions) -> list[str] | None:
    if how.sources is None:
        return None
    found = read_texts(Path(how.sources), how.source_field)
    if len(found) != count:
        raise ParameterError(
            f"there are {count} texts and {len(found)} sources: number {min(count, len(found)) + 1} has no"
            " partner"
        )
    return found


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
    if not -depth - 1 <= how.layer <= depth:
        raise ParameterError(
            f"layer must be from {-depth - 1} to {depth} for {llm.path.name}, not {how.layer}"
        )
    layer = how.layer % (depth + 1)
    baseline = None if how.baseline is None else read_baseline(how.baseline, layer)
    name = f"{llm.path.name}, layer {layer}" + (", long texts cut" if how.long == "cut" else "")
    return scoring(embed=_embed(llm, layer, how.long), encoder=name, baseline=baseline)


def _embed(llm: LLM, layer: int, long: Any) -> Embed:
    """Returns what gives texts their tokens' vectors, without the folder's prompts."""

    def embed(texts: list[str]) -> Sequence[EmbeddedTokens]:
        found = llm.embed_tokens(texts, layer=layer, prompt="", long=long)
        if lost := [one.lost for one in found if one.lost]:
            note(f"decodery: bertscore: {len(lost)} texts are cut, by {sum(lost)} tokens together")
        return found

    return embed


def _table(count: int, found: TextScores) -> str:
    rows = [[f"  {name}", shown(score), score.settings] for name, score in found.scores.items()]
    corpora = [name for name in found.scores if name in ("bleu", "chrf")]
    kinds = ["that of the mean over texts"] if len(corpora) < len(found.scores) else []
    kinds += [f"the jackknife's over texts for {' and '.join(corpora)}"] if corpora else []
    return f"{count} texts\n{aligned(rows)}± is the standard error: {', '.join(kinds)}\n"


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


def _lines(
    texts: Sequence[str], references: References, sources: Sequence[str] | None, found: TextScores
) -> str:
    """Returns a line of JSON for each text."""
    rows = []
    for place, (text, known, values) in enumerate(zip(texts, references, found.texts, strict=True)):
        source = {} if sources is None else {"source": sources[place]}
        row = {**source, "prediction": text, "references": list(known), **values}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(rows)
