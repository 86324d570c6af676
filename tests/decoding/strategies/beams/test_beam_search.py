from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from decodery.decoding.processors import pipeline
from decodery.decoding.request.grammar_params import Choice
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import BeamSearch
from decodery.decoding.strategies.beams.beam_candidates import drawn
from decodery.decoding.strategies.beams.beam_groups import Beam
from decodery.decoding.strategies.beams.beam_search import BeamMethod
from decodery.decoding.strategies.beams.diverse_beams import penalise_taken
from decodery.errors import ParameterError
from tests.decoding.rows import make_scores
from tests.decoding.strategies.searching import (
    Outcome,
    markov,
    row_of,
    search,
    search_together,
)
from tests.engine.runs import make_engine
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model


def test_beams_write_what_a_grammar_allows(default_llm: Any) -> None:
    texts = ("yes, it is", "no, it is not", "maybe")
    params = GenerationParams(
        max_tokens=12, grammar=Choice(texts), strategy=BeamSearch(5, num_return_sequences=4)
    )
    (output,) = default_llm.generate("Is the sky blue? The answer is:", params)
    assert {c.text for c in output.completions} <= set(texts)
    # Several token sequences may spell the same text.
    assert len({tuple(c.token_ids) for c in output.completions}) == 4


def everything(table: torch.Tensor, length: int, end: int) -> dict[tuple[int, ...], float]:
    """Returns the log-probability of every text of at most `length` tokens, in float64."""
    logprobs = table.double().log_softmax(-1).tolist()
    found = {}
    for size in range(1, length + 1):
        for text in itertools.product(range(len(table)), repeat=size):
            if end in text[:-1] or (size < length and text[-1] != end):
                continue
            found[text] = sum(logprobs[a][b] for a, b in itertools.pairwise((0, *text)))
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_a_beam_as_wide_as_the_tree_finds_the_best_texts_of_all(penalty: float) -> None:
    table = markov(5, seed=3)
    strategy = BeamSearch(5**3, num_return_sequences=20, length_penalty=penalty, early_stopping="never")
    scores = {text: p / len(text) ** penalty for text, p in everything(table, 4, 4).items()}
    best = sorted(scores, key=lambda text: -scores[text])[:20]
    outcome = search(row_of(strategy, 4, [4]), table)
    assert outcome.tokens == best
    assert [e.score for e in outcome.endings] == pytest.approx([scores[t] for t in best], abs=1e-5)


MIXED: list[dict[str, Any]] = [
    {"strategy": BeamSearch(4, num_return_sequences=3), "logprobs": 2},
    {"strategy": BeamSearch(2, length_penalty=0.0), "repetition_penalty": 1.2},
    {"strategy": BeamSearch(6, num_beam_groups=3, diversity_penalty=0.7, num_return_sequences=4)},
    {"strategy": BeamSearch(3, force_words=((7, 8), ((9,), (10, 11))))},
    {"strategy": BeamSearch(3, sample=True, num_return_sequences=3), "temperature": 1.3, "top_k": 20},
    {"temperature": 0},
    {"strategy": BeamSearch(5, early_stopping="never")},
]


def mixed_jobs(count: int) -> list[tuple[list[int], GenerationParams]]:
    rng = random.Random(5)
    return [
        (
            [rng.randrange(97) for _ in range(rng.randint(1, 40))],
            GenerationParams(**{"max_tokens": 12, "seed": i, **MIXED[i % len(MIXED)]}),
        )
        for i in range(count)
    ]


def completions_of(engine: Any, jobs: Any) -> list[list[Any]]:
    ids = [engine.add(*job) for job in jobs]
    events = []
    while engine.has_work():
        events += engine.step()
        engine.check_integrity()
    return [[(e.stream, e.tokens, e.score, e.logprobs) for e in events if e.request == i] for i in ids]


