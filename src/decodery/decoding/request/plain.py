"""Writes parameters as plain JSON values, and reads them. Needs no torch.

A field has its own name. A strategy, grammar, speculation or watermark is an object with a `type`, the
name of its class in snake_case, and its fields. `docs/plain-parameters.md` describes the form.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, get_type_hints

from decodery.decoding.request.grammar_params import GRAMMARS
from decodery.decoding.request.json_shapes import Read, ShapeError, bias, shape_of, text, whole
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import SPECULATIONS
from decodery.decoding.request.strategy_params import STRATEGIES
from decodery.decoding.request.watermark_params import Watermark
from decodery.errors import ParameterError

# The fields that hold Python functions, which have no plain form.
FUNCTIONS = ("logits_processors", "stop_when")
# The fields that hold second models, which a request may only name.
_MODELS = ("amateur", "model")
_LONGEST_MESSAGE, _LONGEST_NAME = 300, 60


def _kind_name(kind: type) -> str:
    """Returns the `type` of a class: its name in snake_case, except that DoLa is one word."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__.replace("DoLa", "Dola")).lower()


@dataclass(frozen=True)
class _Form:
    """Holds the classes that a field may hold, by their types; `bare`: a text alone is the type.

    `none` is the type of None, if None is not what an absent field means.
    """

    kinds: Mapping[str, type]
    bare: bool = False
    none: str | None = None

    @property
    def types(self) -> list[str]:
        """Returns every type that the field knows."""
        return [*self.kinds, *([] if self.none is None else [self.none])]


FORMS: Mapping[str, _Form] = {
    "strategy": _Form({_kind_name(kind): kind for kind in STRATEGIES}, bare=True),
    "grammar": _Form({_kind_name(kind): kind for kind in GRAMMARS}),
    "speculate": _Form({_kind_name(kind): kind for kind in SPECULATIONS}, bare=True, none="none"),
    "watermark": _Form({_kind_name(Watermark): Watermark}),
}


def _logit_bias(value: Any) -> Any:
    """Returns the pairs of an object whose keys are token ids as text, or of a list of pairs."""
    if isinstance(value, dict):
        for key in value:
            if not (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 20):
                raise ShapeError("an object whose keys are token ids")
        return tuple((int(key), _placed(bias, f".{key}", one)) for key, one in value.items())
    return _pairs(value, whole)


def _sequence_bias(value: Any) -> Any:
    """Returns the pairs of an object whose keys are texts, or of a list of pairs of phrase and bias."""
    if isinstance(value, dict):
        named = ((text(key), one) for key, one in value.items())
        return tuple((key, _placed(bias, f".{key[:_LONGEST_NAME]}", one)) for key, one in named)
    return _pairs(value, shape_of(str | tuple[int, ...]).read)


def _pairs(value: Any, key: Read) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ShapeError("an object, or a list of pairs")
    return tuple(_placed(_pair(key), f"[{place}]", one) for place, one in enumerate(value))


def _pair(key: Read) -> Read:
    def read(value: Any) -> tuple[Any, float]:
        if not isinstance(value, list) or len(value) != 2:
            raise ShapeError("a pair")
        return _placed(key, "[0]", value[0]), _placed(bias, "[1]", value[1])

    return read


def _placed(read: Read, place: str, value: Any) -> Any:
    try:
        return read(value)
    except ShapeError as error:
        raise error.inside(place) from None


def _readers(kind: type) -> dict[str, Read]:
    own: dict[str, Callable[[Any], Any]] = {"logit_bias": _logit_bias, "sequence_bias": _sequence_bias}
    left_out = (*FORMS, *FUNCTIONS) if kind is GenerationParams else ()
    return {
        name: own[name] if name in own else shape_of(hint).read
        for name, hint in get_type_hints(kind).items()
        if name not in left_out
    }


_READERS: Mapping[type, Mapping[str, Read]] = {
    kind: _readers(kind)
    for kind in (GenerationParams, *(k for f in FORMS.values() for k in f.kinds.values()))
}
_DEFAULTS = GenerationParams()


def params_from_plain(
    mapping: Mapping[str, Any], defaults: GenerationParams = _DEFAULTS, *, models: Collection[str] | None = ()
) -> GenerationParams:
    """Returns the defaults with the fields changed that the mapping has; the inverse of `params_to_plain`.

    `mapping` holds what json.loads returns. A null is the default of `GenerationParams`, and None for
    `max_tokens`. `models` are the names of second models that it may use; with None, any text is one. Raises
    `ParameterError`, whose `param` is the place of the cause, such as "strategy.num_beams".
    """
    if not isinstance(mapping, Mapping):
        raise ParameterError("parameters must be an object")
    values: dict[str, Any] = {}
    for name, value in mapping.items():
        if name in FUNCTIONS:
            raise ParameterError(f"{name} is a Python function: only Python code can give it", param=name)
        if value is None and name in FORMS:
            values[name] = getattr(_DEFAULTS, name)
        elif value is None and name in _READERS[GenerationParams]:
            values[name] = None
        elif name in FORMS:
            values[name] = _object(FORMS[name], name, value, models)
        else:
            values[name] = _field(GenerationParams, name, value, "")
    found: GenerationParams = _built(lambda: defaults.replace(**values), GenerationParams, "")
    return found


