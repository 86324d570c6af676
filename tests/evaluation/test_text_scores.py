from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from decodery import metrics
from decodery.errors import ParameterError
from decodery.evaluation.text_scores import METRICS, TextScoring, score_differences, score_texts

TEXTS = ["the cat sat", "a dog ran far away", "", "one two three four five"]
KNOWN = [
    ["the cat sat on the mat"],
    ["a dog ran away", "the dog ran"],
    ["something"],
    ["one two three four five"],
]


def embed(texts: list[str]) -> list[Any]:
    def vectors(text: str) -> list[list[float]]:
        return [[random.Random(word).uniform(-1, 1) for _ in range(4)] for word in text.split()]

    return [
        SimpleNamespace(
            ids=list(range(len(text.split()))), spans=[(0, 1)] * len(text.split()), vectors=vectors(text)
        )
        for text in texts
    ]


EVERYTHING = TextScoring(METRICS, embed=embed, encoder="words")


def test_the_scores_are_those_of_the_metrics() -> None:
    found = score_texts(TEXTS, KNOWN, EVERYTHING)
    assert list(found.scores) == list(METRICS)
    for name, score in metrics.rouge(TEXTS, KNOWN).items():
        assert found.scores[name] == score
    assert found.scores["bleu"] == metrics.bleu(TEXTS, KNOWN)
    assert found.scores["chrf"] == metrics.chrf(TEXTS, KNOWN)
    assert found.scores["exact_match"] == metrics.exact_match(KNOWN, TEXTS)
    assert found.scores["token_f1"] == metrics.token_f1(KNOWN, TEXTS)
    own = metrics.bert_score(TEXTS, KNOWN, embed)
    assert (found.scores["bertscore"].value, found.scores["bertscore"].undefined) == (
        own.value,
        own.undefined,
    )


def test_each_text_has_its_own_scores_of_which_the_means_are_made() -> None:
    found = score_texts(TEXTS, KNOWN, EVERYTHING)
    assert len(found.texts) == len(TEXTS)
    for name in METRICS:
        if name in ("bleu", "chrf"):
            continue
        values = [row[name] for row in found.texts if row[name] is not None]
        assert found.scores[name].counted == len(values)
        assert found.scores[name].value == pytest.approx(sum(values) / len(values))  # type: ignore[arg-type]
    assert found.texts[3]["bleu"] == pytest.approx(100)
    assert found.texts[2]["bertscore"] is None
    assert found.texts[2]["rouge1"] == 0


def test_one_reference_each_is_not_called_several() -> None:
    alone = score_texts(TEXTS, [options[:1] for options in KNOWN], TextScoring(("rouge1",)))
    assert "several" not in alone.scores["rouge1"].settings
    assert "several" in score_texts(TEXTS, KNOWN, TextScoring(("rouge1",))).scores["rouge1"].settings


def test_differences_are_those_of_the_scores() -> None:
    others = ["the cat sat on a mat", "a dog ran away", "some", "one two"]
    found = score_differences(TEXTS, others, KNOWN, EVERYTHING)
    first, second = (score_texts(texts, KNOWN, EVERYTHING).scores for texts in (TEXTS, others))
    for name in ("bleu", "chrf", "rouge1", "token_f1"):
        gap = (second[name].value or 0) - (first[name].value or 0)
        assert found[name].value == pytest.approx(gap)
        assert found[name].low is not None
        assert found[name].low <= gap <= found[name].high  # type: ignore[operator]
    assert found["bertscore"].undefined == 1


def test_the_same_texts_do_not_differ_and_better_ones_do() -> None:
    draw = random.Random(3)
    known = [[" ".join(draw.choices("abcdefgh", k=12))] for _ in range(40)]
    worse = [" ".join(draw.choices("abcdefgh", k=12)) for _ in known]
    better = [options[0] for options in known]
    how = TextScoring(("bleu", "chrf"))
    for one in score_differences(worse, worse, known, how).values():
        assert (one.value, one.low, one.high, one.p_value) == (0, 0, 0, 1)
    for one in score_differences(worse, better, known, how).values():
        assert one.value is not None
        assert one.low is not None
        assert one.p_value is not None
        assert one.value > one.low > 0
        assert one.p_value < 0.01
    for there, back in zip(
        score_differences(worse, better, known, how).values(),
        score_differences(better, worse, known, how).values(),
        strict=True,
    ):
        assert there.value == pytest.approx(-(back.value or 0))
        assert there.low == pytest.approx(-(back.high or 0))


@pytest.mark.parametrize(
    ("texts", "known", "message"),
    [
        (["a"], [["a"], ["b"]], "1 texts and 2 references: number 2 has no partner"),
        ([], [], "no texts to score"),
        (["a", "b"], [["a"], []], "text 2 has no reference"),
    ],
)
def test_lists_that_do_not_fit_are_an_error(texts: Any, known: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        score_texts(texts, known, TextScoring(("rouge1",)))


@pytest.mark.parametrize(
    ("names", "message"),
    [(("rouge3",), "'rouge3', which is none of"), ((), "must name"), (("bertscore",), "needs an encoder")],
)
def test_wrong_metrics_are_an_error(names: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        TextScoring(names)


def test_references_that_are_all_empty_are_undefined() -> None:
    how = TextScoring(("bleu", "rouge1"))
    found = score_texts(["a"], [[""]], how)
    assert found.scores["bleu"].value is None
    assert found.scores["rouge1"].value is None
    assert {one.value for one in score_differences(["a"], ["b"], [[""]], how).values()} == {None}


def test_one_text_has_a_difference_and_nothing_that_says_it_is_real() -> None:
    how = TextScoring(("bleu", "rouge1"))
    found = score_differences(["the cat sat on a"], ["the cat sat on"], [["the cat sat on"]], how)
    for one in found.values():
        assert one.value is not None
        assert one.value > 0
        assert (one.low, one.high, one.p_value) == (None, None, None)


def test_scores_that_are_known_are_not_computed_again() -> None:
    asked: list[str] = []

    def counted(texts: list[str]) -> list[Any]:
        asked.extend(texts)
        return embed(texts)

    how = TextScoring(("bertscore",), embed=counted)
    scored = score_texts(TEXTS, KNOWN, how)
    asked.clear()
    others = [f"{text} more" for text in TEXTS]
    found = score_differences(TEXTS, others, KNOWN, how, scored=scored)
    assert not set(TEXTS[:3]) & set(asked)
    assert found == score_differences(TEXTS, others, KNOWN, how)
