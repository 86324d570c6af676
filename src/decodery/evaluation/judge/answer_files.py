"""Reads the answers that are judged, and the votes of people."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from decodery.errors import ParameterError
from decodery.evaluation.judge.pairwise import Comparison
from decodery.evaluation.layouts.tables import read_rows
from decodery.evaluation.runs.run_folder import SAMPLES

# What a vote says, as a result of a comparison: judges have no word for two bad answers.
VOTES = {"one": "one", "other": "other", "tie": "tie", "both_bad": "tie"}
# The names under which people and tools write the same.
_PROMPTS = ("question", "prompt", "instruction", "input")
_OUTPUTS = ("answer", "output", "completion", "response", "text")


def read_answers(path: Path) -> dict[str, tuple[str, str]]:
    """Returns questions and answers by id: of a JSONL file, or of the folder of a run.

    A row has a question (question, prompt, instruction, input), an answer (answer, output, completion,
    response, text) and perhaps an id; without it, its number is the id. Of a run, the first text that was
    generated for each document is the answer. Raises `ParameterError` with the place of a fault.
    """
    folder = path.is_dir()
    rows = read_rows(path / SAMPLES if folder else path)
    found: dict[str, tuple[str, str]] = {}
    for number, row in enumerate(rows, 1):
        place = f"{path}, row {number}"
        key = str(row.get("id", number))
        if key in found:
            raise ParameterError(f"{place}: the id {key} is there twice")
        found[key] = (
            _of_run(row, place) if folder else (_text(row, _PROMPTS, place), _text(row, _OUTPUTS, place))
        )
    return found


def pairs_of(one: Mapping[str, tuple[str, str]], other: Mapping[str, tuple[str, str]]) -> list[Comparison]:
    """Returns the comparisons of two sets of answers to the same questions.

    Raises `ParameterError` if an id is in one of them only, or has different questions.
    """
    alone = sorted(one.keys() ^ other.keys())
    if alone:
        raise ParameterError(f"{len(alone)} ids are in one of the two only, the first is {alone[0]}")
    for key in one:
        if one[key][0].strip() != other[key][0].strip():
            raise ParameterError(f"the two have different questions of the id {key}")
    return [Comparison(key, question, answer, other[key][1]) for key, (question, answer) in one.items()]


def read_voted_pairs(path: Path) -> dict[tuple[str, str], list[Comparison]]:
    """Returns the comparisons of a file of votes that has the answers too, by the pairs of their settings.

    A row has an `id`, a `question`, the answers `one` and `other`, and perhaps `settings` with the `name` and
    the `model` of both; without them all rows are one pair. The page saves such rows. Raises `ParameterError`
    for a row without answers, and for two comparisons with one id, also of other settings.
    """
    found: dict[tuple[str, str], dict[str, Comparison]] = {}
    seen: dict[str, tuple[tuple[str, str], Comparison]] = {}
    for number, row in enumerate(read_rows(path, ("id", "question", "one", "other", "vote")), 1):
        key, place = str(row["id"]), f"{path}, row {number}"
        comparison = Comparison(key, *(_text(row, (name,), place) for name in ("question", "one", "other")))
        names = _settings(row)
        if seen.setdefault(key, (names, comparison)) != (names, comparison):
            raise ParameterError(
                f"{place}: the id {key} is there with another question, other answers or other settings"
            )
        found.setdefault(names, {})[key] = comparison
    return {names: list(comparisons.values()) for names, comparisons in found.items()}


def read_votes(path: Path, ids: Collection[str]) -> dict[str, dict[str, str]]:
    """Returns people's votes by voter and id. A row has an `id`, a `vote` and perhaps a `voter`.

    A vote is "one", "other" or "tie", for the first and second of the sets of answers; "both_bad" is read as
    a tie. Raises `ParameterError` for another vote, an unknown id, and two votes of one voter on one id.
    """
    known = set(ids)
    found: dict[str, dict[str, str]] = {}
    for number, row in enumerate(read_rows(path, ("id", "vote")), 1):
        place = f"{path}, row {number}"
        key, vote, voter = str(row["id"]), str(row["vote"]), str(row.get("voter") or "people")
        if vote not in VOTES:
            raise ParameterError(f"{place}: the vote is {vote!r}: write {', '.join(VOTES)}")
        if key not in known:
            raise ParameterError(f"{place}: no answers have the id {key}")
        if key in found.setdefault(voter, {}):
            raise ParameterError(f"{place}: {voter} has voted on {key} already")
        found[voter][key] = VOTES[vote]
    return found


def _settings(row: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the names of the settings that wrote the two answers of a row."""
    settings = row.get("settings")
    sides = [settings.get(side) if isinstance(settings, dict) else None for side in ("one", "other")]
    one, other = (side if isinstance(side, dict) else {} for side in sides)
    return _setting(one, "one"), _setting(other, "other")


def _setting(side: Mapping[str, Any], default: str) -> str:
    name = str(side.get("name") or default)
    return f"{name} ({side['model']})" if side.get("model") else name


def _of_run(row: Mapping[str, Any], place: str) -> tuple[str, str]:
    for request in row.get("requests", []):
        if "finish_reason" in request:
            return str(row.get("prompt", "")), str(request.get("text", ""))
    raise ParameterError(f"{place} has no generated text: judge runs of tasks in which a text is generated")


def _text(row: Mapping[str, Any], names: Sequence[str], place: str) -> str:
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            return json.dumps(value, ensure_ascii=False)
    raise ParameterError(f"{place} has none of {', '.join(names)}")
