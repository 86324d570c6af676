"""Flags made from the fields of dataclasses, and from what a generation can be asked for."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from decodery.cli.flags.generation_flags import FLAGS, GenerationFlags
from decodery.cli.flags.notation import notation
from decodery.cli.flags.object_flags import Flag
from decodery.errors import ParameterError

T = TypeVar("T")
MODEL_PANEL = "Model"


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with some of its parameters spread into flags.

    A parameter that is a dataclass becomes one flag a field: its help is the field's `metadata["help"]`, its
    default that of the parameter's default value, and `metadata["short"]`, if any, a second spelling. An
    `GenerationFlags` becomes the flags of all its panels.
    """
    hints = get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters.values()
    asked = {p.name: p.default for p in given if hints[p.name] is GenerationFlags}
    groups = {p.name: p.default for p in given if dataclasses.is_dataclass(hints[p.name])}
    parameters: list[inspect.Parameter] = []
    for parameter in given:
        if parameter.name in asked:
            parameters += _asked_flags(parameter.default)
        elif parameter.name in groups:
            parameters += _field_flags(parameter.default)
        else:
            hint = hints[parameter.name]
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def spread(**values: Any) -> None:
        for name, default in asked.items():
            texts = {flag.name: values.pop(flag.name) for flag in _shown(default)}
            values[name] = default.adding(texts)
        for name, default in groups.items():
            if name not in asked:
                own = {f.name: values.pop(f.name) for f in dataclasses.fields(default)}
                values[name] = changed(default, own)
        command(**values)

    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    return spread


def changed(settings: T, texts: Mapping[str, str | bool | None]) -> T:
    """The dataclass `settings` with fields read from text, or switched; None leaves a field as it is.

    Raises `ParameterError` naming the field.
    """
    hints = get_type_hints(type(settings))
    values = {}
    for name, text in texts.items():
        if isinstance(text, bool):
            values[name] = text
        elif text is not None:
            try:
                values[name] = notation(hints[name]).read([text])
            except ValueError as error:
                raise ParameterError(f"{name} must be {error}") from None
    return dataclasses.replace(settings, **values)  # type: ignore[type-var]


def _field_flags(default: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(type(default))
    for field in dataclasses.fields(default):
        switch = hints[field.name] is bool
        names = [_spelled(field.name), *([field.metadata["short"]] if "short" in field.metadata else [])]
        option = typer.Option(
            *names,
            metavar=None if switch else notation(hints[field.name]).metavar,
            help=field.metadata["help"],
            rich_help_panel=MODEL_PANEL,
        )
        value = getattr(default, field.name)
        if switch:
            yield _keyword(field.name, bool, option, value)
        else:
            yield _keyword(field.name, str | None, option, None if value is None else str(value))


def _asked_flags(default: GenerationFlags) -> Iterator[inspect.Parameter]:
    for flag in _shown(default):
        spelled = _spelled(flag.name)
        told = flag.help + (" May be repeated." if flag.how.repeatable else "")
        value = default.own.get(flag.name, flag.default)
        if value is not None:
            told += f"  [default: {value}]"
        names = [spelled]
        if flag.negatable:
            names = [f"{spelled}/--no-{spelled[2:]}"]
        hint: Any = bool if flag.switch else list[str] if flag.how.repeatable else str
        metavar = None if flag.switch else flag.how.metavar
        option = typer.Option(
            *names, metavar=metavar, help=told, rich_help_panel=flag.panel, show_default=False
        )
        # What is not given is None, so that what the model recommends can take its place.
        yield _keyword(flag.name, hint | None, option, None)


def _shown(default: GenerationFlags) -> Iterable[Flag]:
    return [flag for flag in FLAGS.values() if flag.panel not in default.without]


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _keyword(name: str, hint: Any, option: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, option]
    )
