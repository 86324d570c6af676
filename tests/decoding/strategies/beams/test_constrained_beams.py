from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import BeamSearch
from decodery.decoding.strategies.beams.constrained_beams import (
    Progress,
    check_force_words,
    holds_all,
    initial_progress,
    select_from_banks,
)
from decodery.errors import ParameterError
from tests.decoding.strategies.searching import markov, row_of, run_searches, search
from tests.engine.runs import make_engine
from tests.models.tiny import tiny_model


def progress(words: Any, tokens: Sequence[int] = ()) -> Progress:
    """Returns the progress of these tokens towards these words."""
    state = initial_progress(BeamSearch(force_words=words))
    for token in tokens:
        state = state.after(token)
    return state


def holds(text: Sequence[int], phrase: Sequence[int]) -> bool:
    return any(tuple(text[i : i + len(phrase)]) == tuple(phrase) for i in range(len(text)))


PHRASE_AND_CHOICE = ((1, 2), ((3, 4), (3, 5, 6), (7,)))


@pytest.mark.parametrize(
    ("tokens", "following", "needed", "bank", "complete"),
    [
        ([], [1, 3, 7], 3, 0, False),
        # The longest phrase has 3 tokens, so a complete phrase counts 3, and a shorter one starts above 0.
        ([1], [2], 2, 2, False),
        ([1, 2], [3, 7], 1, 3, False),
        ([1, 9], [3, 7, 1], 3, 0, False),
        ([1, 1], [3, 7, 1], 3, 0, False),
        ([3], [4, 5], 3, 1, False),
        ([3, 5], [6], 3, 2, False),
        ([3, 5, 6], [1], 2, 3, False),
        ([3, 4], [1], 2, 3, False),
        ([7, 1, 2], [], 0, 6, True),
        ([7, 1, 2, 3, 9], [], 0, 6, True),
    ],
)
def test_progress_as_a_table(
    tokens: list[int], following: list[int], needed: int, bank: int, complete: bool
) -> None:
    state = progress(PHRASE_AND_CHOICE, tokens)
    assert state.next_tokens() == following
    assert (state.needed, state.bank, state.complete) == (needed, bank, complete)


def test_of_alternatives_that_begin_alike_the_shorter_is_enough() -> None:
    assert progress((((1,), (1, 2)),), [1]).complete


def test_banks_take_turns_and_those_that_have_met_more_come_first() -> None:
    words = ((1, 2, 3),)
    pool = [progress(words, tokens) for tokens in ([], [1], [1, 2], [9], [1, 2], [])]
    totals = [-1.0, -2.0, -9.0, -0.5, -8.0, -3.0]
    remaining = [10] * 6
    assert select_from_banks(pool, totals, remaining, 6) == [4, 1, 3, 2, 0, 5]
    assert select_from_banks(pool, totals, remaining, 2) == [4, 1]


def test_a_candidate_that_can_still_be_completed_is_kept() -> None:
    words = ((1,), (2, 3, 4, 5))
    # A complete phrase of one token counts more than three tokens of four, but more tokens are missing.
    pool = [progress(words, [1, 9, 9]), progress(words, [2, 3, 4])]
    assert select_from_banks(pool, [-1.0, -2.0], [9, 9], 1) == [0]
    assert select_from_banks(pool, [-1.0, -2.0], [2, 2], 1) == [1]


def test_words_that_cannot_fit_are_refused() -> None:
    strategy = BeamSearch(force_words=PHRASE_AND_CHOICE)
    check_force_words(strategy, 3)
    with pytest.raises(ParameterError, match="force_words need 3 tokens"):
        check_force_words(strategy, 2)
    check_force_words(BeamSearch(), 1)


def random_words(rng: random.Random, vocab: int) -> tuple[Any, ...]:
    def phrase() -> tuple[int, ...]:
        return tuple(rng.randrange(1, vocab) for _ in range(rng.randint(1, 3)))

    return tuple(phrase() if rng.random() < 0.6 else (phrase(), phrase()) for _ in range(rng.randint(1, 3)))


def test_texts_hold_their_phrases_even_where_they_just_fit() -> None:
    rng = random.Random(1)
    for seed in range(60):
        words = random_words(rng, 20)
        strategy = BeamSearch(rng.randint(1, 4), force_words=words, early_stopping=rng.choice([True, False]))
        most = initial_progress(strategy).needed + rng.choice([0, 0, 1, 5])
        # Token 0 ends a text.
        outcome = search(row_of(strategy, most, [0]), markov(20, seed))
        (text,) = outcome.tokens
        for word in words:
            alternatives = word if isinstance(word[0], tuple) else (word,)
            assert any(holds(text, phrase) for phrase in alternatives), (words, text)


def test_what_the_prompt_holds_is_not_yet_in_the_text() -> None:
    engine = make_engine(tiny_model())
    params = GenerationParams(max_tokens=6, strategy=BeamSearch(3, force_words=((7, 8),)))
    ((event,),) = run_searches(engine, [([5, 7, 8], params)])
    assert holds(event.tokens, (7, 8))


def test_a_text_does_not_end_before_it_has_its_phrases() -> None:
    table = markov(8, seed=0)
    table[:, 0] = 20.0
    outcome = search(row_of(BeamSearch(3, force_words=((5, 6),), length_penalty=0.0), 8, [0]), table)
    (text,) = outcome.tokens
    assert holds(text, (5, 6))
    assert text[-1] == 0
    assert 0 not in text[:-1]


def test_only_texts_with_all_phrases_are_returned_if_there_are_any() -> None:
    strategy = BeamSearch(3, num_return_sequences=3, force_words=((5, 6),))
    endings = search(row_of(strategy, 2), markov(8, seed=0)).endings
    assert [e.tokens for e in endings] == [(5, 6), (), ()]
    assert [e.error for e in endings] == [None] * 3


def test_a_text_without_its_phrases_says_so() -> None:
    strategy = BeamSearch(2, force_words=((5, 6),))
    endings = search(row_of(strategy, 4, suppress_tokens=(6,)), markov(8, seed=0)).endings
    assert len(endings[0].tokens) == 4
    assert "force_words" in (endings[0].error or "")


def test_phrases_that_overlap_are_contained_in_one_text() -> None:
    row = row_of(BeamSearch(2, force_words=((1, 1, 2),)), 4)
    assert holds_all(row.after(1).after(1).after(1).after(2))
    assert not holds_all(row.after(1).after(2).after(1).after(2))
