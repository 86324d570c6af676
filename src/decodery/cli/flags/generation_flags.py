"""Lists the flags that set generation parameters, and builds the parameters from them.

Their help is that of the fields in `decoding/request/params.py`. Imports no torch. A flag that is not given
stays unset, so that the model's own default can take its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from decodery.cli.flags.notation import name_list, notation_of
from decodery.cli.flags.object_flags import OBJECT_FLAGS, Flag, build_objects
from decodery.decoding.request.panels import PANELS
from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError

DEFAULTS = GenerationParams()

# The fields that hold functions, which cannot be written as text.
WITHOUT_FLAG = ("logits_processors", "stop_when")


def _plain_flags() -> Iterable[Flag]:
    hints = get_type_hints(GenerationParams)
    fields = {f.name: f for f in dataclasses.fields(GenerationParams)}
    for panel, names in PANELS.items():
        for name in names:
            notation = name_list("NAME,...") if name == "processor_order" else notation_of(hints[name])
            switch = hints[name] is bool
            value = getattr(DEFAULTS, name)
            default = None if value in (None, ()) or value is False else str(value).lower()
            if isinstance(value, tuple) and value:
                default = " ".join(repr(item)[1:-1] for item in value)
            yield Flag(name, panel, fields[name].metadata["help"], notation, switch, switch, default)


FLAGS: dict[str, Flag] = {
    **{flag.name: flag for flag in _plain_flags()},
    **OBJECT_FLAGS,
}


@dataclass(frozen=True)
class GenerationFlags:
    """Holds the generation flags of a command line: their `texts` by name, and the parameters' `values`.

    `command_defaults` are the command's own defaults, which override the model's. A command does not have the
    flags of `hidden_panels` and `hidden_flags`.
    """

    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    command_defaults: Mapping[str, Any] = field(default_factory=dict)
    hidden_panels: tuple[str, ...] = ()
    hidden_flags: tuple[str, ...] = ()

    @property
    def offered(self) -> dict[str, Flag]:
        """Returns the flags that the command has, by name."""
        return {
            name: flag
            for name, flag in FLAGS.items()
            if flag.panel not in self.hidden_panels and name not in self.hidden_flags
        }

    def with_texts(self, texts: Mapping[str, Any]) -> GenerationFlags:
        """Returns these flags with more of them set.

        A value is a text, a list of texts or a bool; None and [] set nothing.

        Raises `ParameterError` for an unknown flag, a text that cannot be read, and values that conflict.
        """
        offered = self.offered
        added: dict[str, tuple[str, ...]] = {}
        for name, given in texts.items():
            if name not in offered:
                raise ParameterError(f"unknown parameter: {name}")
            if isinstance(given, bool):
                added[name] = ("true" if given else "false",)
            elif given is not None and given != []:
                added[name] = (given,) if isinstance(given, str) else tuple(given)
        merged = {**self.texts, **added}
        flags = dataclasses.replace(self, texts=merged, values=_values(merged))
        # Building the parameters checks them.
        flags.params_over(DEFAULTS)
        return flags

    def without_flags(self, names: Iterable[str]) -> GenerationFlags:
        """Returns these flags with some of them unset."""
        cleared = {name: texts for name, texts in self.texts.items() if name not in set(names)}
        return dataclasses.replace(self, texts=cleared, values=_values(cleared))

    def params_over(self, defaults: GenerationParams) -> GenerationParams:
        """Returns the parameters that the flags set, over the command's defaults, over `defaults`."""
        return defaults.replace(**{**self.command_defaults, **self.values})

    @property
    def params(self) -> GenerationParams:
        """Returns the parameters for a model without defaults of its own."""
        return self.params_over(DEFAULTS)


def _values(texts: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    read = {name: _read(name, list(given)) for name, given in texts.items()}
    values = {name: value for name, value in read.items() if name not in OBJECT_FLAGS}
    for name, value in build_objects({n: v for n, v in read.items() if n in OBJECT_FLAGS}).items():
        if values.setdefault(name, value) != value:
            raise ParameterError(f"strategy {read['strategy']} has no meaning with {name} {values[name]}")
    return values


def _read(name: str, texts: list[str]) -> Any:
    try:
        return FLAGS[name].notation.read(texts)
    except ParameterError:
        raise
    except ValueError as error:
        raise ParameterError(f"{name} must be {error}") from None
