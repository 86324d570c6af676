"""Takes the texts of requests of encoders, and what happens to those that are too long."""

from __future__ import annotations

from typing import Any

from decodery.encoding.texts import Long
from decodery.serving.encoders.token_arrays import text_of
from decodery.serving.errors import invalid
from decodery.serving.openai.fields import Fields
from decodery.serving.settings import RequestLimits, ServerSettings


def take_inputs(fields: Fields, name: str, settings: ServerSettings) -> list[str | list[int]]:
    """Takes a text, token ids, or a list of those. Raises `ApiError`."""
    given = fields.raw(name)
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise invalid(f"{name} must be a text or a list of texts, and not an empty list", name)
    if all(type(token) is int for token in given):
        return [text_of(given, name, settings.token_arrays)]
    check_count(given, name, settings.limits)
    return [_item(item, f"{name}[{place}]", settings) for place, item in enumerate(given)]


def _item(given: Any, place: str, settings: ServerSettings) -> str | list[int]:
    if isinstance(given, str):
        return given
    if isinstance(given, list) and given and all(type(token) is int for token in given):
        return text_of(given, place, settings.token_arrays)
    raise invalid(f"{place} must be a text, or a list of token ids that is not empty", place)


def take_text(fields: Fields, name: str) -> str:
    """Takes one text. Raises `ApiError` if it is missing or something else."""
    found = fields.raw(name)
    if not isinstance(found, str):
        raise invalid(f"{name} must be a text", name)
    return found


def texts_in(given: Any, name: str, limits: RequestLimits) -> list[str]:
    """Returns a list of texts. Raises `ApiError` for anything else, and for an empty list."""
    if not isinstance(given, list) or not given:
        raise invalid(f"{name} must be a list of texts, and not empty", name)
    check_count(given, name, limits)
    for place, text in enumerate(given):
        if not isinstance(text, str):
            raise invalid(f"{name}[{place}] must be a text", f"{name}[{place}]")
    return given


def places(name: str, given: Any, ours: str = "texts") -> dict[str, str]:
    """Returns the places of a field's texts by those that the library names: a text alone has no number."""
    return {ours: name, f"{ours}[0]": name} if isinstance(given, str) else {ours: name}


def check_count(given: list[Any], name: str, limits: RequestLimits) -> None:
    """Raises `ApiError` for more texts than the server reads for one request."""
    if len(given) > limits.texts:
        raise invalid(f"{name} has at most {limits.texts} texts here, and has {len(given)}", name)


def take_limit(fields: Fields) -> int | None:
    """Takes vLLM's `truncate_prompt_tokens`: the tokens that are kept of a text, -1 as many as fit.

    None is an error for a text that is too long.
    """
    most = fields.raw("truncate_prompt_tokens")
    if most is None or (type(most) is int and (most == -1 or most >= 1)):
        return most
    raise invalid("truncate_prompt_tokens must be -1 or a whole number from 1 on", "truncate_prompt_tokens")


def take_cut(fields: Fields) -> Long:
    """Takes `truncate_prompt_tokens` where it can be -1 alone: what a head reads is cut to what fits."""
    most = take_limit(fields)
    if most not in (None, -1):
        raise invalid(
            "truncate_prompt_tokens must be -1 here: a text is cut to what the model can read",
            "truncate_prompt_tokens",
        )
    return long_of(most)


def take_truncate(fields: Fields) -> int | None:
    """Takes `truncate` and `truncation_direction` of text-embeddings-inference, as `take_limit` does."""
    cut = fields.take("truncate", bool, False)
    direction = fields.take("truncation_direction", str, "right")
    if direction.lower() != "right":
        raise invalid("truncation_direction must be Right: the end of a text is cut", "truncation_direction")
    return -1 if cut else None


def long_of(most: int | None) -> Long:
    """Returns what happens to a text that is too long, for the tokens that are kept of it."""
    return "error" if most is None else "cut"
