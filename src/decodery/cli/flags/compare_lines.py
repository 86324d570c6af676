"""What `decodery compare` runs side by side: its lines, each a name and its parameters. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from decodery.cli.flags.assignments import assigned, assignments
from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.errors import ParameterError

# Written as --with writes them.
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
    """One line of a comparison; `refusal` says why it cannot be run."""

    name: str
    asked: GenerationFlags
    refusal: str | None = None


def chosen_lines(shared: GenerationFlags, names: str | None, extra: Sequence[str]) -> list[Line]:
    """The lines of these presets, and of `NAME: PARAMETERS` each. Raises `ParameterError`."""
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
        # What is written here is wrong whatever the other flags are.
        assigned(GenerationFlags(), texts)
        lines.append(_line(shared, name.strip(), texts))
    if not lines:
        raise ParameterError("there is nothing to compare: name some strategies, or give --with")
    return lines


def _line(shared: GenerationFlags, name: str, texts: Mapping[str, Sequence[str]]) -> Line:
    everything = GenerationFlags(texts=shared.texts, values=shared.values, own=shared.own)
    try:
        return Line(name, assigned(everything, texts))
    except ParameterError as error:
        return Line(name, everything, str(error))
