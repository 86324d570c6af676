"""Reads the lines that `decodery compare` runs: each has a name and its parameters. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from decodery.cli.flags.assignments import assignments, with_assignments
from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.errors import ParameterError

# The parameters of each preset, written as in --with.
PRESETS: dict[str, str] = {
    "greedy": "strategy=greedy",
    "sampling": "temperature=0.8 top-p=0.95",
    "min-p": "min-p=0.1",
    "beam": "strategy=beam num-beams=4",
    "diverse": "strategy=beam num-beams=4 num-beam-groups=2 diversity-penalty=0.5",
    "contrastive": "strategy=contrastive contrastive-k=4 penalty-alpha=0.6",
    "dola": "strategy=dola dola-layers=high temperature=0",
    "stochastic-beam": "strategy=stochastic-beam num-beams=2",
}
DEFAULT_SET = "greedy,sampling,min-p,beam,diverse,contrastive,dola"


@dataclass(frozen=True)
class Line:
    """Holds one line of a comparison; `error` says why it cannot be run."""

    name: str
    flags: GenerationFlags
    error: str | None = None


def comparison_lines(shared: GenerationFlags, names: str | None, extra: Sequence[str]) -> list[Line]:
    """Returns the lines of the presets in `names`, then those written as `NAME: PARAMETERS` in `extra`.

    Raises `ParameterError` for an unknown preset, a wrong parameter, and when there is no line at all. A line
    whose parameters conflict with the `shared` flags has the `error`.
    """
    lines = []
    listed = DEFAULT_SET if names is None else names
    for name in filter(None, (part.strip() for part in listed.split(","))):
        if name not in PRESETS:
            raise ParameterError(f"strategies names {name!r}; there are {', '.join(PRESETS)}")
        lines.append(_line(shared, name, assignments(PRESETS[name])))
    for written in extra:
        name, colon, parameters = written.partition(":")
        if not colon or not name.strip():
            raise ParameterError(f"with is written as NAME: PARAMETERS, not {written!r}")
        texts = assignments(parameters)
        # A mistake in this text is an error of the command, whatever the shared flags are.
        with_assignments(GenerationFlags(), texts)
        lines.append(_line(shared, name.strip(), texts))
    if not lines:
        raise ParameterError("there is nothing to compare: name some strategies, or give --with")
    return lines


def _line(shared: GenerationFlags, name: str, texts: Mapping[str, Sequence[str]]) -> Line:
    # A line may set the flags of every panel, also of those that the command itself does not have.
    flags = dataclasses.replace(shared, hidden_panels=())
    try:
        return Line(name, with_assignments(flags, texts))
    except ParameterError as error:
        return Line(name, flags, str(error))
