"""Rewrites JSON schemas with the keywords that the grammar library knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import combinations, permutations
from math import comb
from typing import Any

from decodery.decoding.json_schema.formats import FORMATS
from decodery.decoding.json_schema.keywords import IN_MAP, IN_VALUE, REFERENCES
from decodery.decoding.json_schema.negation import TYPES, Negation, Schema

# The library's keywords that hold no schemas.
_SIMPLE = frozenset(
    (
        *("const", "enum", "exclusiveMaximum", "exclusiveMinimum", "maxItems", "maxLength", "maxProperties"),
        *(
            "maximum",
            "minItems",
            "minLength",
            "minProperties",
            "minimum",
            "multipleOf",
            "pattern",
            "required",
        ),
        "type",
    )
)
_SIZES = frozenset(("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties"))
_BOUNDS = frozenset(("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"))
# Keywords that the library lacks; `then` and `else` belong to `if`.
_LACKING = (
    *("not", "if", "dependencies", "dependentRequired", "dependentSchemas", "uniqueItems", "contains"),
    *("propertyNames", "unevaluatedProperties", "unevaluatedItems"),
)
_IN_PLACE = frozenset(("$ref", "allOf", "anyOf", "oneOf", "if", "not", "dependentSchemas", "dependencies"))
# What is left of a schema that the library cannot follow for other reasons.
_LOOSE = frozenset(("additionalProperties", "const", "enum", "items", "properties", "required", "type"))
# The library's own numbers go a little farther.
_LARGEST = 2**62
_MOST_VALUES = 100
_MOST_OPTIONS = 24


class Rewriting:
    """Rewrites one schema; what cannot be said exactly is loosened, and its keyword added to `loosened`.

    `targets` are those of `targets_of`. `accepts(schema, value)` says if a part of the schema accepts a
    value; `refuses(schema)` is the library's reason not to take a rewritten schema, or "". `faults` are the
    reasons, of `fault_of`, why the library did not take this schema before. `warnings` are for the user.
    """

    def __init__(
        self,
        root: Schema,
        targets: Mapping[int, Schema],
        accepts: Callable[[Schema, Any], bool],
        refuses: Callable[[Schema], str],
        *,
        old: bool,
        faults: frozenset[str] = frozenset(),
    ) -> None:
        self._root = root
        self._targets = targets
        self._accepts = accepts
        self._refuses = refuses
        self._old = old
        self._faults = faults
        self._names: dict[int, str] = {}
        self._waiting: list[tuple[str, Schema]] = []
        self._taken: dict[str, bool] = {}
        self._negation = Negation(self._target)
        self._lacking_keywords = (*_LACKING, *(("oneOf",) if "oneOf" in faults else ()))
        self.loosened: list[str] = []
        self.warnings: list[str] = []

    def run(self) -> Schema:
        """Returns the rewritten schema, with all that it refers to."""
        if "types" in self._faults:
            self._loosen("structure")
            types = self._root.get("type") if isinstance(self._root, dict) else None
            known = [types] if isinstance(types, str) else types or [None]
            return {"type": types} if all(name in (*TYPES, "integer") for name in known) else {}
        return self._with_definitions(self._schema(self._root))

    def _with_definitions(self, written: Schema) -> Schema:
        definitions: dict[str, Schema] = {}
        while self._waiting:
            name, schema = self._waiting.pop()
            definitions[name] = self._schema(schema)
        if not definitions or not isinstance(written, dict):
            return written
        return {**written, "$defs": definitions}

    def _loosen(self, keyword: str) -> None:
        if keyword not in self.loosened:
            self.loosened.append(keyword)

    def _target(self, schema: dict[str, Any]) -> Schema | None:
        """Returns what an object that is a reference and nothing else refers to."""
        given = [keyword for keyword in REFERENCES if keyword in schema]
        if not given or id(schema) not in self._targets or (len(schema) > 1 and not self._old):
            return None
        return self._targets[id(schema)]

    def _reference(self, schema: dict[str, Any]) -> dict[str, Any]:
        target = self._targets[id(schema)]
        if target is self._root:
            return {"$ref": "#"}
        if id(target) not in self._names:
            self._names[id(target)] = f"r{len(self._names)}"
            self._waiting.append((self._names[id(target)], target))
        return {"$ref": f"#/$defs/{self._names[id(target)]}"}

    def _schema(self, schema: Schema) -> Schema:
        """Returns a schema rewritten."""
        if not isinstance(schema, dict) or not schema:
            return schema
        found = self._listed(schema)
        if found is not None:
            return found
        written: dict[str, Any] = {}
        conditions: list[Schema] = []
        if id(schema) in self._targets:
            written = self._reference(schema)
            if self._old or len(schema) == 1:
                return written
            if self._faults & {"circle", "loose"}:
                self._loosen("$ref")
                return written
        for keyword, value in schema.items():
            self._keyword(keyword, value, schema, written)
        for keyword in (one for one in self._lacking_keywords if one in schema):
            # What is said in other words comes last, so that properties keep their order.
            found = None if "loose" in self._faults else self._lacking(keyword, schema, written)
            if found is None:
                self._loosen(keyword)
            else:
                conditions += found
        return _joined(written, [self._schema(one) for one in conditions])

    def _keyword(self, keyword: str, value: Any, schema: dict[str, Any], written: dict[str, Any]) -> None:
        """Adds a keyword to what is written, if the library knows it."""
        if "loose" in self._faults and keyword in (_SIMPLE | IN_MAP | IN_VALUE) - _LOOSE - {*_LACKING}:
            if keyword not in ("$defs", "definitions"):
                self._loosen(keyword)
        elif keyword in _SIMPLE:
            self._simple(keyword, value, schema, written)
        elif keyword == "format":
            if value in FORMATS:
                written[keyword] = value
            else:
                self._warn(f'the format "{_shown(value)}" is not known: it does not restrict the text')
        elif keyword in ("allOf", "anyOf", "oneOf", "prefixItems") or (
            keyword == "items" and isinstance(value, list)
        ):
            if "loose" in self._faults:
                self._loosen(keyword)
            elif keyword != "oneOf" or "oneOf" not in self._faults:
                written[keyword] = [self._schema(one) for one in value]
        elif keyword in ("additionalItems", "additionalProperties", "items"):
            written[keyword] = self._schema(value)
        elif keyword == "properties":
            written[keyword] = {name: self._schema(part) for name, part in value.items()}
        elif keyword == "patternProperties":
            self._patterns(value, written)

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def _simple(self, keyword: str, value: Any, schema: dict[str, Any], written: dict[str, Any]) -> None:
        if keyword in _SIZES:
            value = int(value)
        if keyword in _BOUNDS and not isinstance(value, bool) and abs(value) >= _LARGEST:
            # Far beyond what is written in practice; the check of the text compares exactly.
            return
        if keyword in ("minProperties", "maxProperties") and "count" in self._faults:
            self._counted(schema, written)
        elif keyword == "pattern" and "pattern" in self._faults and not self._takes(value):
            self._loosen(keyword)
        else:
            written[keyword] = value

    def _takes(self, pattern: str) -> bool:
        if pattern not in self._taken:
            self._taken[pattern] = not self._refuses({"type": "string", "pattern": pattern})
        return self._taken[pattern]

    def _patterns(self, patterns: Mapping[str, Schema], written: dict[str, Any]) -> None:
        if "pattern" in self._faults and not all(map(self._takes, patterns)):
            self._loosen("patternProperties")
            # Which properties are additional is not known then.
            written.pop("additionalProperties", None)
            written["patternProperties"] = {"(?s:.*)": True}
            return
        parts = {pattern: self._schema(part) for pattern, part in patterns.items()}
        if "overlap" not in self._faults or len(parts) < 2:
            written["patternProperties"] = parts
            return
        options = list({json.dumps(part, default=str): part for part in parts.values()}.values())
        if len(options) > 1:
            self._loosen("patternProperties")
        either = options[0] if len(options) == 1 else {"anyOf": options}
        written["patternProperties"] = {"|".join(f"(?:{pattern})" for pattern in parts): either}

    def _listed(self, schema: dict[str, Any]) -> Schema | None:
        """Returns the list of a schema's few values, if it has keywords that the library lacks."""
        if not {*self._lacking_keywords} & schema.keys():
            return None
        values = _few_values(schema)
        if values is None:
            return None
        kept = [value for value in values if self._accepts(schema, value)]
        return {"enum": kept} if kept else False

    def _one_of(self, options: Sequence[Schema], written: dict[str, Any]) -> list[Schema]:
        if self._apart(options):
            written["oneOf"] = [self._schema(one) for one in options]
            return []
        exact = self._exactly_one(options)
        if exact is None:
            self._loosen("oneOf")
        return [{"anyOf": list(options)} if exact is None else exact]

    def _apart(self, options: Sequence[Schema]) -> bool:
        """True if the library sees that no two of these schemas accept one value."""
        alone = {"oneOf": list(options)}
        faults = self._faults - {"oneOf"}
        inner = Rewriting(alone, self._targets, self._accepts, self._refuses, old=self._old, faults=faults)
        return "oneOf" not in self._refuses(inner.run())

    def _exactly_one(self, options: Sequence[Schema]) -> Schema | None:
        """Returns the schema of what exactly one of these accepts; None if it cannot be written."""
        if len(options) ** 2 > 2 * _MOST_OPTIONS:
            return None
        exact: list[Schema] = []
        for place, option in enumerate(options):
            parts: list[Schema] = [option]
            for other in (*options[:place], *options[place + 1 :]):
                negated = self._negation.beside(other, option)
                if negated is None:
                    return None
                parts.append(negated)
            needed = [part for part in parts if part is not True]
            if False not in needed:
                exact.append({"allOf": needed} if needed else True)
        return {"anyOf": exact} if exact else False

    def _counted(self, schema: dict[str, Any], written: dict[str, Any]) -> None:
        """Writes the bounds on the number of properties as choices among those that are declared."""
        declared = [name for name, part in schema.get("properties", {}).items() if part is not False]
        needed = set(schema.get("required", ()))
        optional = [name for name in declared if name not in needed]
        closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
        low, high = int(schema.get("minProperties", 0)), int(schema.get("maxProperties", len(declared)))
        low, high = max(low - len(needed), 0), min(high - len(needed), len(optional))
        options = _choices(optional, low, high) if closed and needed <= set(declared) else None
        if options is not None and schema.get("type") != "object":
            options.append({"type": [name for name in TYPES if name != "object"]})
        if options is None:
            for keyword in ("minProperties", "maxProperties"):
                if keyword in schema:
                    self._loosen(keyword)
        elif "allOf" not in written or {"anyOf": options} not in written["allOf"]:
            written["allOf"] = [*written.get("allOf", ()), {"anyOf": options}]

    def _lacking(self, keyword: str, schema: dict[str, Any], written: dict[str, Any]) -> list[Schema] | None:
        """Returns schemas that say together what a keyword says that the library lacks; None if none do.

        It may change what is written of the other keywords.
        """
        value = schema[keyword]
        match keyword:
            case "not":
                negated = self._negation.of(value)
                return None if negated is None else [negated]
            case "oneOf":
                return self._one_of(value, written)
            case "if":
                return self._conditional(schema)
            case "uniqueItems":
                return [] if not value or schema.get("maxItems", 2) <= 1 else self._unique(schema)
            case "contains":
                return _containing(schema)
            case "propertyNames":
                return self._named(value, schema, written)
            case "unevaluatedProperties":
                return self._unevaluated("additionalProperties", value, schema, written)
            case "unevaluatedItems":
                rest = "additionalItems" if isinstance(schema.get("items"), list) else "items"
                return self._unevaluated(rest, value, schema, written)
            case _:
                return self._dependent(value, schema)

    def _conditional(self, schema: dict[str, Any]) -> list[Schema] | None:
        condition = schema["if"]
        then, otherwise = schema.get("then", True), schema.get("else", True)
        negated = self._negation.of(condition)
        if negated is None:
            self._loosen("if")
            negated = True
        options = [_both(condition, then), _both(negated, otherwise)]
        return [] if True in options else [{"anyOf": [option for option in options if option is not False]}]

    def _dependent(self, value: Mapping[str, Any], schema: dict[str, Any]) -> list[Schema] | None:
        """Returns what holds if properties are there: each is not, or what depends on it holds."""
        conditions: list[Schema] = []
        objects = schema.get("type") == "object"
        free = 0
        for name, demand in value.items():
            part = demand
            if isinstance(demand, list):
                part = {"type": "object", "required": demand} if objects else {"required": demand}
            if name in schema.get("required", ()):
                conditions.append(part)
            else:
                free += 1
                absent: dict[str, Any] = {"properties": {name: False}}
                conditions.append({"anyOf": [{"type": "object", **absent} if objects else absent, part]})
        # Each doubles the alternatives that the library multiplies out.
        return conditions if free <= 4 else None

    def _unique(self, schema: dict[str, Any]) -> list[Schema] | None:
        """Returns the list of all arrays, if the items are few values."""
        values = _few_values(schema.get("items"))
        if values is None or len(values) > 4 or schema.get("type") != "array" or "prefixItems" in schema:
            return None
        arrays = [list(one) for count in range(len(values) + 1) for one in permutations(values, count)]
        return [{"enum": [array for array in arrays if self._accepts(schema, array)]}]

    def _named(self, names: Schema, schema: dict[str, Any], written: dict[str, Any]) -> list[Schema] | None:
        """Writes what `propertyNames` says with other keywords about properties."""
        declared = schema.get("properties", {})
        refused = [name for name in declared if not self._accepts(names, name)]
        conditions: list[Schema] = [{"properties": {name: False}} for name in refused]
        if schema.get("additionalProperties") is False and not schema.get("patternProperties"):
            return conditions
        while isinstance(names, dict) and (target := self._target(names)) is not None:
            names = target
        rest = self._schema(schema.get("additionalProperties", True))
        rules = {} if not isinstance(names, dict) else {k: v for k, v in names.items() if k != "type"}
        if "patternProperties" in schema or not rules or (declared and rest is not True):
            return None
        if rules.keys() <= {"enum", "const"}:
            allowed = [name for name in rules.get("enum", [rules.get("const")]) if isinstance(name, str)]
            written.setdefault("properties", {}).update({n: rest for n in allowed if n not in declared})
        elif rules.keys() == {"pattern"}:
            if not self._takes(rules["pattern"]):
                return None
            written["patternProperties"] = {rules["pattern"]: rest}
        elif rules.keys() <= {"minLength", "maxLength"}:
            low, high = int(rules.get("minLength", 0)), rules.get("maxLength")
            length = f"{low},{'' if high is None else int(high)}"
            written["patternProperties"] = {f"^(?s:.{{{length}}})$": rest}
        else:
            return None
        written["additionalProperties"] = False
        return conditions

    def _unevaluated(
        self, rest: str, value: Schema, schema: dict[str, Any], written: dict[str, Any]
    ) -> list[Schema] | None:
        """Writes what holds for the rest as the keyword that says it where nothing else evaluates."""
        if value is True or rest in schema:
            return []
        if _IN_PLACE & schema.keys() or (rest == "items" and "contains" in schema):
            return None
        written[rest] = self._schema(value)
        return []


