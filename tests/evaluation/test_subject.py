"""Checks what the model that is measured is asked where the context is short, and whole texts."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from decodery import LLM
from decodery.errors import ParameterError, RequestError
from decodery.evaluation.contract import Answer, Continuation, ContinuationAnswer, Prompt, WholeText
from decodery.evaluation.subject import Prepared, Subject
from tests.evaluation.tiny import characters

ALPHABET = "abcdefgh"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """Returns a model with a context of 3 tokens, one for each character."""
    return characters(tmp_path_factory.mktemp("narrow"), ALPHABET, context=3)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return characters(tmp_path_factory.mktemp("wide"), ALPHABET, context=64)


def asked(subject: Subject, prepared: Prepared) -> Answer:
    found: list[Answer] = []
    subject.answer([prepared], lambda place, answer: found.append(answer))
    return found[0]


def logprobs(llm: LLM, text: str, start: int) -> list[float]:
    """Returns the log-probabilities of a text's tokens from `start` on, computed by the model alone."""
    (score,) = llm.score([text])
    return [value for value in score.logprobs[start:] if value is not None]


def test_a_continuation_in_a_short_context_is_scored_after_the_last_tokens_that_fit(
    narrow: LLM, wide: LLM
) -> None:
    subject = Subject(narrow)
    prepared = subject.prepare(Continuation(Prompt("abc", delimiter=""), "de"), "7", 0)
    assert narrow.tokenizer.decode(list(prepared.prompt_ids)) == "bc"
    assert narrow.tokenizer.decode(list(prepared.ids)) == "de"
    assert prepared.cut == 1
    answer = asked(subject, prepared)
    assert isinstance(answer, ContinuationAnswer)
    # The same weights, in a context that holds all of it.
    assert answer.logprobs == pytest.approx(logprobs(wide, "bcde", 2), abs=1e-5)
    assert answer.cut == 1


def test_a_continuation_longer_than_the_context_is_an_error_that_names_the_document(narrow: LLM) -> None:
    with pytest.raises(ParameterError, match=r"document 7: the continuation has 4 tokens.* holds 3"):
        Subject(narrow).prepare(Continuation(Prompt("a", delimiter=""), "bcde"), "7", 0)


def test_the_token_of_the_beginning_stays_where_a_prompt_is_cut(tmp_path: Path) -> None:
    llm = characters(tmp_path, ALPHABET, adds_bos=True, context=4)
    prepared = Subject(llm).prepare(Continuation(Prompt("abcd", delimiter=""), "ef"), "7", 0)
    assert prepared.prompt_ids[0] == llm.tokenizer.bos_token_id
    assert llm.tokenizer.decode(list(prepared.prompt_ids[1:])) == "cd"
    assert prepared.cut == 2


@pytest.mark.parametrize("text", ["a", "abc", "abcdefghabcdefgh", "hgfedcba" * 5])
def test_each_token_of_a_whole_text_is_scored_once(narrow: LLM, wide: LLM, text: str) -> None:
    for llm in (narrow, wide):
        subject = Subject(llm)
        answer = asked(subject, subject.prepare(WholeText(text), "1", 0))
        assert len(answer.logprobs) == len(answer.token_ids) == len(text)  # type: ignore[union-attr]


def test_a_whole_text_that_fits_has_the_probability_that_the_model_gives_it(wide: LLM) -> None:
    subject = Subject(wide)
    answer = asked(subject, subject.prepare(WholeText("abcabc"), "1", 0))
    bos = wide.tokenizer.bos_token_id
    assert bos is not None
    (score,) = wide.score_after([([bos], list(answer.token_ids))])
    assert answer.logprob == score.total  # type: ignore[union-attr]
    assert -math.inf < score.total < 0


def test_texts_are_scored_together_as_each_alone(wide: LLM) -> None:
    subject = Subject(wide)
    texts = ["abc", "abd", "hgfedcba" * 12, "a", "abcabc"]
    prepared = [subject.prepare(WholeText(text), text, 0) for text in texts]
    found: dict[int, Answer] = {}
    subject.answer(prepared, found.__setitem__)
    for place, one in enumerate(prepared):
        alone, together = asked(subject, one), found[place]
        assert alone.token_ids == together.token_ids
        assert alone.logprobs == pytest.approx(together.logprobs, abs=1e-5)  # type: ignore[union-attr]


@pytest.mark.parametrize("request_", [WholeText("abc"), Continuation(Prompt("a", delimiter=""), "bc")])
def test_a_token_without_a_log_probability_is_an_error(
    wide: LLM, monkeypatch: pytest.MonkeyPatch, request_: WholeText | Continuation
) -> None:
    subject = Subject(wide)
    prepared = subject.prepare(request_, "1", 0)
    missing = [None, *[-1.0] * (len(prepared.ids) - 1)]
    score = SimpleNamespace(logprobs=missing, ranks=[1] * len(missing))
    monkeypatch.setattr(LLM, "score_after", lambda self, pairs: [score] * len(pairs))
    with pytest.raises(RequestError, match=f"{len(missing)} tokens have {len(missing) - 1} log-prob"):
        asked(subject, prepared)


def test_a_text_without_tokens_is_an_error_that_names_the_document(wide: LLM) -> None:
    with pytest.raises(ParameterError, match="document 9: the text has no tokens"):
        Subject(wide).prepare(WholeText(""), "9", 0)


def test_chat_without_a_template_is_an_error(wide: LLM) -> None:
    with pytest.raises(ParameterError, match="no chat template"):
        Subject(wide, chat=True)