@built
def test_batched_equals_alone_bit_for_bit() -> None:
    model = default_model()
    jobs = mixed_jobs(14)
    alone = [completions_of(make_engine(model, end_ids=[5, 50]), [job])[0] for job in jobs]
    assert completions_of(make_engine(model, end_ids=[5, 50]), jobs) == alone
    assert completions_of(make_engine(model, end_ids=[5, 50]), jobs[::-1]) == alone[::-1]


@built
def test_scarce_pages_change_nothing() -> None:
    model = default_model()
    jobs = mixed_jobs(7)
    alone = [completions_of(make_engine(model, end_ids=[5]), [job])[0] for job in jobs]
    engine = make_engine(model, end_ids=[5], pages=27)
    assert completions_of(engine, jobs) == alone
    assert engine.preemptions


@pytest.mark.parametrize("strategy", [BeamSearch(3), BeamSearch(4, num_beam_groups=2)])
def test_a_processor_that_changes_nothing_changes_no_bit(strategy: BeamSearch) -> None:
    # In bfloat16 some values are equal.
    table = markov(500).bfloat16().float()
    plain = search(row_of(strategy, 8, [3]), table)
    processed = search(row_of(strategy, 8, [3], logits_processors=lambda tokens, logits: logits), table)
    assert plain.endings == processed.endings
    assert sums(plain) == sums(processed)


def sums(outcome: Outcome) -> list[tuple[list[int], float]]:
    """Returns the texts of a search's beams, step by step, each with its sum."""
    beams = [(row, row.state) for rows in outcome.rows[1:] for row in rows]
    return [(row.tokens.tolist(), state.total) for row, state in beams if isinstance(state, Beam)]


def test_a_beam_of_one_is_greedy() -> None:
    table = markov(20, seed=1)
    outcome = search(row_of(BeamSearch(1), 9), table)
    token, text = 0, []
    for _ in range(9):
        token = int(table[token].argmax())
        text.append(token)
    assert outcome.tokens == [tuple(text)]


def test_a_text_ends_only_among_the_best() -> None:
    # The end token is the third candidate: too late for a search of two beams.
    table = torch.tensor([[0.0, -0.1, -0.2, -9.0]]).repeat(4, 1)
    outcome = search(row_of(BeamSearch(2, num_return_sequences=2, length_penalty=0.0), 1, [2]), table)
    assert outcome.tokens == [(0,), (1,)]
    wider = search(row_of(BeamSearch(3, num_return_sequences=3, length_penalty=0.0), 1, [2]), table)
    assert [e.finish for e in wider.endings] == ["length", "length", "stop"]


@pytest.mark.parametrize("early", [True, False, "never"])
def test_early_stopping_says_when_a_search_is_over(early: bool | str) -> None:
    # Token 1 ends a text and is the likeliest at first. Repeating token 2 costs nothing.
    table = torch.full((3, 3), -20.0)
    table[0, 1], table[0, 2] = 0.0, -0.5
    table[2, 2], table[2, 1] = 0.0, -3.0
    strategy = BeamSearch(1, early_stopping=early, length_penalty=1.0)  # type: ignore[arg-type]
    outcome = search(row_of(strategy, 30, [1]), table)
    # Only "never" considers that a longer text can still score higher.
    assert outcome.tokens == ([(2,) * 30] if early == "never" else [(1,)])


@dataclass(frozen=True)
class Watching:
    """Ends a row at any of these tokens."""

    at: frozenset[int]
    stopped: object = None

    def after(self, token: int) -> Watching:
        return replace(self, stopped="met" if token in self.at else None)


def test_a_stop_string_ends_a_text_as_an_end_token_does() -> None:
    table = markov(12, seed=2)
    strategy = BeamSearch(3, num_return_sequences=3, length_penalty=0.5)
    by_token = search(row_of(strategy, 8, [4]), table)
    by_watch = search(replace(row_of(strategy, 8), watch=Watching(frozenset([4]))), table)
    assert "stop" in {e.finish for e in by_token.endings}
    assert by_watch.endings == by_token.endings