def fault_of(reason: str) -> str | None:
    """Returns the kind of the library's reason not to take a schema, which `Rewriting` can avoid, or None."""
    for kind, words in {
        "oneOf": ("oneOf constraints",),
        "count": ("min/maxProperties",),
        "overlap": ("are not disjoint",),
        "pattern": ("look", "regex parse", "regex"),
        "circle": ("circular references",),
    }.items():
        if any(word in reason for word in words):
            return kind
    return None


def plain_text(schema: Schema) -> str:
    """Returns a rewritten schema as JSON. Raises `ValueError` for a number beyond those of 64 bits."""
    return json.dumps(schema, default=_plain_number, allow_nan=False)


def _plain_number(value: Any) -> float:
    assert isinstance(value, Decimal)
    return float(value)


def _shown(value: Any) -> str:
    return ascii(str(value)[:40])[1:-1]


def _both(first: Schema, second: Schema) -> Schema:
    if first is False or second is False:
        return False
    parts = [part for part in (first, second) if part is not True]
    return {"allOf": parts} if len(parts) > 1 else parts[0] if parts else True


def _joined(written: dict[str, Any], conditions: Sequence[Schema]) -> Schema:
    """Returns the schema of what both allow; properties keep their order."""
    needed = [one for one in conditions if one is not True and one != {}]
    if False in needed:
        return False
    if not needed:
        return written
    if len(needed) == 1 and isinstance(needed[0], dict) and not needed[0].keys() & written.keys():
        (only,) = needed
        if only.keys() == {"anyOf"} or not written:
            return {**written, **only}
    return {"allOf": [written, *needed]} if written else {"allOf": needed}


