from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import StochasticBeamSearch
from decodery.decoding.strategies.beams.stochastic_beams import StochasticBeamMethod
from tests.decoding.rows import make_scores
from tests.decoding.strategies.searching import markov, row_of, search, search_together
from tests.engine.runs import make_engine
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model

END = 2


def texts_of(table: torch.Tensor, length: int) -> dict[tuple[int, ...], float]:
    """Returns the probability of every text; token 2 ends a text."""
    probabilities = table.double().softmax(-1).tolist()
    found = {}
    for size in range(1, length + 1):
        for text in itertools.product(range(len(table)), repeat=size):
            if END not in text[:-1] and (size == length or text[-1] == END):
                found[text] = math.prod(probabilities[a][b] for a, b in itertools.pairwise((0, *text)))
    return found


def test_samples_are_different_and_returned_with_their_logprobs_in_the_order_drawn() -> None:
    table = markov(4, seed=1)
    expected = texts_of(table, 3)
    assert sum(expected.values()) == pytest.approx(1)
    unsorted = 0
    for seed in range(50):
        outcome = search(row_of(StochasticBeamSearch(6), 3, [END], seed=seed), table)
        assert len(set(outcome.tokens)) == 6
        for ending in outcome.endings:
            assert ending.score == pytest.approx(math.log(expected[ending.tokens]), abs=1e-5)
            assert ending.finish == ("stop" if ending.tokens[-1] == END else "length")
        scores = [e.score or 0.0 for e in outcome.endings]
        unsorted += scores != sorted(scores, reverse=True)
    assert unsorted > 25


def test_the_first_two_samples_follow_the_distribution_without_replacement() -> None:
    # Fewer beams than tokens: at both steps some candidates are dropped.
    table = torch.tensor([0.5, 0.28, 0.07, 0.15]).log().repeat(4, 1)
    expected = texts_of(table, 2)
    count = 2000
    rows = [row_of(StochasticBeamSearch(2), 2, [END], seed=seed) for seed in range(count)]
    seen = Counter((o.tokens[0], o.tokens[1]) for o in search_together(rows, table))
    # The second is drawn from the distribution without the first.
    pairs = {
        (t, u): p * q / (1 - p) * count for t, p in expected.items() for u, q in expected.items() if t != u
    }
    common = [pair for pair, times in pairs.items() if times >= 5]
    counts = [seen[pair] for pair in common]
    times = [pairs[pair] for pair in common]
    counts, times = [*counts, count - sum(counts)], [*times, count - sum(times)]
    assert chisquare(counts, times).pvalue > 1e-3


def test_a_single_sample_is_drawn_from_the_processed_distribution() -> None:
    table = markov(3, seed=2, spread=1.0)
    expected = texts_of(table / 0.5, 2)
    count = 1500
    rows = [row_of(StochasticBeamSearch(1), 2, [END], seed=s, temperature=0.5) for s in range(count)]
    seen = Counter(outcome.tokens[0] for outcome in search_together(rows, table))
    assert chisquare([seen[t] for t in expected], [p * count for p in expected.values()]).pvalue > 1e-3


def test_truncation_limits_what_is_drawn_and_its_probabilities_sum_to_one() -> None:
    table = markov(6, seed=3)
    outcome = search(row_of(StochasticBeamSearch(4), 2, top_k=2, seed=5), table)
    # These are all texts of two tokens out of two.
    assert len(set(outcome.tokens)) == 4
    assert sum(math.exp(e.score or 0.0) for e in outcome.endings) == pytest.approx(1)


def test_if_fewer_texts_exist_the_other_streams_end_in_error() -> None:
    outcome = search(row_of(StochasticBeamSearch(6), 2, top_k=2, seed=5), markov(6, seed=3))
    assert [e.finish for e in outcome.endings] == ["length"] * 4 + ["error"] * 2
    assert [e.stream for e in outcome.endings] == list(range(6))


def test_no_possible_token_is_a_failure() -> None:
    ban = dict.fromkeys(range(4), -math.inf)
    outcome = search(row_of(StochasticBeamSearch(2), 4, logit_bias=ban), markov(4))
    assert outcome.failures == ["no token is possible: every one is banned by logit_bias"]


def test_a_search_ends_at_once_when_its_time_is_up() -> None:
    method, table = StochasticBeamMethod(), markov(12)
    first = method.judge([row_of(StochasticBeamSearch(2))], make_scores(table[:1]))
    rows = [replace(s.row, expired=True) for s in first.survivors]
    verdict = method.judge(rows, make_scores(table[[r.tokens[-1] for r in rows]]))
    assert not verdict.survivors
    assert [(e.finish, len(e.tokens)) for e in verdict.endings] == [("time", 2)] * 2


def test_logprobs_are_those_of_the_completions_tokens_under_the_model() -> None:
    table = markov(12, seed=4)
    expected = table.log_softmax(-1)
    outcome = search(row_of(StochasticBeamSearch(3), 5, [3], logprobs=1, temperature=0.7), table)
    for ending in outcome.endings:
        assert [t.token for t in ending.logprobs] == list(ending.tokens)
        for before, entry in zip((0, *ending.tokens), ending.logprobs, strict=False):
            assert entry.logprob == pytest.approx(float(expected[before, entry.token]), abs=1e-6)


def test_the_kept_candidates_of_a_trace_are_the_next_steps_rows() -> None:
    outcome = search(replace(row_of(StochasticBeamSearch(4), 5, [END]), explain=4), markov(8, seed=6))
    fates = Counter[str]()
    for rows, verdict, following in zip(outcome.rows, outcome.verdicts, [*outcome.rows[1:], []], strict=True):
        ((_, candidates),) = verdict.beams
        states: list[Any] = [row.state for row in rows]
        places = {0 if s is None else s.place: row for s, row in zip(states, rows, strict=True)}
        kept = {(c.beam, (*places[c.parent].tokens, c.token)) for c in candidates if c.fate == "kept"}
        after: list[Any] = [(row, row.state) for row in following]
        assert kept == {(state.place, tuple(row.tokens)) for row, state in after}
        assert all(row.streams == () for row in following)
        fates.update(c.fate for c in candidates)
    assert fates["finished"]
    assert fates["pruned"]


def completions_of(engine: Any, jobs: Any) -> list[list[Any]]:
    ids = [engine.add(*job) for job in jobs]
    events = []
    while engine.has_work():
        events += engine.step()
        engine.check_integrity()
    return [[(e.stream, e.tokens, e.score, e.logprobs) for e in events if e.request == i] for i in ids]


@built
def test_batched_equals_alone_and_scarce_pages_change_nothing() -> None:
    model = default_model()
    rng = random.Random(2)
    kinds: list[dict[str, Any]] = [
        {"strategy": StochasticBeamSearch(3)},
        {"strategy": StochasticBeamSearch(5), "temperature": 0.6, "logprobs": 1},
        {"strategy": StochasticBeamSearch(2), "top_k": 5},
        {"top_p": 0.9},
    ]
    jobs = [
        ([rng.randrange(97) for _ in range(rng.randint(1, 30))], GenerationParams(max_tokens=10, seed=i, **k))
        for i, k in enumerate(kinds * 2)
    ]
    alone = [completions_of(make_engine(model, end_ids=[5]), [job])[0] for job in jobs]
    assert completions_of(make_engine(model, end_ids=[5]), jobs) == alone
    engine = make_engine(model, end_ids=[5], pages=15)
    assert completions_of(engine, jobs) == alone
    assert engine.preemptions
