"""Builds the parameters that are objects from flags: strategy, grammar, speculation, watermark."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from decodery.cli.flags.notation import Notation, notation_of
from decodery.cli.input_text import file_text
from decodery.decoding.request.grammar_params import Choice, Gbnf, JsonObject, JsonSchema, Lark, Regex
from decodery.decoding.request.speculation_params import DraftModel, PromptLookup
from decodery.decoding.request.strategy_params import (
    BeamSearch,
    ContrastiveDecoding,
    ContrastiveSearch,
    DoLa,
    Sampling,
    StochasticBeamSearch,
)
from decodery.decoding.request.watermark_params import Watermark
from decodery.errors import ParameterError

# Flags that are given without --strategy choose the first of these strategies that has all of them.
STRATEGIES: dict[str, type] = {
    "greedy": Sampling,
    "sampling": Sampling,
    "beam": BeamSearch,
    "stochastic-beam": StochasticBeamSearch,
    "contrastive": ContrastiveSearch,
    "contrastive-decoding": ContrastiveDecoding,
    "dola": DoLa,
}


@dataclass(frozen=True)
class Flag:
    """Describes one flag: its name with underscores, the panel of its help, and how its value is written.

    A `switch` takes no value; a `negatable` one also has a --no- form. `default` is shown in the help. A flag
    with `kinds` sets the field `field` of an object of one of these classes.
    """

    name: str
    panel: str
    help: str
    notation: Notation
    switch: bool = False
    negatable: bool = False
    default: str | None = None
    kinds: tuple[type, ...] = ()
    field: str = ""


def _alternatives(texts: list[str]) -> tuple[Any, ...]:
    return tuple(tuple(text.split("|")) if "|" in text else text for text in texts)


def _field(panel: str, name: str, field: str, help: str, *kinds: type) -> Flag:
    """Returns the flag of a field of these classes; without `help`, its help is the field's own."""
    hint = get_type_hints(kinds[0])[field]
    source = next(f for f in dataclasses.fields(kinds[0]) if f.name == field)
    has_default = source.default is not dataclasses.MISSING and source.default not in (None, (), False)
    notation = Notation("TEXT", True, _alternatives) if field == "force_words" else notation_of(hint)
    switch = hint is bool
    return Flag(
        name,
        panel,
        help or str(source.metadata["help"]),
        notation,
        switch=switch,
        negatable=switch,
        default=str(source.default).lower() if has_default else None,
        kinds=kinds,
        field=field,
    )


def _naming_a_model(flag: Flag) -> Flag:
    return dataclasses.replace(flag, notation=dataclasses.replace(flag.notation, metavar="MODEL"))


def _strategy_flags() -> Iterable[Flag]:
    def of(name: str, field: str, *kinds: type, help: str = "") -> Flag:
        return _field("Strategy", name, field, help, *kinds)

    names = Notation("NAME", False, lambda texts: texts[-1])
    known = ", ".join(STRATEGIES)
    yield Flag("strategy", "Strategy", f"How tokens are chosen: {known}.", names, default="sampling")
    yield of("num_beams", "num_beams", BeamSearch, StochasticBeamSearch)
    for field in ("length_penalty", "early_stopping", "num_return_sequences", "num_beam_groups"):
        yield of(field, field, BeamSearch)
    yield of("diversity_penalty", "diversity_penalty", BeamSearch)
    force = 'A phrase that beams must contain; "a|b" asks for a or b.'
    yield of("force_word", "force_words", BeamSearch, help=force)
    yield of("beam_sample", "sample", BeamSearch)
    yield of("beam_rules", "rules", BeamSearch)
    yield of(
        "contrastive_k",
        "top_k",
        ContrastiveSearch,
        help="The number of tokens that contrastive search compares.",
    )
    yield of("penalty_alpha", "penalty_alpha", ContrastiveSearch)
    yield of("dola_layers", "layers", DoLa)
    yield _naming_a_model(of("amateur", "amateur", ContrastiveDecoding))
    yield of("amateur_alpha", "alpha", ContrastiveDecoding)
    yield of("amateur_beta", "beta", ContrastiveDecoding)


