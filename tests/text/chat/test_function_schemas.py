"""Checks that Python functions are declared as transformers declares them, and what a function must say."""

# The older forms of unions are hints that functions have.
# ruff: noqa: UP007, UP045

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Literal, Optional, Union

import pytest

from decodery import LLM, RequestError
from decodery.text.chat.tools import read_tools
from tests.conversations.models import template, write_chat_model


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    ONE = 1
    NAME = "name"
    NOTHING = None


HINTS: list[Any] = [
    *(int, float, str, bool, Any, list, tuple, dict, None, Colour, Level, Mixed),
    *(Optional[int], int | None, Union[int, str], str | int | float, int | str | None, list | tuple),
    *(Literal["a", "b"], Literal[1, "a", None], Literal["a"] | None, Literal[True] | int),
    *(list[int], list[list[str]], list[int | None], list[Colour], list[int] | int, list[int] | None),
    *(tuple[int, str], tuple[int | None, list[str]], dict[str, int], dict[str, list[Any]]),
    *(dict[str, dict[str, int | str]], Optional[dict[str, float]], Union[Literal["a"], list[int], None]),
]


def hinted(hint: Any, default: bool = False) -> Callable[..., Any]:
    """Returns a function with an argument of this type."""

    def tool(value: Any, other: int = 1) -> str:
        """Does it.

        Args:
            value: What to do it with.
            other: How often.
        """
        return f"{value} {other}"

    tool.__annotations__["value"] = hint
    if default:
        tool.__defaults__ = (None, 1)
    return tool


def no_arguments() -> None:
    """Stops.

    And says nothing
    more.
    """


def choices(beverage: str, size: int = 1) -> None:
    """Makes a drink.

    Args:
        beverage: The drink,
            hot or cold (choices: ["tea ", "coffee"])
        size: Its size (Choices: [1, 2])

    Returns:
        Nothing at
        all.

    Raises:
        ValueError: If there is none.
    """


def long_texts(first: str, second: dict[str, int] = {}, third: bool = False) -> list[dict[str, Any]]:  # noqa: B006
    """
    Describes itself at length: with colons, "quotes" and é.

    A second paragraph.

    Args:
        first: A text, such as: this one.
            More of it: here.

        second: Another one
        third:
            On a line of its own.
    """
    return []


def odd_result(value: int) -> Callable[[], None]:
    """Returns a function, which has no schema.

    Args:
        value: A number.

    Returns:
        It.
    """
    return lambda: None


def keyword_only(value: int, *, name: str, size: float = 1.0) -> str:
    """Has arguments that need their names.

    Args:
        value: A number.
        name: A name.
        size: A size.

    Returns:
        The name.
    """
    return name


class Holder:
    def method(self, value: int) -> int:
        """Is a method.

        Args:
            value: A number.
        """
        return value

    @classmethod
    def of_class(cls, value: int) -> int:
        """Is a method of a class.

        Args:
            value: A number.
        """
        return value


FUNCTIONS = [
    *(no_arguments, choices, long_texts, odd_result, keyword_only, Holder().method, Holder.method),
    *(Holder.of_class, *(hinted(hint) for hint in HINTS), *(hinted(hint, True) for hint in HINTS[:4])),
]


def test_functions_are_declared_as_in_transformers() -> None:
    oracle = pytest.importorskip("transformers.utils.chat_template_utils").get_json_schema
    for function in FUNCTIONS:
        [tool] = read_tools([function])
        assert tool.declaration == oracle(function), function
        assert tool.name == function.__name__
    assert len(FUNCTIONS) >= 40


def test_types_after_the_names_of_arguments_are_no_part_of_their_texts() -> None:
    def tool(value: int, other: str) -> None:
        """Does it.

        Arguments:
            value (int, optional): A number.
            other (str): A text.
        """

    [read] = read_tools([tool])
    properties = read.declaration["function"]["parameters"]["properties"]
    assert [entry["description"] for entry in properties.values()] == ["A number.", "A text."]


def undocumented(value: int) -> None:
    pass


def without_text(value: int, other: int) -> None:
    """Does it.

    Args:
        value: A number.
    """


def without_hint(value) -> None:  # type: ignore[no-untyped-def]
    """Does it.

    Args:
        value: A number.
    """


def with_many(*values: int) -> None:
    """Does it.

    Args:
        values: Numbers.
    """


def with_bad_choices(value: str) -> None:
    """Does it.

    Args:
        value: A text (choices: a, b)
    """


def with_unreadable_hint(value: int) -> None:
    """Does it.

    Args:
        value: A number.
    """


with_unreadable_hint.__annotations__["value"] = "NoSuchType"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (undocumented, "undocumented has no docstring"),
        (without_text, "no description of its argument 'other'"),
        (without_hint, "no type hint for its argument 'value'"),
        (with_many, r"takes \*values"),
        (with_bad_choices, "choices are no JSON list"),
        (with_unreadable_hint, "NoSuchType"),
        (hinted(Holder), "of the type Holder, which has no JSON schema"),
        (hinted(tuple[int]), "use a list"),
        (hinted(tuple[int, ...]), "use a list"),
        (hinted(set[int]), "which has no JSON schema"),
        (hinted(bytes), "of the type bytes"),
        (hinted(Literal[b"a"]), "values are not int"),
        (lambda: None, "<lambda> has no docstring"),
        (Holder, "or a Python function"),
        (print, "or a Python function"),
    ],
)
def test_what_a_function_lacks_is_told_with_its_place(function: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        read_tools([no_arguments, function])
    assert (caught.value.param or "").startswith("tools[1]")


def get_weather(place: Literal["Ulm"], days: Literal[1, 2], exact: bool | None = None) -> str:
    """Tells the weather.

    Args:
        place: A town.
        days: How many days.
        exact: Whether to be exact.
    """
    return f"{place} {days}"


def test_a_reply_calls_a_python_function(tmp_path: Any) -> None:
    llm = LLM(write_chat_model(tmp_path, template("hermes")), dtype="float32", kv_memory="16MB")
    messages = [{"role": "user", "content": "Hi"}]
    thought = llm.tokenizer.token_id("<think>")
    params = llm.default_params.replace(max_tokens=400, seed=1, suppress_tokens=(thought,))
    (output,) = llm.chat(messages, params, tools=[get_weather], tool_choice="required")
    (call, *_) = output.completions[0].tool_calls
    assert call.name == "get_weather"
    declared = read_tools([get_weather])[0].declaration
    assert output.prompt_token_ids == llm.chat_prompt(messages, tools=[declared])
