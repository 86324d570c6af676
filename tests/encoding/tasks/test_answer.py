"""Tests answers to questions over contexts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM, ModelError, ParameterError, RequestError
from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.tasks.answer import answer
from tests.encoding.folders import encoder_folder
from tests.encoding.tasks.fixed_model import fixed_parts


def by_word(token: str, place: int) -> list[float]:
    """Begins an answer at Angela or Paris, and ends it at Merkel, Paris, or a piece of a word."""
    word = token.strip("▁Ġ").lower()
    starts = {"angela": 9.0, "paris": 4.0, "what": 50.0, "x": 9.0}
    ends = {"merkel": 9.0, "paris": 4.0, "what": 50.0, "##y": 9.0}
    return [starts.get(word, 0.0), ends.get(word, 0.0)]


@pytest.fixture(params=["word pieces", "byte pairs", "unigrams"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> EncoderParts:
    return fixed_parts(tmp_path, "spans", by_word, tokenizer=request.param, context=60)


def test_an_answer_is_where_it_says_and_never_in_the_question(parts: EncoderParts) -> None:
    context = "  \U0001f600 what? Angela Merkel."
    (one,) = answer(parts, "what is the question", "the dog, Angela  Merkel. " + "mat " * 5)
    assert one.text == "Angela  Merkel"
    assert (one.start, one.end) == (9, 23)
    (one,) = answer(parts, "what?", context)
    assert one.text == "what"
    assert context[one.start : one.end] == one.text


@pytest.mark.parametrize("overlap", [None, 0, 2, 20])
@pytest.mark.parametrize("before", [0, 40, 44, 45, 46, 47, 48, 60, 100, 150])
def test_the_right_window_wins_wherever_it_is(parts: EncoderParts, before: int, overlap: int | None) -> None:
    context = "the dog " * (before // 2) + "paris " + "Angela Merkel " + "the mat " * ((150 - before) // 2)
    found = answer(parts, "what is it", context, overlap=overlap, top_k=3)
    if overlap != 0:
        assert found[0].text == "Angela Merkel"
    for one in found:
        assert context[one.start : one.end] == one.text
        assert 0 < one.score <= 1
    assert len({(one.start, one.end) for one in found}) == len(found)


def test_an_answer_is_whole_words_and_comes_once(tmp_path: Path) -> None:
    parts = fixed_parts(tmp_path, "spans", by_word)
    found = answer(parts, "who", "the xyz dog", top_k=10)
    assert found[0].text == "xyz"
    assert len({one.text for one in found}) == len(found)
    assert sum(one.score for one in found) <= 1 + 1e-9


def test_no_answer_is_an_empty_text(tmp_path: Path) -> None:
    def scores(token: str, place: int) -> list[float]:
        return [8.0, 8.0] if token == "[CLS]" else by_word(token, place)

    parts = fixed_parts(tmp_path, "spans", scores)
    context = "paris is in france"
    assert answer(parts, "who", context)[0].text == "paris"
    none = answer(parts, "who", context, no_answer=True)[0]
    assert (none.text, none.start, none.end) == ("", 0, 0)
    assert answer(parts, "who", context, no_answer=9.0)[0].text == "paris"
    assert answer(parts, "who", context, no_answer=7.0)[0].text == ""
    assert answer(parts, "who", context, no_answer=False)[0].text == "paris"
    assert {one.text for one in answer(parts, "who", context, no_answer=True, top_k=2)} == {"", "paris"}


def test_errors_say_what_to_give(tmp_path: Path) -> None:
    parts = fixed_parts(tmp_path, "spans", by_word, context=20)
    with pytest.raises(RequestError, match=r"the question has 20 tokens; with 3 special tokens"):
        answer(parts, "who " * 20, "paris")
    with pytest.raises(RequestError, match="the question is empty"):
        answer(parts, " ", "paris")
    with pytest.raises(RequestError, match="the context has no word"):
        answer(parts, "who", " \n")
    with pytest.raises(ParameterError, match="the context must be one text"):
        answer(parts, "who", ["paris"])  # type: ignore[arg-type]
    for name in ("top_k", "longest"):
        with pytest.raises(ParameterError, match=f"{name} must be a whole number from 1 on"):
            answer(parts, "who", "paris", **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="overlap must be a whole number below 16"):
        answer(parts, "who", "paris", overlap=16)
    with pytest.raises(ParameterError, match="no_answer must be True, False, or a number"):
        answer(parts, "who", "paris", no_answer=float("nan"))
    with pytest.raises(ModelError, match="has no head 'spans'"):
        answer(fixed_parts(tmp_path / "b", "classes", by_word), "who", "paris")


def test_the_probabilities_are_those_of_transformers_logits(tmp_path: Path) -> None:
    import transformers

    folder = encoder_folder(tmp_path, "BertForQuestionAnswering")
    question, context = "who visited paris", "angela merkel visited microsoft in seattle"
    model: Any = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(question, context, return_tensors="pt")
    inputs["token_type_ids"] = torch.tensor([[0] * 5 + [1] * 7])
    with torch.no_grad():
        found = model(**inputs)
    start, end = (
        np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        for row in (
            logits[0].double().numpy()[[0, *range(5, 11)]]
            for logits in (found.start_logits, found.end_logits)
        )
    )
    words = context.split()
    expected = {
        " ".join(words[a : b + 1]): start[a + 1] * end[b + 1]
        for a in range(6)
        for b in range(a, min(a + 3, 6))
    }
    ours = LLM(folder).answer(question, context, top_k=100, longest=3)
    assert {one.text: one.score for one in ours} == pytest.approx(expected, rel=1e-3)
