"""Measures how JSON schemas are followed (`python -m bench.json_schemas [FOLDER]`).

FOLDER holds files in the shape of MaskBench: `{"schema": ..., "tests": [{"valid": true, "data": ...}]}`.
Without one, 200 random schemas of `bench.schema_set` are measured, whose values jsonschema has judged.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from jsonschema import Draft202012Validator, FormatChecker
from llguidance import LLTokenizer, TokenizerWrapper

from bench.schema_set import random_schema, random_value, value_near
from decodery.decoding.grammar.compiler import GrammarCompiler
from decodery.decoding.grammar.state import MatcherState
from decodery.decoding.json_schema.formats import FORMATS
from decodery.decoding.request.grammar_params import JsonSchema
from decodery.errors import ParameterError

Mode = Literal["error", "approximate"]
COUNTS = (
    *("schemas", "refused", "valid", "valid, not allowed by the grammar", "valid, refused by the check"),
    *("invalid", "invalid, told by the check", "invalid, accepted"),
)
MODES: tuple[Mode, ...] = ("error", "approximate")


class _Bytes:
    """Has the attributes and the call that LLTokenizer needs of a vocabulary of the single bytes."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    eos_token_id = 256
    special_token_ids = ()
    tokens = (*(bytes([byte]) for byte in range(256)), b"")

    def __call__(self, text: str) -> list[int]:
        """Returns the bytes of a text."""
        return list(text.encode())


def own_set(count: int) -> Iterator[dict[str, Any]]:
    """Yields random schemas, each with ten values of which one at least is valid."""
    formats = FormatChecker(formats=())
    for name in FORMATS:
        formats.checks(name)(partial(_has_format, name))
    found, seed = 0, 0
    while found < count:
        source = random.Random(seed)
        seed += 1
        schema = random_schema(source)
        values = [value_near(source, schema) if k % 4 else random_value(source) for k in range(10)]
        judge = Draft202012Validator(schema, format_checker=formats)
        tests = [{"valid": judge.is_valid(value), "data": value} for value in values]
        if any(test["valid"] for test in tests):
            found += 1
            yield {"schema": schema, "tests": tests}


def _has_format(name: str, value: object) -> bool:
    return not isinstance(value, str) or FORMATS[name](value)


def folder_set(folder: Path, step: int) -> Iterator[dict[str, Any]]:
    """Yields the contents of every `step`-th file of a folder."""
    for path in sorted(folder.glob("*.json"))[::step]:
        yield json.loads(path.read_text(encoding="utf-8"))


def measured(grammars: GrammarCompiler, case: dict[str, Any], mode: Mode) -> Counter[str]:
    """Returns what became of one schema and of its values."""
    try:
        grammar = JsonSchema(case["schema"], mode)
        form, state = grammars.schema(grammar), grammars.compile(grammar)
    except ParameterError:
        return Counter(["schemas", "refused"])
    assert isinstance(state, MatcherState)
    found = Counter(["schemas"])
    for test in case["tests"]:
        text = json.dumps(test["data"], ensure_ascii=False)
        after = state.after_text(text.encode())
        allowed = after is not None and after.accepting
        accepted = allowed and form.check.problem(text) is None
        if test["valid"]:
            found["valid"] += 1
            found["valid, not allowed by the grammar"] += not allowed
            found["valid, refused by the check"] += allowed and not accepted
        else:
            found["invalid"] += 1
            found["invalid, told by the check"] += allowed and not accepted
            found["invalid, accepted"] += accepted
    return found


def main() -> None:
    """Prints a table of both modes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--step", type=int, default=1, help="measure every STEP-th file")
    asked = parser.parse_args()
    grammars = GrammarCompiler(LLTokenizer(cast(TokenizerWrapper, _Bytes())))
    for mode in MODES:
        cases = own_set(200) if asked.folder is None else folder_set(asked.folder, asked.step)
        total: Counter[str] = Counter()
        for case in cases:
            total += measured(grammars, case, mode)
        print(f'unsupported="{mode}": {total["refused"] / max(total["schemas"], 1):.2%} refused')
        for name in COUNTS:
            print(f"    {name}: {total[name]}")


if __name__ == "__main__":
    main()
