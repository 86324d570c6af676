"""Turns the parameters of a command into flags: the fields of its dataclasses, and the generation flags."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.cli.flags.notation import notation_of
from decodery.errors import ParameterError

T = TypeVar("T")
MODEL_PANEL = "Model"


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Returns the command with each dataclass parameter replaced by flags.

    A dataclass becomes one flag for each field: the help is the field's `metadata["help"]`, the default that
    of the parameter's default value, and `metadata["short"]`, if any, a second spelling. A tuple of texts
    becomes a flag that may be repeated. `metadata["metavar"]`, if any, stands for its value.
    `GenerationFlags` becomes the flags of all panels that it does not hide.
    """
    hints = get_type_hints(command, include_extras=True)
    originals = inspect.signature(command).parameters.values()
    generation = {p.name: p.default for p in originals if hints[p.name] is GenerationFlags}
    dataclass_defaults = {
        p.name: p.default
        for p in originals
        if p.name not in generation and dataclasses.is_dataclass(hints[p.name])
    }
    parameters: list[inspect.Parameter] = []
    for parameter in originals:
        if parameter.name in generation:
            parameters += _generation_flags(parameter.default)
        elif parameter.name in dataclass_defaults:
            parameters += _field_flags(parameter.default)
        else:
            hint = hints[parameter.name]
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def with_flag_values(**values: Any) -> None:
        for name, default in generation.items():
            texts = {flag.name: values.pop(flag.name) for flag in default.offered.values()}
            values[name] = default.with_texts(texts)
        for name, default in dataclass_defaults.items():
            fields = {f.name: values.pop(f.name) for f in dataclasses.fields(default)}
            values[name] = with_fields(default, fields)
        command(**values)

    with_flag_values.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_flag_values.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_flag_values


def with_fields(settings: T, texts: Mapping[str, str | bool | list[str] | None]) -> T:
    """Returns the dataclass with fields set: read from a text, or to a bool; None leaves a field as it is.

    Raises `ParameterError` with the field's name for a text that cannot be read.
    """
    hints = get_type_hints(type(settings))
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if isinstance(text, bool):
            values[name] = text
        elif isinstance(text, list):
            values[name] = tuple(text)
        elif text is not None:
            try:
                values[name] = notation_of(hints[name]).read([text])
            except ValueError as error:
                raise ParameterError(f"{name} must be {error}") from None
    return dataclasses.replace(settings, **values)  # type: ignore[type-var]


def _field_flags(default: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(type(default))
    for field in dataclasses.fields(default):
        switch, repeats = hints[field.name] is bool, hints[field.name] == tuple[str, ...]
        value = getattr(default, field.name)
        spelled = _spelled(field.name)
        # A switch that is on by default needs a form that turns it off.
        first = f"{spelled}/--no-{spelled[2:]}" if switch and value else spelled
        names = [first, *([field.metadata["short"]] if "short" in field.metadata else [])]
        option = typer.Option(
            *names,
            metavar=None if switch else field.metadata.get("metavar") or _metavar(hints[field.name]),
            help=field.metadata["help"],
            rich_help_panel=field.metadata.get("panel", MODEL_PANEL),
        )
        if switch:
            yield _keyword(field.name, bool, option, value)
        elif repeats:
            yield _keyword(field.name, list[str] | None, option, None)
        else:
            yield _keyword(field.name, str | None, option, None if value is None else str(value))


def _metavar(hint: Any) -> str:
    return "TEXT" if hint == tuple[str, ...] else notation_of(hint).metavar


def _generation_flags(default: GenerationFlags) -> Iterator[inspect.Parameter]:
    for flag in default.offered.values():
        spelled = _spelled(flag.name)
        help = flag.help + (" May be repeated." if flag.notation.repeatable else "")
        value = default.command_defaults.get(flag.name, flag.default)
        if value is not None:
            help += f"  [default: {value}]"
        names = [spelled]
        if flag.negatable:
            names = [f"{spelled}/--no-{spelled[2:]}"]
        hint: Any = bool if flag.switch else list[str] if flag.notation.repeatable else str
        metavar = None if flag.switch else flag.notation.metavar
        option = typer.Option(
            *names, metavar=metavar, help=help, rich_help_panel=flag.panel, show_default=False
        )
        # A flag that is not given stays None, so that the model's own default can take its place.
        yield _keyword(flag.name, hint | None, option, None)


def _spelled(name: str) -> str:
    # A name that is a word of Python has an underscore behind it.
    return f"--{name.rstrip('_').replace('_', '-')}"


def _keyword(name: str, hint: Any, option: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, option]
    )
