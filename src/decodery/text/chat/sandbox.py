"""Runs chat templates in a sandbox with limits: every loop, call and value is charged to one budget.

Templates come with models and are not trusted. Jinja's sandbox protects the machine from them, but does not
stop a template that runs forever or fills the memory. This one adds three measures. The template's syntax
tree is rewritten before it is compiled, so that loops, outputs, concatenations and literals report their
cost. Calls, operators and filters are intercepted. A value that can be larger than its operands is measured
before it is built.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from types import CodeType, MethodType
from typing import Any

import jinja2
from jinja2 import filters, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from decodery.text.chat.budget import Budget, LimitError

MAX_INTEGER_BITS = 4096
MAX_ROUNDING = 100
MAX_JSON_INDENT = 16

# fmt: off
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "forceescape",
    "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "reverse", "safe", "select", "selectattr", "sort", "string", "title", "trim", "unique", "upper",
    "urlencode", "wordcount",
)
# fmt: on
_JINJA_ARGUMENTS = ("_loop_vars", "_block_vars")
_PADDING_METHODS = frozenset({"center", "ljust", "rjust", "zfill"})
_REFUSED_METHODS = frozenset({"expandtabs", "translate", "to_bytes"})
_DIGITS = re.compile(r"\d+")
_NOT_ASCII = re.compile("[^\\x00-\\x7e\\ud800-\\udfff]")


class RefusedError(Exception):
    """Reports that a template called `raise_exception`."""


class _GenerationBlock(Extension):
    """Accepts `{% generation %}` blocks, which mark replies for training and change nothing here."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _TemplateNamespace(Namespace):
    """Is Jinja's namespace without names that begin with an underscore, and with a short `repr`."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace may not have a name such as {name!r}")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


class _PaidFormatter(SandboxedFormatter):
    """Formats as `str.format` does, and charges for every field after measuring its width."""

    def __init__(self, environment: BoundedEnvironment) -> None:
        super().__init__(environment)
        self._budget = environment.budget

    def format_field(self, value: Any, format_spec: str) -> Any:
        widths = sum(int(digits[:9]) for digits in _DIGITS.findall(format_spec))
        self._budget.reserve(self._budget.weigh(value) + widths)
        return self._budget.admit(super().format_field(value, format_spec))


class _Metered(NodeTransformer):
    """Rewrites a syntax tree so that nodes which the sandbox cannot intercept call `BoundedEnvironment`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, self._tick(1, node.lineno))
        if node.test is not None:
            node.test = nodes.And(self._report("tick", [nodes.Const(1)]), node.test)
        return node

    def visit_Output(self, node: nodes.Output) -> list[nodes.Node]:  # noqa: N802
        self.generic_visit(node)
        literal = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
        node.nodes = [
            part if isinstance(part, nodes.TemplateData) else self._report("emit", [part])
            for part in node.nodes
        ]
        return [self._tick(literal + 1, node.lineno), node]

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._report("concatenate", node.nodes)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._admitted(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._admitted(node, node.items) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return self._admitted(node, [part for pair in node.items for part in (pair.key, pair.value)])

    def _admitted(self, node: nodes.Expr, parts: Sequence[nodes.Node]) -> nodes.Node:
        if all(isinstance(part, nodes.Const) for part in parts):
            return node
        self.generic_visit(node)
        return self._report("admit", [node])

    def _tick(self, cost: int, line: int) -> nodes.Node:
        return nodes.ExprStmt(self._report("tick", [nodes.Const(cost)]), lineno=line)

    def _report(self, name: str, arguments: list[nodes.Expr]) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Holds the environment and the budget of one render.

    It has the globals and filters that chat templates use. It lacks filters for web pages, and filters that
    enlarge a text by a number alone.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # folding constants would run filters while compiling, outside any budget
            extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"],
        )
        self.budget = Budget()
        self.globals.pop("lipsum")
        self.globals.update(
            namespace=_TemplateNamespace,
            dict=lambda *args, **kwargs: dict(*args, **kwargs),
            raise_exception=_raise_exception,
            strftime_now=self._strftime_now,
        )
        self.filters = {name: self._paid(self.filters[name]) for name in _FILTERS}
        self.filters.update(
            replace=self._paid(self._replace),
            join=self._paid(self._join),
            indent=self._paid(self._indent),
            format=self._paid(self._format),
            sum=self._paid(self._sum),
            round=self._paid(self._round),
            tojson=self._paid(self._to_json),
        )
        tests: dict[str, Any] = self.tests
        self.tests = {name: self._paid(test) for name, test in tests.items()}

    def compile_metered(self, template: str) -> CodeType:
        """Returns the code of a template, which any environment of this class can run."""
        tree = _Metered().visit(self.parse(template))
        tree.set_environment(self)
        return self.compile(tree)

    # Called by the rewritten tree.

    def tick(self, cost: int) -> bool:
        """Charges for an iteration of a loop or for literal text. Always True, for use in a condition."""
        self.budget.spend(cost)
        return True

    def emit(self, value: Any) -> str:
        """Returns the text of an expression that is output."""
        self.budget.reserve(self.budget.weigh(value))
        text = str(value)
        self.budget.spend(len(text))
        return text

    def concatenate(self, *parts: Any) -> str:
        """Returns the concatenated texts of its arguments, as the `~` operator does."""
        self.budget.reserve(sum(self.budget.weigh(part) for part in parts))
        return str(self.budget.admit("".join(map(str, parts))))

    def admit(self, value: Any) -> Any:
        """Charges for a list, tuple or dict literal and returns it."""
        return self.budget.admit(value)

    # Called by Jinja.

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        owner = getattr(__obj, "__self__", None)
        if owner is __self and isinstance(__obj, MethodType):
            return __obj(*args)
        __self.budget.spend(1)
        if isinstance(owner, (str, bytes)):
            args = __self._measured(owner, __obj.__name__, args)
        if isinstance(__obj, Macro):
            # A macro may find its arguments gathered in `varargs` and `kwargs`.
            named = [value for name, value in kwargs.items() if name not in _JINJA_ARGUMENTS]
            __self.budget.reserve(__self.budget.weigh([*args, *named]))
        return __self.budget.admit(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, (str, bytes)):
            self.budget.reserve(self._percent_size(left, right))
        elif operator == "*":
            self._check_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_integer(left.bit_length() * abs(right))
        return self.budget.admit(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _REFUSED_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        form, by_mapping = str(value.__self__), value.__name__ == "format_map"
        formatter = _PaidFormatter(self)

        def formatted(*args: Any, **kwargs: Any) -> str:
            if by_mapping:
                return formatter.vformat(form, (), *args)
            return formatter.vformat(form, args, kwargs)

        return formatted

    # Filters and globals.

    def _replace(self, text: Any, old: str, new: str, count: int | None = None) -> str:
        owner, times = str(text), -1 if count is None else count
        return owner.replace(*self._measured(owner, "replace", (str(old), str(new), times)))

    def _join(self, values: Iterable[Any], separator: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            values = map(filters.make_attrgetter(self, attribute), values)
        parts = list(values)
        self.budget.reserve(self.budget.weigh(parts) + len(str(separator)) * len(parts))
        return str(separator).join(map(str, parts))

    def _indent(self, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        step = len(width) if isinstance(width, str) else width
        self.budget.reserve(len(text) + (len(text.splitlines()) + 1) * step)
        return filters.do_indent(text, width, first, blank)

    def _format(self, text: Any, *args: Any, **kwargs: Any) -> str:
        values = kwargs or args
        self.budget.reserve(self._percent_size(str(text), values))
        return str(text) % values

    def _sum(self, values: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
        if attribute is not None:
            values = map(filters.make_attrgetter(self, attribute), values)
        for value in values:
            self.budget.reserve(self.budget.weigh(start) + self.budget.weigh(value))
            start = self.budget.admit(start + value)
        return start

    def _round(self, value: float, precision: int = 0, method: Any = "common") -> float:
        if abs(precision) > MAX_ROUNDING:
            raise LimitError(f"it rounds to more than {MAX_ROUNDING} digits")
        return filters.do_round(value, precision, method)

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Returns JSON as chat templates expect it, without escapes for HTML."""
        self.budget.reserve(self.budget.weigh(value))
        encoder = json.JSONEncoder(
            ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
        )
        text = self._encoded(encoder, value, indent, separators)
        # Surrogates hide characters of marks (`SaidTexts`), so they are no text to escape.
        return _NOT_ASCII.sub(_escaped, text) if ensure_ascii else text

    def _encoded(
        self,
        encoder: json.JSONEncoder,
        value: Any,
        indent: int | None,
        separators: tuple[str, str] | None,
    ) -> str:
        if indent is None and separators is None:
            return encoder.encode(value)
        if isinstance(indent, int) and indent > MAX_JSON_INDENT:
            raise LimitError(f"it indents JSON by more than {MAX_JSON_INDENT}")
        pieces = []
        for piece in encoder.iterencode(value):
            self.budget.spend(len(piece))
            pieces.append(piece)
        return "".join(pieces)

    def _strftime_now(self, form: str) -> str:
        self.budget.reserve(64 * len(form))
        return datetime.datetime.now().strftime(form)

    def _measured(self, owner: str | bytes, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the arguments of a string method. Raises `LimitError` if its result would be too large."""
        if name == "replace" and len(args) >= 2:
            times = owner.count(args[0])
            self.budget.reserve(len(owner) + times * len(args[1]))
        elif name == "join" and args:
            args = (list(args[0]),)
            self.budget.reserve(self.budget.weigh(args[0]) + len(owner) * len(args[0]))
        elif name in _PADDING_METHODS and args:
            self.budget.reserve(args[0])
        return args

    def _check_product(self, left: Any, right: Any) -> None:
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, (str, bytes, list, tuple)) and isinstance(times, int):
                self.budget.reserve(len(sequence) * times)
        if isinstance(left, int) and isinstance(right, int):
            _check_integer(left.bit_length() + right.bit_length())

    def _percent_size(self, form: str | bytes, values: Any) -> int:
        """Returns an upper bound of the size of `form % values`; after a `*`, a number may be a width."""
        text = form if isinstance(form, str) else form.decode("latin-1")
        parts = values if isinstance(values, tuple) else (values,)
        sizes = [
            abs(part) if isinstance(part, int) and "*" in text else self.budget.weigh(part) for part in parts
        ]
        widths = sum(int(digits[:9]) for digits in _DIGITS.findall(text))
        return len(text) + widths + text.count("%") * max(sizes, default=0)

    def _paid(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a filter or test that charges for its result, also if another filter calls it in a loop."""

        @wraps(function)
        def paid(*args: Any, **kwargs: Any) -> Any:
            self.budget.spend(1)
            return self.budget.admit(function(*args, **kwargs))

        return paid


def _raise_exception(message: object) -> None:
    raise RefusedError(str(message))


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found.group())[1:-1]


def _check_integer(bits: int) -> None:
    if bits > MAX_INTEGER_BITS:
        raise LimitError(f"it computes a number of more than {MAX_INTEGER_BITS} bits")
