"""Writes choices as JSON, the long part of a trace: what their plain forms say, in a third of the time."""

from __future__ import annotations

import json
from collections.abc import Sequence

from decodery.decoding.trace import Candidate, Considered, Stage
from decodery.wire.plain_forms import plain_fields, to_plain

_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_WRITTEN_APART = ("candidates", "stages")


def choices_text(choices: Sequence[Considered]) -> str:
    """Returns the JSON of the plain forms of these choices; the order of their fields is another."""
    return f"[{','.join(map(_choice_text, choices))}]"


def _choice_text(choice: Considered) -> str:
    candidates = ",".join(map(_candidate_text, choice.candidates))
    stages = ",".join(map(_stage_text, choice.stages))
    if not _are_numbers(candidates) or not _are_numbers(stages):
        return _dumps(to_plain(choice))
    rest = _dumps(plain_fields(choice, _WRITTEN_APART))
    written = f',"stages":[{stages}]' if stages else ""
    return f'{rest[:-1]},"candidates":[{candidates}]{written}}}'


def _candidate_text(candidate: Candidate) -> str:
    text = f'{{"token":{candidate.token},"before":{candidate.before!r},"after":{candidate.after!r}'
    if candidate.logit is not None:
        text += f',"logit":{candidate.logit!r}'
    if candidate.noise is not None:
        text += f',"noise":{candidate.noise!r}'
    return text + "}"


def _stage_text(stage: Stage) -> str:
    shares = ",".join(map(repr, stage.probabilities))
    return f'{{"name":{_dumps(stage.name)},"kept":{stage.kept},"probabilities":[{shares}]}}'


def _are_numbers(text: str) -> bool:
    """False if the text may contain Python's "inf" or "nan", which JSON lacks."""
    return "inf" not in text and "nan" not in text
