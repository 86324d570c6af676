"""Checks the outcomes of programs: what passes, what fails and why, and which values cross."""

from __future__ import annotations

import pytest

from decodery.errors import ParameterError
from decodery.evaluation.code import code_runner
from decodery.evaluation.code.code_runner import CodeRunner
from decodery.evaluation.code.isolated_run import CodeRunError, Fence
from decodery.evaluation.code.outcome import CodeLimits, CodeOutcome


@pytest.fixture(scope="module")
def runner() -> CodeRunner:
    """Returns a runner with short limits."""
    try:
        return CodeRunner(allow_code=True, limits=CodeLimits(cpu_seconds=2, wall_seconds=20))
    except CodeRunError as error:
        pytest.skip(str(error))


def ran(runner: CodeRunner, body: str, test: str, *, given: str = "") -> CodeOutcome:
    """Returns the outcome of a program that defines `f`, and of lines of a test."""
    return runner.run(body, test, "f", given=given)


# Solutions and tests of different kinds: what is compared, and by which means.
PASSING = {
    "numbers": ("def f(x): return x + 1", "def check(c):\n    assert c(1) == 2 and c(0.5) == 1.5"),
    "lists in place": ("def f(x): x.sort()", "a = [3, 1, 2]\nassert f(a) is None and a == [1, 2, 3]"),
    "dicts and sets in place": (
        "def f(x, y): x['k'] = [1]; y.add(2)",
        "d, s = {}, {1}\nf(d, y=s)\nassert d == {'k': [1]} and s == {1, 2}",
    ),
    "tuples are not lists": (
        "def f(x): return (1, [2, (3,)])",
        "r = f(0)\nassert r == (1, [2, (3,)]) and r != [1, [2, [3]]]\nassert type(r) is tuple",
    ),
    "keys that are no texts": (
        "def f(x): return {1: 'a', (2, 3): None, True: 1.0}",
        "assert f(0) == {1: 1.0, (2, 3): None}",
    ),
    "large and special numbers": (
        "def f(x): return [x * 10**5000, -0.0, float('inf'), 1j, True, 1.0]",
        "import math\nr = f(7)\nassert r[0] == 7 * 10**5000 and math.copysign(1, r[1]) == -1\n"
        "assert r[2] == math.inf and r[3] == 1j and r[4] is True and type(r[5]) is float",
    ),
    "not a number": ("def f(x): return float('nan')", "r = f(1)\nassert r != r"),
    "texts and bytes": (
        "def f(x): return [x + '\\udc80\\n\\0é😀', b'\\xff', bytearray(b'a'), {1}, frozenset([2]), range(3)]",
        "assert f('a') == ['a\\udc80\\n\\0é😀', b'\\xff', bytearray(b'a'), {1}, frozenset([2]), range(3)]",
    ),
    "iterators": (
        "def f(x):\n    while True:\n        yield x",
        "assert next(f(4)) == 4\nassert f(4) != [4]",
    ),
    "subclasses of plain types": (
        "from collections import Counter, namedtuple\nP = namedtuple('P', 'a b')\n"
        "def f(x): return [Counter('aab'), P(1, 2)]",
        "assert f(0) == [{'a': 2, 'b': 1}, (1, 2)]",
    ),
    "fractions": (
        "from fractions import Fraction\nfrom decimal import Decimal\n"
        "def f(x): return [Fraction(1, 2), Decimal('0.5')]",
        "assert f(0) == [0.5, 0.5]",
    ),
    "exceptions by their kind": (
        "class Own(ValueError): pass\ndef f(x): raise Own('bad')",
        "try:\n    f(1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'bad'",
    ),
    "another function of the program": (
        "def g(x): return x * 2\ndef f(x): return g(x) + 1",
        "def check(c):\n    assert c(2) == g(2) + 1",
    ),
    "prints": ("def f(x):\n    print('some text')\n    return x", "assert f(3) == 3"),
    "no main": ("def f(x): return x\nif __name__ == '__main__':\n    f(input())", "assert f(3) == 3"),
    "annotations of the future": (
        "from __future__ import annotations\ndef f(x: Unknown) -> Unknown: return x",
        "assert f(3) == 3",
    ),
    "recursion": ("def f(x): return 0 if x == 0 else 1 + f(x - 1)", "assert f(900) == 900"),
    "a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\ndef f(x): return P(x).a",
        "assert f(3) == 3",
    ),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_right_program_passes(name: str, runner: CodeRunner) -> None:
    outcome = ran(runner, *PASSING[name])
    assert outcome.passed, outcome
    assert outcome.detail == ""