def _grammar_flags() -> Iterable[Flag]:
    def of(
        name: str, help: str, metavar: str, make: Callable[[list[str]], Any], *, many: bool = False
    ) -> Flag:
        return Flag(name, "Grammar", help, Notation(metavar, many, make))

    yield of("regex", "The text matches this regular expression.", "TEXT", lambda t: Regex(t[-1]))
    yield of(
        "choice",
        "The text is this, or one of the other choices.",
        "TEXT",
        lambda t: Choice(tuple(t)),
        many=True,
    )
    schema = "The text is JSON that matches this schema: a file, or the schema itself."
    yield of("json_schema", schema, "FILE|JSON", lambda t: JsonSchema(_schema(t[-1])))
    loose = "Where no grammar can follow the schema, follow a looser one and check the finished text."
    yield dataclasses.replace(
        of("json_approximate", loose, "", lambda t: t[-1] == "true"),
        switch=True,
    )
    yield dataclasses.replace(
        of(
            "json_object",
            "The text is a JSON object.",
            "",
            lambda t: JsonObject() if t[-1] == "true" else None,
        ),
        switch=True,
    )
    lark = "The text matches the context-free grammar of a file, in Lark's notation."
    yield of("lark", lark, "FILE", lambda t: Lark(file_text(Path(t[-1]))))
    gbnf = "The text matches the grammar of a file, in llama.cpp's notation."
    yield of("gbnf", gbnf, "FILE", lambda t: Gbnf(file_text(Path(t[-1]))))


def _schema(text: str) -> str:
    written = text.lstrip().startswith("{") or text in ("true", "false")
    return text if written else file_text(Path(text))


def _speculation_flags() -> Iterable[Flag]:
    def of(name: str, field: str, *kinds: type, help: str = "") -> Flag:
        return _field("Speculation", name, field, help, *kinds)

    lookup = "Look up the last tokens earlier in prompt and text, and draft the tokens that followed them."
    auto = "Let the engine draft by itself, as many tokens as make it faster; the text stays the same."
    switch = notation_of(bool)
    yield Flag("speculate", "Speculation", auto, switch, switch=True, negatable=True, default="true")
    yield Flag("prompt_lookup", "Speculation", lookup, notation_of(bool), switch=True)
    yield _naming_a_model(of("draft_model", "model", DraftModel))
    both = (PromptLookup, DraftModel)
    most = "Draft at most this many tokens at once.  [default: 10 with prompt_lookup, 4 with draft_model]"
    yield dataclasses.replace(of("draft_tokens", "num_tokens", *both, help=most), default=None)
    yield of("draft_adaptive", "adaptive", *both)
    yield of("lookup_ngram", "max_ngram", PromptLookup)
    yield of("acceptance", "acceptance", *both)


def _watermark_flags() -> Iterable[Flag]:
    def of(name: str, field: str) -> Flag:
        return _field("Penalties", name, field, "", Watermark)

    yield Flag(
        "watermark", "Penalties", "Mark the text so that it can be detected.", notation_of(bool), switch=True
    )
    yield of("watermark_bias", "bias")
    yield of("watermark_ratio", "greenlist_ratio")
    yield of("watermark_key", "hashing_key")
    yield of("watermark_context", "context_width")
    yield of("watermark_scheme", "seeding_scheme")


STRATEGY_FLAGS = {flag.name: flag for flag in _strategy_flags()}
GRAMMAR_FLAGS = {flag.name: flag for flag in _grammar_flags()}
SPECULATION_FLAGS = {flag.name: flag for flag in _speculation_flags()}
WATERMARK_FLAGS = {flag.name: flag for flag in _watermark_flags()}
OBJECT_FLAGS = {**STRATEGY_FLAGS, **GRAMMAR_FLAGS, **SPECULATION_FLAGS, **WATERMARK_FLAGS}