def test_a_beam_stays_full_however_many_candidates_end() -> None:
    table = markov(40, seed=2)
    # All but the least likely tokens end the text, far more than the search reckons with from its end tokens.
    continuing = table.topk(3, largest=False).indices[0].tolist()
    ending = frozenset(range(40)) - set(continuing)
    row = replace(row_of(BeamSearch(3, early_stopping="never"), 4), watch=Watching(ending))
    outcome = search(row, table)
    assert len(outcome.rows[1]) == 3
    assert {r.tokens[-1] for r in outcome.rows[1]} == set(continuing)


def test_a_rule_that_ends_every_text_is_not_asked_of_the_whole_vocabulary() -> None:
    asked: list[int] = []

    def of_two_tokens(tokens: list[int]) -> bool:
        asked.append(1)
        return len(tokens) == 2

    outcome = search(row_of(BeamSearch(2), 9, stop_when=of_two_tokens), markov(3000))
    assert len(outcome.tokens[0]) == 2
    assert len(asked) < 3000


def test_no_text_ends_before_min_tokens() -> None:
    table = markov(12, seed=2)
    outcome = search(row_of(BeamSearch(3, num_return_sequences=3), 8, [4, 5], min_tokens=4), table)
    assert all(len(e.tokens) >= 5 or e.finish == "length" for e in outcome.endings)


@dataclass(frozen=True)
class Counting:
    """Allows texts of exactly `left` tokens."""

    left: int
    accepting: bool = False
    forced: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        return self.left == 0

    def after(self, token: int) -> Counting:
        return Counting(self.left - 1)


def test_each_beam_has_its_own_grammar_state(monkeypatch: pytest.MonkeyPatch) -> None:
    table = markov(12, seed=2)
    processor = replace(pipeline.PROCESSORS["grammar"], wants=lambda row: False)
    monkeypatch.setitem(pipeline.PROCESSORS, "grammar", processor)
    row = replace(row_of(BeamSearch(3, num_return_sequences=3), 8), grammar=Counting(3))
    outcome = search(row, table)
    assert [(len(e.tokens), e.finish) for e in outcome.endings] == [(3, "stop")] * 3


def test_a_search_ends_at_once_when_its_time_is_up() -> None:
    method, table = BeamMethod(), markov(12)
    first = method.judge([row_of(BeamSearch(2))], make_scores(table[:1]))
    rows = [replace(s.row, expired=True) for s in first.survivors]
    verdict = method.judge(rows, make_scores(table[[r.tokens[-1] for r in rows]]))
    assert not verdict.survivors
    assert [(e.finish, len(e.tokens)) for e in verdict.endings] == [("time", 2)]


def test_if_fewer_beams_are_possible_the_search_continues_with_fewer_rows() -> None:
    table = torch.full((4, 4), -torch.inf)
    table[0, 1], table[0, 2] = 0.0, -1.0
    table[1, 3], table[2, 2] = 0.0, 0.0
    table[3, 3] = 0.0
    outcome = search(row_of(BeamSearch(4, num_return_sequences=3), 3), table)
    assert [len(rows) for rows in outcome.rows] == [1, 2, 2]
    assert outcome.tokens[:2] == [(1, 3, 3), (2, 2, 2)]
    assert all(math.isfinite(e.score or 0.0) for e in outcome.endings)
    # There is no third text.
    assert (outcome.endings[2].finish, outcome.tokens[2]) == ("error", ())