def _few_values(schema: Schema) -> list[Any] | None:
    """Returns all values that a schema can accept, and perhaps some more; None if they may be many."""
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return [schema["const"]]
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"]) if len(schema["enum"]) <= _MOST_VALUES else None
    kind = schema.get("type")
    if kind == "boolean":
        return [True, False]
    low, high = schema.get("minimum"), schema.get("maximum")
    if kind == "integer" and low is not None and high is not None and high - low <= _MOST_VALUES:
        return [value for value in range(int(low) - 1, int(high) + 2) if low <= value <= high]
    return None


def _choices(names: Sequence[str], low: int, high: int) -> list[Schema] | None:
    """Returns a schema for each way to have `low` of the names at least, and to lack enough for `high`."""
    if high < low or comb(len(names), low) > _MOST_OPTIONS or comb(len(names), max(high, 0)) > _MOST_OPTIONS:
        return None
    least: list[Schema] = [{"type": "object", "required": list(some)} for some in combinations(names, low)]
    most: list[Schema] = [
        {"type": "object", "properties": {name: False for name in names if name not in some}}
        for some in combinations(names, high)
    ]
    if low == 0:
        return most
    if high == len(names):
        return least
    if len(least) * len(most) > _MOST_OPTIONS:
        return None
    return [{"allOf": [one, other]} for one in least for other in most]


def _containing(schema: dict[str, Any]) -> list[Schema] | None:
    """Returns the places at which an array of few items may have one that `contains` asks for."""
    least, most = schema.get("minContains", 1), schema.get("maxItems")
    if least == 0 and "maxContains" not in schema:
        return []
    if least != 1 or most is None or most > 6 or "maxContains" in schema:
        return None
    options: list[Schema] = [
        {"type": "array", "items": [*[True] * place, schema["contains"]], "minItems": place + 1}
        for place in range(int(most))
    ]
    if schema.get("type") != "array":
        options.append({"type": [name for name in TYPES if name != "array"]})
    return [{"anyOf": options}]
