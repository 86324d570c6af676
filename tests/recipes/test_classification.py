from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decodery.errors import ParameterError
from decodery.recipes import compare_classifiers, library_requests

LABELS = ("cats", "dogs")
EXAMPLES = [(f"a cat number {n}", "cats") for n in range(10)] + [
    (f"a dog number {n}", "dogs") for n in range(10)
]


class FakeEncoder:
    """Calls every text a dog by similarity, and is right by examples."""

    path = Path("vectors")

    def classify(self, texts: list[str], **given: Any) -> list[Any]:
        self.labels = given.get("labels")
        if self.labels:
            assert given["method"] == "similarity"
            return [SimpleNamespace(label=self.labels[-1]) for _ in texts]
        return [SimpleNamespace(label="cats" if "cat" in text else "dogs") for text in texts]

    def learn_labels(self, examples: Any) -> Any:
        self.learned = list(examples)
        return object()


class FakeChat:
    """Answers with the first label, and with none to one text; keeps what it was asked."""

    path = Path("chat")
    tokenizer = SimpleNamespace(encode=list)

    def __init__(self) -> None:
        self.asked: list[list[dict[str, str]]] = []

    def chat(self, conversations: Any, params: Any) -> list[Any]:
        self.asked += conversations
        assert params.grammar.options == LABELS
        return [
            SimpleNamespace(
                completions=[SimpleNamespace(text="" if turns[-1]["content"][-1] == "3" else "cats")]
            )
            for turns in conversations
        ]


def compared(**given: Any) -> tuple[Any, Any, Any]:
    encoder, chat = FakeEncoder(), FakeChat()
    return compare_classifiers(encoder, chat, EXAMPLES, **given), encoder, chat  # type: ignore[arg-type]


def test_all_ways_are_counted_over_the_same_texts() -> None:
    found, encoder, _ = compared()
    assert found.labels == LABELS
    assert Counter(label for _, label in found.test) == Counter(label for _, label in found.train)
    assert encoder.learned == list(found.train)
    frequent, similar, learned, zero, few = found.results
    assert [one.model for one in found.results] == ["", "vectors", "vectors", "chat", "chat"]
    assert [frequent.accuracy.value, similar.accuracy.value, learned.accuracy.value] == [0.5, 0.5, 1.0]
    # One label has a recall of 1 and a precision of a half; the other is never given.
    assert similar.f1.value == pytest.approx((2 / 3 + 0) / 2)
    threes = [label for text, label in found.test if text.endswith("3")]
    assert zero.predicted.count(None) == few.predicted.count(None) == len(threes)
    assert zero.accuracy.value == (5 - threes.count("cats")) / 10
    assert learned.difference is None
    assert similar.difference.value == -0.5
    # Five of ten texts differ, all in one direction: 2 * (1/2)**5.
    assert similar.difference.p_value == pytest.approx(2 / 2**5)


def test_no_text_of_the_test_is_among_the_examples_and_the_seed_chooses() -> None:
    first, again, other = (compared(seed=seed)[0] for seed in (0, 0, 1))
    assert not set(first.train) & set(first.test)
    assert sorted(first.train + first.test) == sorted(EXAMPLES)
    assert (first.train, first.test) == (again.train, again.test)
    assert set(first.test) != set(other.test)


def test_equal_texts_are_one() -> None:
    found = compare_classifiers(FakeEncoder(), FakeChat(), EXAMPLES * 2)  # type: ignore[arg-type]
    assert (len(found.train), len(found.test)) == (10, 10)


def test_the_chat_model_sees_descriptions_and_its_shots_alone() -> None:
    found, encoder, chat = compared(shots=2, descriptions={"cats": "animals that purr"})
    assert encoder.labels is None
    zero, few = chat.asked[:10], chat.asked[10:]
    assert {len(turns) for turns in zero} == {2}
    assert {len(turns) for turns in few} == {2 + 2 * 2 * len(LABELS)}
    assert "cats: animals that purr" in zero[0][0]["content"]
    shown = {
        (turns[place]["content"], turns[place + 1]["content"])
        for turns in few
        for place in range(1, len(turns) - 1, 2)
    }
    assert shown <= set(found.train)
    assert Counter(label for _, label in shown) == {"cats": 2, "dogs": 2}


@pytest.mark.parametrize(
    ("examples", "given", "message"),
    [
        ([("a", "x")], {}, "two different labels or more are needed, not 1"),
        ([], {}, "not 0"),
        ([("a", "x"), ("b", "x"), ("c", "y")], {"shots": 1}, "the label 'y' has 1 different texts"),
        ([*EXAMPLES, ("a cat number 1", "dogs"), ("b", "dogs")], {}, "has two labels, 'cats' and 'dogs'"),
        (EXAMPLES, {"shots": 0}, "shots must be 1 or more"),
        (EXAMPLES, {"shots": 6}, "6 shots need 12 or more"),
        (EXAMPLES, {"descriptions": {"birds": "they fly"}}, "no example has the label 'birds'"),
        (EXAMPLES, {"descriptions": dict.fromkeys(LABELS, "pets")}, "the same description"),
    ],
)
def test_what_cannot_be_compared_is_one_error(examples: Any, given: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        compare_classifiers(FakeEncoder(), FakeChat(), examples, **given)  # type: ignore[arg-type]


def test_the_requests_are_300_of_6_labels_and_all_different() -> None:
    examples, descriptions = library_requests()
    assert Counter(label for _, label in examples) == dict.fromkeys(descriptions, 50)
    assert len({text.casefold() for text, _ in examples}) == 300
    assert all(text == text.strip() and len(text) > 8 for text, _ in examples)
    # No label is at one end of the file.
    assert (
        {label for _, label in examples[:40]} == {label for _, label in examples[-40:]} == set(descriptions)
    )