def test_a_beam_without_a_possible_token_is_dropped_and_the_others_continue() -> None:
    def nothing_after_two(tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
        return torch.full_like(logits, -torch.inf) if tokens[-1] == 2 else logits

    table = torch.tensor([[-9.0, -1.0, 0.0], [-9.0, 0.0, -9.0], [0.0, 0.0, 0.0]])
    outcome = search(row_of(BeamSearch(2), 4, logits_processors=nothing_after_two), table)
    assert outcome.tokens == [(1, 1, 1, 1)]
    assert [len(rows) for rows in outcome.rows] == [1, 2, 2, 2]


def test_no_possible_token_is_a_failure_that_says_why() -> None:
    dead = search(row_of(BeamSearch(3), 4, logit_bias=dict.fromkeys(range(3), -math.inf)), markov(3))
    assert not dead.endings
    assert dead.failures == ["no token is possible: every one is banned by logit_bias"]
    broken = search(row_of(BeamSearch(3), 4), torch.full((3, 3), torch.nan))
    assert "NaN" in broken.failures[0]


def test_ended_texts_are_returned_when_no_beam_is_left() -> None:
    table = torch.full((3, 3), -torch.inf)
    table[0, 1], table[0, 2] = 0.0, 0.0
    outcome = search(row_of(BeamSearch(3), 4, [1]), table)
    assert outcome.tokens == [(1,)]


def test_live_beams_have_no_stream_and_keep_their_sums() -> None:
    table = markov(12, seed=4)
    logprobs = table.double().log_softmax(-1)
    outcome = search(row_of(BeamSearch(3), 5), table)
    for rows in outcome.rows[1:]:
        for row in rows:
            assert row.streams == ()
            assert isinstance(row.state, Beam)
            total = sum(float(logprobs[a, b]) for a, b in itertools.pairwise(row.tokens))
            assert row.state.total == pytest.approx(total, abs=1e-5)
        assert len({tuple(row.tokens) for row in rows}) == len(rows)


def test_logprobs_are_those_of_the_completions_tokens_under_the_model() -> None:
    table = markov(12, seed=4)
    strategy = BeamSearch(3, num_return_sequences=2)
    outcome = search(row_of(strategy, 5, [3], logprobs=2, repetition_penalty=1.5), table)
    expected = table.log_softmax(-1)
    for ending in outcome.endings:
        assert [t.token for t in ending.logprobs] == list(ending.tokens)
        for before, entry in zip((0, *ending.tokens), ending.logprobs, strict=False):
            assert entry.logprob == pytest.approx(float(expected[before, entry.token]), abs=1e-6)
            assert len(entry.top) == 2
    assert not search(row_of(strategy, 5, [3]), table).endings[0].logprobs


@pytest.mark.parametrize(
    "strategy",
    [
        BeamSearch(3),
        BeamSearch(4, num_beam_groups=2, diversity_penalty=0.5),
        BeamSearch(3, force_words=((7, 8),)),
        BeamSearch(3, sample=True),
    ],
    ids=["beams", "groups", "constraints", "sampling"],
)
def test_the_kept_candidates_of_a_trace_are_the_next_steps_beams(strategy: BeamSearch) -> None:
    outcome = search(replace(row_of(strategy, 5, [3]), explain=4), markov(12, seed=6))
    fates = Counter[str]()
    for rows, verdict, following in zip(outcome.rows, outcome.verdicts, [*outcome.rows[1:], []], strict=True):
        ((parent, candidates),) = verdict.beams
        assert rows[parent].request == 0
        places = {r.state.place if isinstance(r.state, Beam) else 0: r for r in rows}
        kept = {
            (c.beam, (*places[c.parent].tokens, c.token), c.score) for c in candidates if c.fate == "kept"
        }
        states = [(row, row.state) for row in following]
        assert kept == {(s.place, tuple(r.tokens), s.total) for r, s in states if isinstance(s, Beam)}
        assert len(kept) == len(following)
        fates.update(c.fate for c in candidates)
    assert fates["finished"]
    assert fates["pruned"]
    assert not search(row_of(strategy, 5, [3]), markov(12, seed=6)).verdicts[0].beams


def test_xtc_applies_to_beams_too() -> None:
    strategy = BeamSearch(3, sample=True)
    row = row_of(strategy, 6, seed=1, xtc_probability=0.5, xtc_threshold=0.1)
    assert len(search(row, markov(12, seed=6)).tokens) == 1


def test_drawn_beams_depend_on_the_seed_alone() -> None:
    table = markov(30, seed=1)
    rows = [row_of(BeamSearch(4, sample=True, num_return_sequences=4), 6, [3], seed=s) for s in range(4)]
    alone = [search(row, table).endings for row in rows]
    together = search_together(rows, table)
    assert [[e.tokens for e in o.endings] for o in together] == [[e.tokens for e in a] for a in alone]
    assert len({tuple(e.tokens for e in a) for a in alone}) == 4
    for ends in alone:
        assert len({e.tokens for e in ends}) == 4


def test_beams_do_not_share_their_noise() -> None:
    # Two beams that differ in their first token only, and draw from the same distribution.
    strategy = BeamSearch(2, sample=True, num_return_sequences=2, length_penalty=0.0)
    table = torch.zeros(60, 60)
    texts = [search(row_of(strategy, 2, seed=s), table).tokens for s in range(40)]
    assert sum(first[1] == second[1] for first, second in texts) < 5


def test_drawn_beams_follow_the_processed_distribution() -> None:
    # By the rules of 4, the first of a beam's two candidates is drawn with the token's probability, and the
    # better of both is kept.
    table = torch.tensor([[0.0, 1.0, -1.0, -torch.inf]])
    p = (table[0] / 0.7).softmax(-1).double().tolist()
    count = 2000
    strategy = BeamSearch(1, sample=True, rules="transformers-4")
    rows = [row_of(strategy, 1, seed=s, temperature=0.7) for s in range(count)]
    seen = Counter(search(row, table).tokens[0][0] for row in rows)
    # Token 0 is kept if it is drawn together with token 2. Token 2 never is.
    share = p[0] * p[2] / (1 - p[0]) + p[2] * p[0] / (1 - p[2])
    assert set(seen) == {0, 1}
    assert abs(seen[0] / count - share) < 4 * math.sqrt(share * (1 - share) / count)


def test_the_first_candidate_drawn_follows_the_sums_of_all_beams() -> None:
    # The sums are far below 0 and differ. The beams would choose the same token if they shared their noise.
    logprobs = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]).log()
    totals = [-40.0, -40.5]
    rows = [row_of(BeamSearch(2, sample=True), seed=seed) for seed in range(3000)]
    first = [drawn(logprobs, totals, [row, row], [0, 1], 1)[0] for row in rows]
    seen = Counter((c.beam, c.token) for c in first)
    shares = (logprobs + torch.tensor(totals)[:, None]).double().flatten().softmax(0).tolist()
    places = list(itertools.product(range(2), range(3)))
    assert chisquare([seen[p] for p in places], [s * len(rows) for s in shares]).pvalue > 1e-3