def _object(form: _Form, place: str, value: Any, models: Collection[str] | None) -> Any:
    """Returns the strategy, grammar, speculation or watermark at this place."""
    if form.bare and isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping):
        bare = f", or the type of one: {', '.join(form.types)}" if form.bare else ""
        raise ParameterError(f"{place} must be an object{bare}", param=place)
    fields = dict(value)
    only = next(iter(form.kinds)) if len(form.kinds) == 1 else None
    name = fields.pop("type", only)
    if not isinstance(name, str) or name not in form.types:
        message = f"{place}.type must be one of {', '.join(form.types)}{_nearest(name, form.types, '')}"
        raise ParameterError(message, param=f"{place}.type")
    if name == form.none:
        if fields:
            unknown = f"{place}.{_readable(next(iter(fields)))}"
            raise ParameterError(f"unknown parameter {unknown}", param=unknown)
        return None
    kind = form.kinds[name]
    found = {field: _field(kind, field, one, f"{place}.") for field, one in fields.items()}
    for field in dataclasses.fields(kind):
        required = field.default is MISSING or field.name in _MODELS
        if required and field.name not in found:
            raise ParameterError(f"{place}.{field.name} is missing", param=f"{place}.{field.name}")
        if field.name in _MODELS and models is not None and found[field.name] not in models:
            offered = ", ".join(models) or "none"
            raise ParameterError(
                f"{place}.{field.name} must be a second model that is offered here; offered: {offered}",
                param=f"{place}.{field.name}",
            )
    return _built(lambda: kind(**found), kind, place)


def _field(kind: type, name: Any, value: Any, before: str) -> Any:
    """Returns the value of a field; `before` leads to the object that holds it."""
    readers = _READERS[kind]
    if not isinstance(name, str) or name not in readers:
        known = (*readers, *FORMS) if kind is GenerationParams else readers
        shown = f"{before}{_readable(str(name))}"
        raise ParameterError(f"unknown parameter {shown}{_nearest(name, known, before)}", param=shown)
    try:
        return readers[name](value)
    except ShapeError as error:
        raise ParameterError(
            f"{before}{name}{error.path} must be {error.expected}", param=f"{before}{name}{error.path}"
        ) from None


def _built(build: Callable[[], Any], kind: type, place: str) -> Any:
    """Returns what `build` returns; an error names the place, and its message is short."""
    try:
        return build()
    except ParameterError as error:
        message = str(error)
        leading = re.match(r"[a-z_]+", message)
        names = {*_READERS[kind], *FORMS} if kind is GenerationParams else {*_READERS[kind]}
        own = leading[0] if leading is not None and leading[0] in names else ""
        param = f"{place}.{own}".strip(".") or None
        raise ParameterError(_shortened(message), param=param) from None


def _shortened(message: str) -> str:
    """Returns a message without the rest of long values that the caller gave."""
    message = re.sub(r"(\S{40})\S{20,}", r"\1...", message)
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 3] + "..."


def _readable(name: str) -> str:
    return name[:_LONGEST_NAME].encode("utf-8", "replace").decode()


def _nearest(name: Any, known: Collection[str], before: str) -> str:
    close = difflib.get_close_matches(_readable(name), known, 1) if isinstance(name, str) else []
    return f": did you mean {before}{close[0]}?" if close else ""


def params_to_plain(params: GenerationParams, defaults: GenerationParams = _DEFAULTS) -> dict[str, Any]:
    """Returns the fields that differ from the defaults, as values that JSON can hold.

    Raises `ParameterError` if one has no plain form: a function, or a second model that is not a name.
    """
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(params):
        value = getattr(params, field.name)
        if value == getattr(defaults, field.name):
            continue
        if field.name in FUNCTIONS:
            raise ParameterError(f"{field.name} has no plain form: it is a function", param=field.name)
        if field.name in FORMS:
            plain[field.name] = FORMS[field.name].none if value is None else _plain_object(field.name, value)
        elif field.name == "logit_bias":
            plain[field.name] = {str(token): _plain(one) for token, one in value}
        else:
            plain[field.name] = _plain(value)
    return plain


def _plain_object(place: str, value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": _kind_name(type(value))}
    for field in dataclasses.fields(value):
        one = getattr(value, field.name)
        if field.name in _MODELS and not isinstance(one, str):
            raise ParameterError(
                f"{place}.{field.name} must be a name to have a plain form", param=f"{place}.{field.name}"
            )
        if one != field.default or type(one) is not type(field.default):
            plain[field.name] = _plain(one)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return "-inf" if value == -math.inf else value