def build_objects(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that these flags, with their values, set.

    Raises `ParameterError` for flags that do not belong together, and names both.
    """
    params = {
        **_strategy(_among(given, STRATEGY_FLAGS)),
        **_grammar(_among(given, GRAMMAR_FLAGS)),
        **_speculation(_among(given, SPECULATION_FLAGS)),
    }
    watermark = _among(given, WATERMARK_FLAGS)
    if watermark:
        on = watermark.pop("watermark", True)
        params["watermark"] = _build(Watermark, watermark) if on else None
    return params


def _among(given: Mapping[str, Any], flags: Mapping[str, Flag]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in flags}


def _build(kind: type, given: Mapping[str, Any]) -> Any:
    return kind(**{OBJECT_FLAGS[name].field: value for name, value in given.items()})


def _strategy(given: dict[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    chosen = given.pop("strategy", None)
    if chosen is None:
        chosen = _strategy_of(tuple(given))
    if chosen not in STRATEGIES:
        raise ParameterError(f"strategy must be {', '.join(STRATEGIES)}, not {chosen!r}")
    kind = STRATEGIES[chosen]
    for name in given:
        if kind not in STRATEGY_FLAGS[name].kinds:
            raise ParameterError(f"{name} belongs to strategy {_owners(name)}, not to {chosen}")
    # Greedy decoding is sampling at temperature 0.
    return {"strategy": _build(kind, given), **({"temperature": 0.0} if chosen == "greedy" else {})}


def _strategy_of(names: tuple[str, ...]) -> str:
    """Returns the first strategy that has all of these flags. Raises `ParameterError` when there is none."""
    for chosen, kind in STRATEGIES.items():
        if all(kind in STRATEGY_FLAGS[name].kinds for name in names):
            return chosen
    first = names[0]
    other = next(n for n in names if not set(STRATEGY_FLAGS[n].kinds) & set(STRATEGY_FLAGS[first].kinds))
    raise ParameterError(
        f"{first} belongs to strategy {_owners(first)} and {other} to strategy {_owners(other)}: give one"
    )


def _owners(name: str) -> str:
    kinds = STRATEGY_FLAGS[name].kinds
    return " or ".join(chosen for chosen, kind in STRATEGIES.items() if kind in kinds)


def _grammar(given: dict[str, Any]) -> dict[str, Any]:
    if given.pop("json_approximate", False):
        if not isinstance(given.get("json_schema"), JsonSchema):
            raise ParameterError("json_approximate needs json_schema")
        given["json_schema"] = dataclasses.replace(given["json_schema"], unsupported="approximate")
    if len(given) > 1:
        first, second, *_ = given
        raise ParameterError(f"{first} and {second} are two grammars: give one")
    return {"grammar": next(iter(given.values()))} if given else {}


def _speculation(given: dict[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    auto = given.pop("speculate", None)
    if auto is not None:
        if given:
            raise ParameterError(f"speculate and {next(iter(given))} exclude each other: give one")
        return {"speculate": "auto" if auto else None}
    lookup = given.pop("prompt_lookup", None)
    if lookup is False and not given:
        return {"speculate": "auto"}
    if lookup and "draft_model" in given:
        raise ParameterError("prompt_lookup and draft_model are two ways to draft: give one")
    if "lookup_ngram" in given and "draft_model" in given:
        raise ParameterError("lookup_ngram belongs to prompt_lookup, not to draft_model")
    if not lookup and "draft_model" not in given and "lookup_ngram" not in given:
        raise ParameterError(f"{next(iter(given))} needs prompt_lookup or draft_model: give one of them")
    return {"speculate": _build(DraftModel if "draft_model" in given else PromptLookup, given)}
