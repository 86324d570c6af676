"""Writes grammars in the form of the grammar library; `errors` words what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llguidance import LLMatcher, LLParserLimits

from decodery.decoding.grammar.lark_writer import gbnf_to_lark
from decodery.decoding.json_schema.rewriting import plain_text
from decodery.decoding.request.grammar_params import Choice, Gbnf, JsonObject, Lark, Regex
from decodery.errors import ParameterError

# The library's own bounds keep a grammar from taking unlimited memory or time. The option only shortens its
# messages.
LIMITS = LLParserLimits(verbose_errors=False)

# White space between JSON tokens: one or two spaces, or a line break with indentation. Without a bound, a
# model can write white space until its budget is spent. A schema's own "x-guidance" has precedence.
_SPACE: Any = {"whitespace_pattern": r"(?: {1,2}|\r?\n[ \t]{0,40})"}

# The library follows rules by recursion, and an overflow of its stack cannot be caught.
_MOST_RULES = 1000

_RULE = re.compile(r"^[ \t]*[?!]?[A-Za-z_][\w-]*[^\n\"/:]*:", re.MULTILINE)
_UNSUPPORTED = re.compile(r"^[ \t]*([a-z_][\w-]*)\[[^\]\n]*\b(temperature|stop)\s*=", re.MULTILINE)


def source_of(grammar: Regex | Choice | JsonObject | Lark | Gbnf) -> str:
    """Returns a grammar in the library's form; see `schema_form` for JSON schemas.

    Raises `ParameterError` for faults that are known without asking the library.
    """
    if isinstance(grammar, Regex):
        return _regex(grammar.pattern)
    if isinstance(grammar, Choice):
        return LLMatcher.grammar_from_regex("|".join(map(literal, grammar.options)))
    if isinstance(grammar, JsonObject):
        return library_form({"type": "object"}, {})
    if isinstance(grammar, Lark):
        return _lark(grammar.grammar)
    return _rules(gbnf_to_lark(grammar.grammar))


def after_text(text: str, source: str | None) -> str:
    """Returns the form of `text` followed by the grammar `source`, or by anything if that is None."""
    if source is None:
        return _rules(f"start: /{literal(text)}(?s:.*)/")
    form = json.loads(source)
    inner = {**form["grammars"][0], "name": "inner"}
    outer = {"name": "outer", "lark_grammar": f"start: /{literal(text)}/ @inner"}
    return json.dumps({"grammars": [outer, inner]})


def literal(text: str) -> str:
    """Returns a regular expression for exactly this text, without characters special to any notation."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def library_form(schema: Any, head: Mapping[str, Any]) -> str:
    """Returns the form of a JSON schema of which the library knows all keywords.

    `head` has its `$schema` and "x-guidance". Raises `ValueError` for a number beyond those of 64 bits.
    """
    own = head.get("x-guidance")
    spaced = isinstance(own, dict) and ("whitespace_flexible" in own or "whitespace_pattern" in own)
    content = {**head} if schema is True else {**head, **schema}
    form: str = LLMatcher.grammar_from_json_schema(plain_text(content), defaults={} if spaced else _SPACE)
    return form


def _regex(pattern: str) -> str:
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise ParameterError(
            f"Regex cannot be followed: bare backslash at its end, offset {len(pattern) - 1}"
        )
    return LLMatcher.grammar_from_regex(pattern)


def _rules(lark: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": lark}]})


def _lark(text: str) -> str:
    if len(_RULE.findall(text)) > _MOST_RULES:
        raise ParameterError(f"Lark has more than {_MOST_RULES} rules: too many to be followed")
    # The library enforces neither: a temperature is a hint to it, and a stop would need it to take text back.
    odd = _UNSUPPORTED.search(text)
    if odd:
        instead = "set it for the whole text" if odd[2] == "temperature" else "give suffix= or lazy"
        raise ParameterError(f"Lark gives rule {odd[1]!r} {odd[2]}=, which is not supported: {instead}")
    return _rules(text)
