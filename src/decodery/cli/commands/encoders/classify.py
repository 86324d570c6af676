"""Implements `decodery classify`: writes the class of each line."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decodery.cli.commands.encoders.line_fields import inputs_of, names_of, switch_of
from decodery.cli.commands.encoders.result_lines import write_json_lines
from decodery.cli.commands.encoders.search import check_alone
from decodery.cli.flags.line_options import EncoderOptions, LineOptions
from decodery.cli.flags.task_options import ClassifyOptions
from decodery.cli.line_work import as_json_lines, begun_file, identity_of, output_path, work_through
from decodery.cli.terminal import note
from decodery.cli.text_lines import Line, read_lines, text_of
from decodery.encoding.results import Classification
from decodery.encoding.tasks.examples import LearnedLabels
from decodery.errors import ParameterError, RequestError
from decodery.llm import LLM
from decodery.search.baselines import checked_baseline, learn_baseline

Values = Callable[[Sequence[Line]], Iterator[dict[str, Any]]]


def classify(files: Sequence[Path], how: ClassifyOptions, lines: LineOptions, model: EncoderOptions) -> None:
    """Writes the class of each line; says on stderr how accurate labels from examples are."""
    arguments = {
        **dataclasses.asdict(how),
        "labels": names_of(how.labels),
        "multi_label": switch_of("multi_label", how.multi_label),
        **{name: _class_of(getattr(how, name)) for name in ("entailment", "contradiction")},
    }
    settings = {"command": "classify", **dataclasses.asdict(how)}
    del arguments["with_"]
    examples = None if how.examples is None else _examples(Path(how.examples), lines.field)
    if how.with_ is not None:
        _with_baseline(files, how, lines, model, examples)
        return
    if examples is not None:
        settings["examples"] = _digest(examples)

    def work(llm: LLM) -> Values:
        given = {**arguments, "examples": None if examples is None else _learned(llm, examples, how.long)}
        # Wrong arguments are an error here, before the first line.
        llm.classify("a", **given)
        return lambda chunk: _values(chunk, llm.classify(inputs_of(chunk, lines.field), **given))

    write_json_lines(files, lines, model, settings, work, "classifying")


def _class_of(name: str | None) -> str | int | None:
    """Returns a class by its name, or by its index."""
    return int(name) if name is not None and name.isascii() and name.isdigit() else name


def _examples(file: Path, field: str) -> list[tuple[str, str]]:
    """Returns the texts and labels of a file of JSON lines; raises `RequestError` that names a wrong line."""
    found = []
    for line in read_lines([file], as_json=True):
        try:
            if not isinstance(line.value, Mapping):
                raise RequestError("an example must be an object with a text and a label")
            text, label = text_of(line, field), text_of(line, "label")
            if not isinstance(text, str) or not isinstance(label, str):
                raise RequestError("the text and the label of an example must be strings")
        except RequestError as error:
            raise RequestError(f"{line.place}: {error}") from None
        found.append((text, label))
    return found


def _with_baseline(
    files: Sequence[Path],
    how: ClassifyOptions,
    lines: LineOptions,
    model: EncoderOptions,
    examples: list[tuple[str, str]] | None,
) -> None:
    """Writes the class of each line by vectors of words; says on stderr how accurate they are."""
    kind = checked_baseline(how.with_)
    if examples is None:
        raise ParameterError("--with needs --examples, whose words it counts")
    others = ("labels", "prompt", "hypothesis", "entailment", "contradiction", "multi_label")
    check_alone(
        {
            "model": model.model,
            **{name.replace("_", "-"): getattr(how, name) for name in others},
            "method": None if how.method == "examples" else how.method,
            "long": None if how.long == "error" else how.long,
        }
    )
    made, learned = learn_baseline(kind, examples)
    _tell_accuracy(learned, len(examples))

    def work(chunk: Sequence[Line]) -> bytes:
        texts = inputs_of(chunk, lines.field)
        if not all(isinstance(text, str) for text in texts):
            raise ParameterError("--with reads texts, not pairs or token ids")
        return as_json_lines(_values(chunk, learned.classify(made.vectors(texts), top_k=how.top_k)))

    path = output_path(lines, suffixes=(".jsonl",))
    settings = {"command": "classify", "with": kind, "top_k": how.top_k, "examples": _digest(examples)}
    out = None if path is None else begun_file(path, lines, settings)
    work_through(files, lines, out, work, "classifying")
    if out is not None:
        out.finish()


def _digest(examples: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256(repr(examples).encode("utf-8", "replace")).hexdigest()


def _learned(llm: LLM, examples: Sequence[tuple[str, str]], long: Any) -> LearnedLabels:
    """Returns labels from examples; says on stderr how accurate they are."""
    learned = llm.learn_labels(examples, long=long)
    _tell_accuracy(learned, len(examples))
    return learned


def _tell_accuracy(learned: LearnedLabels, count: int) -> None:
    if learned.accuracy is None:
        note("decodery: a label has one example alone, so that the accuracy is unknown")
    else:
        note(
            f"decodery: accuracy {learned.accuracy:.3f} in {learned.folds}-fold cross-validation over"
            f" {count} examples"
        )


def _values(chunk: Sequence[Line], found: Sequence[Classification]) -> Iterator[dict[str, Any]]:
    for line, one in zip(chunk, found, strict=True):
        yield {
            **identity_of(line),
            "label": one.label,
            "score": one.score,
            "scores": dict(one.scores),
            "logits": dict(one.logits),
            "lost": one.lost,
        }