FAILING = {
    "wrong": ("def f(x): return 3", "assert f(1) == 2, 'two'", "failed", "f(1) = 3: AssertionError: two"),
    "of another type": ("def f(x): return '2'", "assert f(1) < 3", "failed", "TypeError"),
    "no value": ("def f(x): pass", "assert f(1) == 2", "failed", "f(1) = None"),
    "no Python": ("def f(x:", "assert f(1) == 2", "error", "SyntaxError"),
    "no text of Python": ("def f(x): return 'a\0b'", "assert f(1) == 2", "error", "Error"),
    "a lone surrogate": ("def f(x): return '\udc80'", "assert f(1) == 2", "error", "Error"),
    "raises": ("def f(x): return [][x]", "assert f(1) == 2", "error", "f(1) raised IndexError"),
    "no function": ("def g(x): return 2", "assert f(1) == 2", "error", "has no attribute 'f'"),
    "ends": ("import os\ndef f(x): os._exit(3)", "assert f(1) == 2", "error", "ended in f(1) with status 3"),
    "an object": (
        "class P: pass\ndef f(x): return P()",
        "assert f(1) == 2",
        "failed",
        "type P>, which is no plain data",
    ),
    "reads": ("def f(x): return input()", "assert f(1) == 2", "error", "EOFError"),
    "packages": ("import numpy\ndef f(x): return 2", "assert f(1) == 2", "error", "ModuleNotFoundError"),
    "memory": ("def f(x): return [0] * 10**10", "assert f(1) == 2", "limit", "MemoryError"),
    "a test with functions": ("def f(x): return x(1)", "assert f(abs) == 1", "unsupported", "no plain data"),
    "a test without calls": ("def f(x): return 1", "assert True", "unsupported", "does not call"),
    "a test that is no Python": ("def f(x): return 1", "assert f(1) ==", "unsupported", "SyntaxError"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_wrong_program_fails_for_its_own_reason(name: str, runner: CodeRunner) -> None:
    program, test, reason, detail = FAILING[name]
    outcome = ran(runner, program, test)
    assert not outcome.passed
    assert outcome.reason == reason, outcome
    assert detail in outcome.detail
    assert "\n" not in outcome.detail


def test_given_functions_are_not_those_of_the_program(runner: CodeRunner) -> None:
    given = "def g(x):\n    return x + 1\n\ndef f(x):\n    pass\n"
    program = "def g(x): return 0\ndef f(x): return 0"
    test = "def check(c):\n    assert g(c(5)) == 5"
    assert ran(runner, program, test).reason == "failed"
    assert ran(runner, program, "def check(c):\n    assert g(c(5)) == 0").passed
    assert ran(runner, program, test, given=given).reason == "failed"
    assert ran(runner, program.replace("f(x): return 0", "f(x): return x - 1"), test, given=given).passed


def test_output_is_kept_in_part_and_need_not_be_text(runner: CodeRunner) -> None:
    program = (
        "import os\ndef f(x):\n    os.write(1, b'\\xff\\xfe' + b'a' * 9000)\n    print('é')\n    return 2"
    )
    outcome = ran(runner, program, "assert f(1) == 2")
    assert outcome.passed
    assert outcome.output.startswith("��aaa")
    assert len(outcome.output) < 3000


def test_a_hash_has_the_same_order_in_each_run(runner: CodeRunner) -> None:
    program = "def f(x): return list({'a', 'b', 'c', 'd', 'e', 'f'})"
    shown = {ran(runner, program, "assert f(1) == 0").detail for _ in range(3)}
    assert len(shown) == 1


def test_addresses_do_not_stand_in_a_detail(runner: CodeRunner) -> None:
    program = "def f(x): raise ValueError(object())"
    assert "0x..." in ran(runner, program, "assert f(1) == 0").detail


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("tempfile.mkdtemp()", "/..."),
        ("os.path.basename(tempfile.mkdtemp())", "tmp..."),
        ("'tmpab1234_c tmp12345678'", "tmp... tmp..."),
        ("time.time()", "..."),
        ("round(time.time(), 1)", "..."),
        ("time.time_ns()", "..."),
        ("random.random()", "..."),
        ("f'at {id(object())}, 3 of 12'", "at ..., 3 of 12"),
    ],
)
def test_what_changes_in_the_message_of_an_exception_is_not_in_a_detail(
    runner: CodeRunner, value: str, shown: str
) -> None:
    imports = "import os, random, tempfile, time\n"
    called = f"{imports}def f(x): raise ValueError({value})"
    assert ran(runner, called, "assert f(1) == 0").detail == f"f(1) raised ValueError: {shown}"
    loaded = f"{imports}raise ValueError({value})"
    assert ran(runner, loaded, "assert f(1) == 0").detail == f"ValueError: {shown}"


def test_a_new_file_that_is_a_result_has_one_name_in_details(runner: CodeRunner) -> None:
    program = "import tempfile\ndef f(x): return tempfile.mkdtemp()"
    assert ran(runner, program, "assert f(1) == 0").detail == "f(1) = '/...': AssertionError"


def test_programs_are_run_only_when_that_is_allowed() -> None:
    for value in (False, None, 1):
        with pytest.raises(ParameterError, match="--allow-code"):
            CodeRunner(allow_code=value)  # type: ignore[arg-type]


def test_audit_hooks_take_the_place_of_namespaces(
    monkeypatch: pytest.MonkeyPatch, runner: CodeRunner
) -> None:
    real, tried = code_runner.run_program, []

    def run(*values: object, fence: Fence, **options: object) -> object:
        tried.append(fence.namespaces)
        if fence.namespaces:
            raise CodeRunError("no namespaces")
        return real(*values, fence=Fence(False, drop=False), **options)  # type: ignore[arg-type]

    monkeypatch.setattr(code_runner, "run_program", run)
    assert code_runner.best_fence().namespaces is False
    assert tried == [True, False]


def test_a_machine_without_a_fence_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*values: object, **options: object) -> None:
        raise CodeRunError("nothing works")

    monkeypatch.setattr(code_runner, "run_program", run)
    with pytest.raises(CodeRunError, match="nothing works; run as another user"):
        CodeRunner(allow_code=True)
    monkeypatch.delattr(code_runner.os, "fork")
    with pytest.raises(CodeRunError, match="Linux and macOS"):
        CodeRunner(allow_code=True)


@pytest.mark.parametrize("name", ["cpu_seconds", "wall_seconds", "memory_bytes", "processes"])
@pytest.mark.parametrize("value", [0, -1, True, "1", float("nan")])
def test_a_limit_is_a_number_above_0(name: str, value: object) -> None:
    with pytest.raises(ParameterError, match=name):
        CodeLimits(**{name: value})  # type: ignore[arg-type]