def test_truncation_limits_what_is_drawn() -> None:
    table = markov(30, seed=1)
    best = table.topk(2).indices
    outcome = search(row_of(BeamSearch(3, sample=True, num_return_sequences=3), 6, top_k=2, seed=1), table)
    for text in outcome.tokens:
        assert all(b in best[a] for a, b in itertools.pairwise((0, *text)))


def test_a_token_costs_its_penalty_for_each_beam_that_took_it() -> None:
    logprobs = torch.zeros(2, 5)
    penalise_taken(logprobs, [3, 1, 3], 0.5)
    assert logprobs.tolist() == [[0.0, -0.5, 0.0, -1.0, 0.0]] * 2


def test_a_penalty_makes_groups_begin_differently() -> None:
    table = markov(20, seed=1, spread=0.5)

    def opening(penalty: float) -> set[int]:
        strategy = BeamSearch(3, num_beam_groups=3, diversity_penalty=penalty, num_return_sequences=3)
        return {text[0] for text in search(row_of(strategy, 4), table).tokens}

    assert len(opening(0.0)) == 1
    assert len(opening(5.0)) == 3


def test_groups_without_a_penalty_are_each_a_search_of_their_own() -> None:
    table = markov(20, seed=1)
    single = search(row_of(BeamSearch(2, num_return_sequences=2), 6, [3]), table)
    groups = search(row_of(BeamSearch(4, num_beam_groups=2, num_return_sequences=4), 6, [3]), table)
    assert Counter(groups.tokens) == Counter(single.tokens * 2)


def test_a_length_penalty_that_would_overflow_is_refused() -> None:
    with pytest.raises(ParameterError, match="length_penalty"):
        BeamSearch(2, length_penalty=51.0)
