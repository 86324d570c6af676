"""Checks speculation in the engine: the results it may change, and its cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import DraftModel, PromptLookup
from decodery.decoding.request.strategy_params import ContrastiveDecoding, DoLa, Strategy
from decodery.engine.engine import Engine
from decodery.models.decoders.llama import Llama
from tests.engine.runs import Job, make_engine
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model

VOCAB = 97
Outcome = tuple[tuple[int, ...], FinishReason | None, tuple[TokenLogprobs, ...]]


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


@pytest.fixture(scope="module")
def small_model() -> Llama:
    return default_model(seed=1, num_hidden_layers=1, max_position_embeddings=1024)


@dataclass(frozen=True)
class Results:
    """Holds the outcome of each stream of each job, all events, and the number of tokens that ran."""

    outcomes: list[list[Outcome]]
    events: list[Event]
    forwarded: int

    @property
    def drafted(self) -> int:
        return sum(len(e.drafts) for e in self.events)

    @property
    def accepted(self) -> int:
        return sum(e.accepted for e in self.events)


def decode(engine: Engine, jobs: Sequence[Job], explain: int = 0, **extra: Any) -> Results:
    """Runs jobs to their ends. Checks integrity after each step."""
    ids = [engine.add(prompt, params, explain=explain, **extra) for prompt, params in jobs]
    events: list[Event] = []
    forwarded = 0
    schedule = engine._scheduler.schedule

    def counting(*arguments: Any) -> Any:
        nonlocal forwarded
        batch = schedule(*arguments)
        forwarded += batch.length
        return batch

    engine._scheduler.schedule = counting  # type: ignore[method-assign]
    while engine.has_work():
        events += engine.step()
        engine.check_integrity()
    outcomes = []
    for request, (_, params) in zip(ids, jobs, strict=True):
        streams = []
        for stream in range(params.streams):
            own = [e for e in events if (e.request, e.stream) == (request, stream)]
            tokens = tuple(t for e in own for t in e.tokens)
            streams.append((tokens, own[-1].finish, tuple(p for e in own for p in e.logprobs)))
        outcomes.append(streams)
    return Results(outcomes, events, forwarded)


def mixed_jobs(count: int = 100) -> list[Job]:
    """Random requests, whose prompts repeat themselves, with all kinds of parameters."""
    rng = random.Random(3)
    variants: list[Callable[[], dict[str, Any]]] = [
        lambda: {"temperature": 0},
        lambda: {"temperature": 0, "repetition_penalty": rng.choice([1.1, 1.4])},
        lambda: {"temperature": rng.uniform(0.05, 0.3)},
        lambda: {"temperature": 0.5, "top_p": 0.8, "n": rng.randrange(1, 4)},
        lambda: {"temperature": 0.3, "presence_penalty": 0.5, "frequency_penalty": 0.2},
        lambda: {"temperature": 0, "no_repeat_ngram_size": rng.randrange(2, 4)},
        lambda: {"temperature": 0.2, "stop_token_ids": rng.sample(range(VOCAB), 10), "min_tokens": 4},
        lambda: {"temperature": 0, "logit_bias": {rng.randrange(VOCAB): 8.0}},
        lambda: {"temperature": 0.4, "mirostat_mode": rng.choice([1, 2]), "mirostat_tau": 2.0},
        lambda: {"temperature": 0, "guidance_scale": 1.5, "negative_prompt": (1, 2, 3)},
        lambda: {"temperature": 0.1, "min_p": 0.1, "logit_bias": {rng.randrange(VOCAB): 12.0}, "n": 2},
    ]
    jobs: list[Job] = []
    for i in range(count):
        phrase = [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 12))]
        prompt = (phrase * 20)[: rng.randrange(1, 90)]
        params = variants[i % len(variants)]()
        logprobs = rng.choice([None, 0, 3])
        jobs.append(
            (prompt, GenerationParams(max_tokens=rng.randrange(4, 32), seed=i, logprobs=logprobs, **params))
        )
    return jobs


def speculating(jobs: Sequence[Job], speculations: Sequence[Any]) -> list[Job]:
    """The jobs with these speculations in turn."""
    return [
        (prompt, params.replace(speculate=speculations[i % len(speculations)]))
        for i, (prompt, params) in enumerate(jobs)
    ]


@pytest.fixture(scope="module")
def plain(model: Llama) -> list[list[Outcome]]:
    return decode(make_engine(model, pages=2000), mixed_jobs()).outcomes


LOOKUPS = (PromptLookup(), PromptLookup(max_ngram=1, num_tokens=3, adaptive=False), None)
MODELS = (DraftModel("small"), DraftModel("small", num_tokens=7, adaptive=False), PromptLookup())


@built
@pytest.mark.parametrize("speculations", [LOOKUPS, MODELS], ids=["lookup", "model"])
@pytest.mark.parametrize(
    "limits",
    [{"pages": 2000}, {"pages": 24, "token_budget": 16}, {"pages": 40}],
    ids=["plenty", "16", "scarce"],
)
def test_matching_drafts_change_no_token_no_reason_and_no_logprob(
    model: Llama,
    small_model: Llama,
    plain: list[list[Outcome]],
    speculations: Sequence[Any],
    limits: dict[str, Any],
) -> None:
    engine = make_engine(model, **limits)
    found = decode(engine, speculating(mixed_jobs(), speculations), draft_model=small_model)
    assert found.outcomes == plain
    assert found.accepted > 20
    assert (engine.preemptions > 0) == (limits["pages"] < 2000)


@built
@pytest.mark.parametrize(
    "strategy", [ContrastiveDecoding("small"), DoLa((0, 1))], ids=["contrastive", "dola"]
)
def test_strategies_that_contrast_may_speculate_too(
    model: Llama, small_model: Llama, strategy: Strategy
) -> None:
    jobs: list[Job] = [(prompt, params.replace(strategy=strategy)) for prompt, params in mixed_jobs(33)]
    plain = decode(make_engine(model), jobs, contrast_model=small_model)
    found = decode(
        make_engine(model), speculating(jobs, MODELS), contrast_model=small_model, draft_model=model
    )
    assert found.outcomes == plain.outcomes
    assert found.accepted > 20


@built
def test_a_models_own_drafts_are_all_accepted(model: Llama, plain: list[list[Outcome]]) -> None:
    # A draft model has no companion, and mirostat changes its state with chosen tokens only.
    which = [i for i, (_, p) in enumerate(mixed_jobs()) if not p.guided and not p.mirostat_mode]
    jobs = speculating([mixed_jobs()[i] for i in which], [DraftModel("itself", num_tokens=5)])
    found = decode(make_engine(model, pages=2000), jobs, draft_model=model)
    assert found.outcomes == [plain[i] for i in which]
    assert found.drafted > 500
    assert found.accepted == found.drafted


@built
@pytest.mark.parametrize(
    "speculation", [PromptLookup(acceptance="rejection"), DraftModel("small", acceptance="rejection")]
)
def test_by_rejection_texts_repeat_and_do_not_depend_on_the_batch_while_all_drafts_fit(
    model: Llama, small_model: Llama, speculation: Any, plain: list[list[Outcome]]
) -> None:
    jobs = speculating(mixed_jobs(45), [speculation])
    together = decode(make_engine(model, pages=2000), jobs, draft_model=small_model)
    alone = [decode(make_engine(model), [job], draft_model=small_model).outcomes[0] for job in jobs]
    assert together.outcomes == alone
    assert together.accepted > 20
    for (_, params), outcome, expected in zip(jobs, alone, plain, strict=False):
        assert not params.greedy or outcome == expected
    assert alone != plain[:45]


def test_an_event_has_the_drafts_and_the_number_accepted(model: Llama) -> None:
    params = GenerationParams(max_tokens=40, temperature=0, speculate=PromptLookup(num_tokens=6))
    found = decode(make_engine(model), [([5, 6, 7, 8] * 6, params)], explain=4)
    assert 0 < found.accepted < found.drafted
    for event in found.events:
        assert event.accepted <= len(event.drafts) <= 6
        assert event.tokens[: event.accepted] == event.drafts[: event.accepted]
        assert len(event.tokens) == event.accepted + 1
        assert [c.token for c in event.considered] == list(event.tokens)


@built
@pytest.mark.parametrize(("speculation", "temperature"), [(PromptLookup(), 3.0), (DraftModel("wrong"), 0.0)])
def test_drafts_that_always_fail_cost_little(model: Llama, speculation: Any, temperature: float) -> None:
    # The prompt repeats tokens that are banned, and the draft model is unrelated to the model.
    prompt = [1, 2, 3, 4] * 8
    params = GenerationParams(
        max_tokens=300,
        seed=1,
        temperature=temperature,
        logit_bias=dict.fromkeys(range(5), -100.0),
        frequency_penalty=0.3,
    )
    plain = decode(make_engine(model), [(prompt, params)])
    wrong = default_model(seed=2, num_hidden_layers=1, max_position_embeddings=1024)
    found = decode(make_engine(model), [(prompt, params.replace(speculate=speculation))], draft_model=wrong)
    assert found.outcomes == plain.outcomes
    assert found.drafted - found.accepted <= 0.15 * 300
    assert found.forwarded <= plain.forwarded + 0.15 * 300


def test_text_that_repeats_takes_fewer_steps(model: Llama) -> None:
    params = GenerationParams(max_tokens=200, temperature=0, logit_bias={7: 100.0})
    found = decode(make_engine(model), [([7] * 10, params.replace(speculate=PromptLookup()))])
    assert len(found.events) < 200 / 8


@dataclass(frozen=True)
class Literal:
    """Is a grammar that allows a single text, and forces up to `ahead` of its tokens at once."""

    left: tuple[int, ...]
    ahead: int

    @property
    def unrestricted(self) -> bool:
        return False

    @property
    def accepting(self) -> bool:
        return not self.left

    @property
    def complete(self) -> bool:
        return not self.left

    @property
    def forced(self) -> tuple[int, ...]:
        # Not at every place: there the pipeline would choose.
        return self.left[: self.ahead]

    def after(self, token: int) -> Literal:
        assert token == self.left[0], "the grammar is shown a token that it forbids"
        return replace(self, left=self.left[1:])


@pytest.mark.parametrize("ahead", [1, 5, 100])
@pytest.mark.parametrize("speculate", [None, PromptLookup(), DraftModel("small")])
@pytest.mark.parametrize("limits", [{}, {"token_budget": 16}])
def test_what_a_grammar_forces_is_drafted_and_never_drawn(
    model: Llama, small_model: Llama, ahead: int, speculate: Any, limits: dict[str, Any]
) -> None:
    rng = random.Random(0)
    text = tuple(rng.randrange(VOCAB) for _ in range(50))
    params = GenerationParams(max_tokens=60, n=2, seed=4, logprobs=1, speculate=speculate)
    engine = make_engine(model, **limits)
    found = decode(engine, [([1, 2, 3], params)], grammar=Literal(text, ahead), draft_model=small_model)
    for tokens, finish, logprobs in found.outcomes[0]:
        assert (tokens, finish) == (text, "stop")
        assert [p.token for p in logprobs] == list(text)
    if ahead == 100:
        assert len(found.events) == 4
    assert all(c.forced for e in found.events for c in e.considered)
    # `max_tokens` limits forced tokens too.
    cut = decode(
        engine,
        [([1, 2, 3], params.replace(max_tokens=20))],
        grammar=Literal(text, ahead),
        draft_model=small_model,
    )
    assert [(t, f) for t, f, _ in cut.outcomes[0]] == [(text[:20], "length")] * 2


SPECULATIONS = (
    PromptLookup(max_ngram=1, num_tokens=5, adaptive=False),
    PromptLookup(max_ngram=1, acceptance="rejection"),
    DraftModel("small", num_tokens=5, adaptive=False),
    DraftModel("same", num_tokens=9, adaptive=False),
)
# Few pairs of tokens, none of which may come twice: then every token is banned.
DEAD_ENDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0, "allowed_token_ids": (70, 71)},
    "log-probabilities": {"temperature": 0, "allowed_token_ids": (70, 71, 72), "logprobs": 2},
    "streams that end apart": {"n": 4, "seed": 3, "allowed_token_ids": (70, 71, 72)},
    "streams that choose apart": {
        "n": 3,
        "seed": 5,
        "allowed_token_ids": (70, 71, 72, 73),
        "xtc_probability": 0.5,
        "xtc_threshold": 0.05,
        "logprobs": 0,
    },
    "guidance": {"temperature": 0, "allowed_token_ids": (70, 71, 72), "guidance_scale": 1.5},
}


@built
@pytest.mark.parametrize("name", DEAD_ENDS)
@pytest.mark.parametrize("speculate", SPECULATIONS, ids=str)
def test_where_every_token_is_banned_in_the_end_the_text_is_that_without_drafts(
    model: Llama, small_model: Llama, name: str, speculate: Any
) -> None:
    rejects = speculate.acceptance == "rejection"
    if rejects and "n" in DEAD_ENDS[name]:
        pytest.skip("another text than without drafts is right")
    params = GenerationParams(max_tokens=40, no_repeat_ngram_size=2, ignore_eos=True, **DEAD_ENDS[name])
    prompt = [5, 70, 6, 71, 7, 72, 8, 73]
    plain = decode(make_engine(model), [(prompt, params)])
    drafter = model if speculate == SPECULATIONS[-1] else small_model
    engine = make_engine(model)
    drafted = decode(engine, [(prompt, params.replace(speculate=speculate))], draft_model=drafter)
    assert drafted.outcomes == plain.outcomes
    assert all(finish == "error" for _, finish, _ in plain.outcomes[0])
    assert any(len(tokens) > 2 for tokens, *_ in plain.outcomes[0])
    reasons = {e.error for e in drafted.events if e.finish is not None}
    assert reasons == {e.error for e in plain.events if e.finish is not None}
    assert not engine.has_work()


@built
def test_a_stream_that_cannot_go_on_leaves_the_others_their_texts(model: Llama) -> None:
    params = GenerationParams(
        max_tokens=12, no_repeat_ngram_size=2, n=4, seed=3, allowed_token_ids=(70, 71, 72), ignore_eos=True
    )
    outcomes = decode(make_engine(model), [([70, 71], params)]).outcomes[0]
    assert len({len(tokens) for tokens, *_ in outcomes}) > 1
    for tokens, finish, _ in outcomes:
        pairs = list(zip((70, 71, *tokens), (71, *tokens), strict=False))
        assert len(set(pairs)) == len(pairs)
        stuck = {second for first, second in pairs if first == tokens[-1]} == {70, 71, 72}
        assert finish == ("error" if stuck else "length")


@built
def test_rows_whose_drafts_do_not_fit_continue_without_them(model: Llama) -> None:
    params = GenerationParams(max_tokens=12, temperature=0, ignore_eos=True)
    eager = params.replace(speculate=PromptLookup(num_tokens=10, adaptive=False))
    prompts = [[i, 8, 9] * 4 for i in range(8)]
    plain = decode(make_engine(model, token_budget=16), [(prompt, params) for prompt in prompts])
    engine = make_engine(model, token_budget=16)
    ids = [engine.add(prompt, eager) for prompt in prompts]
    tokens: dict[int, list[int]] = {i: [] for i in ids}
    while engine.has_work():
        decoding = [i for i in ids if tokens[i] and engine._requests.get(i) is not None]
        events = engine.step()
        assert {e.request for e in events} >= set(decoding), "a row waited for another's drafts"
        for event in events:
            tokens[event.request] += event.tokens
    assert [tuple(tokens[i]) for i in ids] == [outcome[0][0] for outcome in plain.outcomes]
