"""Implements `decodery eval consistency`."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decodery.cli.commands.evaluation.run import shown
from decodery.errors import ParameterError
from decodery.evaluation.layouts.tables import read_rows
from decodery.evaluation.probes.consistency import agreement
from decodery.evaluation.runs.run_folder import SAMPLES, plain_scores


def consistency(runs: Sequence[Path], *, as_json: bool) -> None:
    """Prints how often two answers to one document are equal. Raises `ParameterError` for other documents."""
    read = [_answers(run) for run in runs]
    for run, answers in zip(runs, read, strict=True):
        if differing := sorted(read[0].keys() ^ answers.keys()):
            raise ParameterError(
                f"{run} has other documents than {runs[0]}: {len(differing)} ids are in one of them only,"
                f" the first is {differing[0]}"
            )
    together = {key: [one for answers in read for one in answers[key]] for key in read[0]}
    found = agreement(list(together.values()))
    changing = sorted(key for key, answers in together.items() if len(set(answers)) > 1)
    if as_json:
        print(json.dumps({**plain_scores({"agreement": found}), "changing": changing}, ensure_ascii=False))
        return
    several = sum(map(len, together.values())) / len(together)
    print(f"{len(together)} documents, {several:g} answers to each")
    print(f"  agreement  {shown(found)}")
    print(f"  documents whose answer changes: {len(changing)}")
    for key in changing[:10]:
        print(f"    {key}: {', '.join(map(str, together[key]))}")


def _answers(run: Path) -> dict[str, list[Hashable | None]]:
    """Returns the answers of a run to each document, one for each sample of a generated text."""
    rows = read_rows(run / SAMPLES, ("id",))
    return {str(row["id"]): [_hashable(one) for one in _all(row)] for row in rows}


def _all(row: Mapping[str, Any]) -> Sequence[Any]:
    details = row.get("details", {})
    extracted = details.get("extracted")
    if isinstance(extracted, Mapping) and extracted:
        return next(iter(extracted.values()))
    return details.get("parsed") or [row.get("predicted")]


def _hashable(answer: Any) -> Hashable | None:
    return answer if isinstance(answer, Hashable) else json.dumps(answer, sort_keys=True)
