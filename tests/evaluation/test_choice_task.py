"""Checks how a model's choice among options is asked for and judged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from decodery.errors import ParameterError
from decodery.evaluation.choice_task import ChoiceRow, ChoiceStyle, ChoiceTask
from decodery.evaluation.contract import Continuation, Document, Generation, Sample, TaskData
from decodery.evaluation.variant import Variant, varied
from tests.evaluation.tiny import scored, written


def task(style: ChoiceStyle | None = None, **more: Any) -> ChoiceTask:
    """Returns a task whose documents have the fields of `ChoiceRow`."""
    return ChoiceTask("t", reader, row, style or ChoiceStyle(), **more)


def reader(data: Path | None, split: str | None) -> TaskData:
    return TaskData((document(),))


def row(document: Document) -> ChoiceRow:
    return ChoiceRow(**document.fields)


def document(*options: str, gold: tuple[int, ...] = (0,), **more: Any) -> Document:
    fields = {"question": "Which?", "options": options or ("one", "two", "three", "four"), "gold": gold}
    return Document("7", {**fields, **more})


def test_four_equal_scores_are_a_quarter_right_and_a_counted_tie() -> None:
    outcome = task(metrics=("acc",)).outcome(document(), scored(-3, -3, -3, -3))
    assert outcome.values["acc"] == 0.25
    assert outcome.counts["tie"] == 1
    assert outcome.predicted is None
    assert "equal" in outcome.why


def test_a_tie_without_the_right_option_is_wrong() -> None:
    outcome = task(metrics=("acc",)).outcome(document(), scored(-4, -3, -3, -5))
    assert (outcome.values["acc"], outcome.counts["tie"]) == (0.0, 1)


def test_a_nan_is_an_error_that_names_the_document() -> None:
    with pytest.raises(ParameterError, match="t: document 7: a log-probability is NaN"):
        task().outcome(document(), scored(-3, math.nan, -3, -3))


def test_options_that_are_impossible_are_not_chosen() -> None:
    values = task().outcome(document(), scored(-math.inf, -3, -math.inf, -9)).values
    assert set(values.values()) == {0.0}
    assert task().outcome(document(), scored(*[-math.inf] * 4)).values["acc"] == 0.25


def test_lengths_are_characters_bytes_and_tokens_by_name() -> None:
    asked = document("été été", "abcdefgh", gold=(0,))
    outcome = task().outcome(asked, scored(-7.6, -8.4, ids=[[1, 2, 3], [1, 2, 3, 4]]))
    # -7.6 / 7 < -8.4 / 8 by characters, -7.6 / 11 > -8.4 / 8 by bytes, -7.6 / 3 < -8.4 / 4 by tokens.
    assert outcome.values == {"acc": 1.0, "acc_norm": 0.0, "acc_bytes": 1.0, "acc_tokens": 0.0}


def test_an_option_whose_white_space_differs_is_stripped_and_counted() -> None:
    odd, even = document("x", " y", "z", "w", gold=(1,)), document(" x", " y", gold=(1,))
    asked = task().requests(odd, (), 1)
    assert [one.text for one in asked if isinstance(one, Continuation)] == ["x", "y", "z", "w"]
    assert task().outcome(odd, scored(-1, -2, -3, -4)).counts["white space differs"] == 1
    assert task().outcome(even, scored(-1, -2)).counts["white space differs"] == 0


@pytest.mark.parametrize("options", ["letters", "numbers"])
def test_marks_are_compared_exactly_as_the_shots_show_them(options: Any) -> None:
    style = ChoiceStyle(options=options)
    shot = document("red", "blue", gold=(1,))
    asked = task(style).requests(document(*map(str, range(100, 110)), gold=(9,)), [shot], 1)
    marks = list("ABCDEFGHIJ") if options == "letters" else list(map(str, range(1, 11)))
    assert [one.text for one in asked if isinstance(one, Continuation)] == marks
    prompt = asked[0].prompt  # type: ignore[union-attr]
    assert (prompt.shots[0].answer, prompt.delimiter) == (marks[1], " ")
    assert prompt.shots[0].question == f"Which?\n{marks[0]}. red\n{marks[1]}. blue\nAnswer:"
    assert prompt.question.endswith(f"\n{marks[9]}. 109\nAnswer:")


def test_a_mark_that_begins_a_longer_one_counts_without_it() -> None:
    asked = document(*map(str, range(100, 110)), gold=(9,))
    ids = [[11 + place] for place in range(9)] + [[11, 10]]
    # The model answers 10 with 0.6 and 1 with 0.1: after the token 1 comes 0 with 0.6 / 0.7.
    totals = [math.log(p) for p in (0.7, *[0.01] * 8, 0.6)]
    outcome = task(ChoiceStyle(options="numbers")).outcome(asked, scored(*totals, ids=ids))
    assert outcome.predicted == 9
    assert outcome.values["mass"] == pytest.approx(0.78)
    assert outcome.details["logprobs"] == totals


@pytest.mark.parametrize(("share", "low"), [(0.2, 0), (0.1, 1)])
def test_the_probability_on_the_marks_is_reported_and_counted_below_half(share: float, low: int) -> None:
    asked, style = document(), ChoiceStyle(options="letters")
    answers = scored(*[math.log(share)] * 4, ids=[[1], [2], [3], [4]])
    outcome = task(style).outcome(asked, answers)
    assert outcome.values["mass"] == pytest.approx(4 * share)
    assert outcome.counts["mass below half"] == low
    results = task(style).results([Sample(asked, outcome)])
    assert list(results) == ["acc", "mass"]
    assert results["mass"].unit == "probability on the marks"


def test_continuations_that_were_encoded_apart_and_prompts_that_were_cut_are_counted() -> None:
    one, other = scored(-1, -2)
    object.__setattr__(one, "joined", False)
    object.__setattr__(other, "cut", 5)
    counts = task().outcome(document("a", "b"), [one, other]).counts
    assert (counts["encoded apart"], counts["cut"]) == (1, 1)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("B", 1),
        (" B.", 1),
        ("(B) blue", 1),
        ("**B**", 1),
        ("The answer is C.", 2),
        ("Answer: A? No, the answer is (D)", 3),
        ("answer: B", 1),
        ("I choose B", 1),
        ("A cat has it, so B", None),
        ("Because of A and B", None),
        ("Bananas", None),
        ("", None),
        ("E", None),
        ("The ANSWER IS **C**", 2),
        ("A good question. I cannot say.", None),
        ("A dog", None),
        ("Answer: A dog", None),
        ("A", 0),
        ("A is right", 0),
        ("The answer is A because it barks.", 0),
        ("The answer is not A.", None),
        ("The answer isn't A.", None),
        ("The answer is A in this case.", 0),
        ("It is not A.", None),
        ("It cannot be B", None),
        ("Neither (B)", None),
        ("The answer is A. No, the answer is not A.", None),
        ("The answer is not A, the answer is B", 1),
        ("The answer is B, not A.", 1),
        ("The answer is B and A is wrong.", 1),
        ("B is wrong", None),
        ("B is incorrect.", None),
        ("(B) isn't right", None),
        ("Answer: A or B", None),
        ("The answer is (A) or (B).", None),
        ("Answer: A/B", None),
        ("A, or B", None),
        ("A, B", None),
        ("The answer is A.\nNo wait, the correct option is C.", 2),
        ("The best choice is D", 3),
        ("A-level", None),
    ],
)
def test_a_written_answer_is_parsed_or_counted_as_unparsed(text: str, place: int | None) -> None:
    parsing = task(ChoiceStyle(options="letters", method="parse"))
    outcome = parsing.outcome(document(gold=(1,)), written(text))
    assert outcome.predicted == place
    assert outcome.values == {"acc": float(place == 1)}
    assert outcome.counts["unparsed"] == int(place is None)
    assert outcome.counts["empty"] == int(not text)


@pytest.mark.parametrize(("text", "place"), [("10", 9), ("1", 0), ("1.5", None), ("1,000", None), ("10.", 9)])
def test_written_numbers_are_whole(text: str, place: int | None) -> None:
    parsing = task(ChoiceStyle(options="numbers", method="parse"))
    asked = document(*map(str, range(100, 110)))
    assert parsing.outcome(asked, written(text)).predicted == place


@pytest.mark.parametrize(
    ("text", "place"), [("I think so", None), ("I'm not sure", None), ("I", 8), ("The answer is I.", 8)]
)
def test_the_pronoun_is_no_mark(text: str, place: int | None) -> None:
    parsing = task(ChoiceStyle(options="letters", method="parse"))
    assert parsing.outcome(document(*map(str, range(9))), written(text)).predicted == place


def test_a_single_answer_is_greedy_and_several_are_sampled() -> None:
    parsing = task(ChoiceStyle(options="letters", method="parse"))
    (one,) = parsing.requests(document(), (), 1)
    several = parsing.requests(document(), (), 3)
    assert isinstance(one, Generation)
    assert (one.params.temperature, one.params.stop) == (0, ("\n\n",))
    assert [s.sample for s in several if isinstance(s, Generation)] == [0, 1, 2]
    assert all(isinstance(s, Generation) and s.params.temperature == 0.8 for s in several)
    outcome = parsing.outcome(document(gold=(1,)), written("B", "A", "?"))
    assert outcome.values["acc"] == pytest.approx(1 / 3)
    assert outcome.details["parsed"] == [1, 0, None]


def test_the_vote_of_most_written_answers_is_reported() -> None:
    parsing = task(ChoiceStyle(options="letters", method="parse"))
    asked = document(gold=(1,))
    samples = [
        Sample(asked, parsing.outcome(asked, written(*texts)))
        for texts in (("B", "A", "B"), ("A", "A", "B"), ("?", "?", "?"), ("A", "?", "B"))
    ]
    results = parsing.results(samples)
    assert list(results) == ["acc", "maj@3"]
    assert results["maj@3"].value == 0.25
    assert "ties 1, without an answer 1" in results["maj@3"].settings
    single = Sample(asked, parsing.outcome(asked, written("B")))
    assert list(parsing.results([single])) == ["acc"]


@pytest.mark.parametrize(("options", "count"), [(("x", "x"), 1), (("x", "y", " x"), 1), (("x", "X"), 0)])
@pytest.mark.parametrize("method", ["compare", "parse"])
def test_equal_options_are_counted(options: tuple[str, ...], count: int, method: Any) -> None:
    asked = document(*options)
    answers = scored(*[-1.0] * len(options)) if method == "compare" else written("A")
    counts = task(ChoiceStyle(options="letters", method=method)).outcome(asked, answers).counts
    assert counts["equal options"] == count


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gold": (4,)}, r"right answer \(4,\) is not one of 4 options"),
        ({"gold": (-1,)}, "is not one of 4 options"),
        ({"gold": ()}, "is not one of 4 options"),
        ({"options": ("one",)}, "two options or more"),
        ({"options": ("one", " ")}, "an option has no text"),
        ({"options": ("one", None)}, "an option has no text"),
    ],
)
def test_a_document_without_a_right_option_is_an_error_before_anything_is_asked(
    fields: dict[str, Any], said: str
) -> None:
    base = {"question": "Which?", "options": ("one", "two", "three", "four"), "gold": (0,)}
    wrong = Document("7", {**base, **fields})
    reading = ChoiceTask("t", lambda data, split: TaskData((wrong,)), row)
    with pytest.raises(ParameterError, match=f"t: document 7: .*{said}"):
        reading.read(None)


def test_more_options_than_letters_are_an_error_before_anything_is_asked() -> None:
    many = document(*map(str, range(27)))
    reading = ChoiceTask("t", lambda data, split: TaskData((many,)), row, ChoiceStyle(options="letters"))
    with pytest.raises(ParameterError, match="27 options and 26 letters"):
        reading.read(None)


def test_a_variant_changes_the_form_and_is_among_the_settings() -> None:
    changed = varied(task(), Variant(options="numbers", ending="\nReply: ", method="parse", split="dev"))
    assert isinstance(changed, ChoiceTask)
    assert changed.style == ChoiceStyle("numbers", "parse", ending="\nReply:", delimiter=" ")
    form = changed.read(None).settings
    assert (form["options"], form["method"], form["split"]) == ("numbers", "parse", "dev")
    assert form != task().read(None).settings


def test_marks_of_a_task_that_compared_texts_come_with_an_ending() -> None:
    bare = task(ChoiceStyle(ending="", delimiter=""))
    changed = varied(bare, Variant(options="letters"))
    assert isinstance(changed, ChoiceTask)
    assert (changed.style.ending, changed.style.delimiter) == ("\nAnswer:", " ")


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ({"options": "words"}, "options must be one of texts, letters, numbers"),
        ({"method": "guess"}, "method must be one of"),
        ({"method": "parse"}, 'let options be "letters" or "numbers"'),
        ({"options": "letters", "max_tokens": 5}, "leave max_tokens out"),
        ({"max_tokens": 0}, "max_tokens must be 1 or more"),
    ],
)
def test_a_form_that_a_task_has_not_is_an_error(variant: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        varied(task(), Variant(**variant))


def test_shuffled_options_keep_the_right_one_and_depend_on_the_seed_and_the_document() -> None:
    def order(seed: int, name: str = "7") -> tuple[str, ...]:
        shuffled = varied(task(ChoiceStyle(options="letters")), Variant(shuffle=seed))
        assert isinstance(shuffled, ChoiceTask)
        shown = shuffled.shown(Document(name, document(gold=(2,)).fields))
        assert [shown.options[place] for place in shown.gold] == ["three"]
        return shown.options

    assert order(1) == order(1)
    assert len({order(seed) for seed in range(20)}) > 10
    assert len({order(1, str(name)) for name in range(20)}) > 10
