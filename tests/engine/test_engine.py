from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.engine.batch import Batch
from decodery.engine.captured_steps import States
from decodery.engine.engine import Engine
from decodery.errors import ParameterError, RequestError
from decodery.models.decoders.llama import Llama
from tests.engine.runs import Job, make_engine, run
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model, tiny_model

VOCAB = 97


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


def mixed_jobs() -> list[Job]:
    """Returns 32 requests of 1 to 600 tokens. A third share a long beginning; their processors differ."""
    rng = random.Random(0)
    shared = [rng.randrange(VOCAB) for _ in range(300)]
    variants: list[dict[str, object]] = [
        {"temperature": 0},
        {"temperature": 0, "repetition_penalty": 1.3},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 1.2, "top_k": 20, "presence_penalty": 0.4},
        {"min_p": 0.05, "frequency_penalty": 0.3},
        {"temperature": 0.7, "n": 3},
        {"logit_bias": {5: 2.0}, "min_tokens": 4, "stop_token_ids": [5]},
        {},
    ]
    jobs: list[Job] = []
    lengths = [1, 2, 15, 16, 17, 600, 33, 64, 128, 129, 300, 350]
    for i in range(32):
        length = lengths[i % len(lengths)]
        own = [rng.randrange(VOCAB) for _ in range(length)]
        prompt = [*shared[: length * 3 // 4], *own[: length - length * 3 // 4]] if i % 3 == 0 else own
        params = GenerationParams(max_tokens=rng.randrange(4, 24), seed=i, **variants[i % len(variants)])  # type: ignore[arg-type]
        jobs.append((prompt, params))
    return jobs


@pytest.fixture(scope="module")
def alone(model: Llama) -> list[list[list[int]]]:
    return [run(make_engine(model), [job])[0] for job in mixed_jobs()]


@built
def test_batched_equals_alone(model: Llama, alone: list[list[list[int]]]) -> None:
    assert run(make_engine(model, pages=2000), mixed_jobs()) == alone


@built
def test_any_order_equals_alone(model: Llama, alone: list[list[list[int]]]) -> None:
    order = list(range(32))
    random.Random(1).shuffle(order)
    jobs = mixed_jobs()
    shuffled = run(make_engine(model, pages=2000), [jobs[i] for i in order])
    assert shuffled == [alone[i] for i in order]


@built
def test_a_token_budget_of_16_equals_alone(model: Llama, alone: list[list[list[int]]]) -> None:
    assert run(make_engine(model, pages=2000, token_budget=16), mixed_jobs()) == alone


@built
@pytest.mark.parametrize("prefix_cache", [True, False])
def test_preemption_equals_alone(model: Llama, alone: list[list[list[int]]], prefix_cache: bool) -> None:
    # Without the prefix cache, preempted streams share no pages afterwards, and need many more.
    which = [i for i, (_, params) in enumerate(mixed_jobs()) if prefix_cache or params.n == 1]
    jobs = [mixed_jobs()[i] for i in which]
    limits = make_engine(model, prefix_cache=prefix_cache).limits
    fewest = max(limits.pages_needed(len(prompt), params) for prompt, params in jobs)
    preemptions = 0
    for spare in range(4):
        engine = make_engine(model, pages=fewest + spare, token_budget=64, prefix_cache=prefix_cache)
        assert run(engine, jobs) == [alone[i] for i in which]
        preemptions += engine.preemptions
    assert preemptions > 0, "the test needs scarcer pages"


@built
def test_prefix_hits_equal_alone(model: Llama, alone: list[list[list[int]]]) -> None:
    engine = make_engine(model, pages=2000)
    assert run(engine, mixed_jobs()) == alone
    assert run(engine, mixed_jobs()) == alone
    assert run(make_engine(model, pages=2000, prefix_cache=False), mixed_jobs()) == alone


@built
def test_arrivals_over_time_equal_alone(model: Llama, alone: list[list[list[int]]]) -> None:
    engine = make_engine(model, pages=300, token_budget=100)
    jobs = mixed_jobs()
    rng = random.Random(2)
    tokens: dict[int, list[list[int]]] = {}
    todo = list(range(32))
    while todo or engine.has_work():
        if todo and rng.random() < 0.5:
            prompt, params = jobs[todo.pop(0)]
            tokens[engine.add(prompt, params)] = [[] for _ in range(params.n)]
        for event in engine.step():
            tokens[event.request][event.stream] += event.tokens
    assert list(tokens.values()) == alone


def test_a_second_run_of_a_prompt_computes_only_what_is_new(model: Llama) -> None:
    engine = make_engine(model)
    prompt = [i % VOCAB for i in range(200)]
    params = GenerationParams(max_tokens=1, temperature=0)
    run(engine, [(prompt, params)])
    engine.add(prompt, params)
    batch = engine._scheduler.schedule({})
    assert [chunk.count for chunk in batch.chunks] == [200 - 192]


def test_streams_share_the_pages_of_their_prompt(model: Llama) -> None:
    engine = make_engine(model, pages=20, prefix_cache=False)
    prompt = [i % VOCAB for i in range(160)]
    params = GenerationParams(max_tokens=8, n=9, seed=1)
    with pytest.raises(RequestError, match="kv_memory"):
        engine.add(prompt, params)
    sharing = make_engine(model, pages=20)
    assert len({tuple(s) for s in run(sharing, [(prompt, params)])[0]}) == 9


@built
def test_streams_survive_preemption_and_share_again(model: Llama) -> None:
    jobs: list[Job] = [
        ([i % 50 for i in range(100)], GenerationParams(max_tokens=40, seed=1)),
        ([i % 40 for i in range(90)], GenerationParams(max_tokens=40, n=4, seed=2)),
    ]
    unbounded = run(make_engine(model), jobs)
    for budget in (8, 64, 512):
        scarce = make_engine(model, pages=22, token_budget=budget)
        assert run(scarce, jobs) == unbounded
        assert scarce.preemptions > 0


@built
def test_an_aborted_request_leaves_nothing_and_disturbs_nobody(model: Llama) -> None:
    job: Job = ([1, 2, 3] * 20, GenerationParams(max_tokens=12, seed=3))
    expected = run(make_engine(model), [job])[0][0]
    engine = make_engine(model)
    kept = engine.add(*job)
    dropped = engine.add([4] * 100, GenerationParams(max_tokens=50, n=2))
    waiting = engine.add([5] * 100, GenerationParams())
    tokens: list[int] = []
    for step in range(100):
        for event in engine.step():
            assert event.request == kept or step < 3
            if event.request == kept:
                tokens += event.tokens
        if step == 2:
            engine.abort(dropped)
            engine.abort(waiting)
            engine.abort(waiting)
        engine.check_integrity()
    assert tokens == expected
    assert not engine.has_work()
    assert engine._scheduler.pages.available == 400


@built
def test_prompt_logprobs_are_the_same_whole_and_chunked(model: Llama) -> None:
    prompt = [i * 7 % VOCAB for i in range(150)]
    params = GenerationParams(max_tokens=1, temperature=0, prompt_logprobs=2)
    found = []
    for budget in (512, 16):
        engine = make_engine(model, token_budget=budget)
        for _ in range(2):
            engine.add(prompt, params)
            event: Event | None = None
            while engine.has_work():
                event = next(iter(engine.step()), None)
            assert event is not None
            found.append(event.prompt_logprobs)
    assert found[0] is not None
    assert all(logprobs == found[0] for logprobs in found)


def test_prompt_logprobs_are_those_of_a_dense_pass() -> None:
    model = tiny_model(max_position_embeddings=1024)
    prompt = [i * 7 % VOCAB for i in range(150)]
    engine = make_engine(model)
    engine.add(prompt, GenerationParams(max_tokens=1, temperature=0, prompt_logprobs=2))
    found = [event.prompt_logprobs for event in alone_events(engine)][-1]
    assert found is not None
    with torch.no_grad():
        reference = model(torch.tensor([prompt])).double().log_softmax(-1)[0]
    assert found[0] is None
    for position, entry in enumerate(found[1:], 1):
        assert entry is not None
        assert entry.token == prompt[position]
        assert entry.logprob == pytest.approx(float(reference[position - 1, entry.token]), abs=1e-4)
        assert len(entry.top) == 2


def test_a_prompt_as_long_as_the_context_gets_one_token(model: Llama) -> None:
    prompt = [1] * model.context_length
    assert [len(s) for s in run(make_engine(model), [(prompt, GenerationParams(max_tokens=5))])[0]] == [1]


@pytest.mark.parametrize(
    ("prompt", "params", "match"),
    [
        ([], {}, "empty"),
        ([VOCAB], {}, "token 97"),
        ([-1], {}, "token -1"),
        ([1] * 1025, {}, "context"),
        ([1] * 500, {"max_tokens": 400}, "kv_memory of at least"),
        ([1], {"n": 257}, "runs 257 sequences"),
        ([1], {"logit_bias": {VOCAB: 1.0}}, "logit_bias"),
        ([1], {"stop_token_ids": [VOCAB]}, "stop_token_ids"),
    ],
)
def test_what_can_never_run_is_refused_at_once(
    model: Llama, prompt: list[int], params: dict[str, object], match: str
) -> None:
    engine = make_engine(model, pages=40)
    with pytest.raises((RequestError, ParameterError), match=match) as error:
        engine.add(prompt, GenerationParams(**params))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert not engine.has_work()


def test_the_figure_of_a_refusal_would_fit(model: Llama) -> None:
    params = GenerationParams(max_tokens=400, n=3, temperature=0)
    prompt = [1] * 500
    needed = make_engine(model).limits.pages_needed(len(prompt), params)
    with pytest.raises(RequestError):
        make_engine(model, pages=needed - 1).add(prompt, params)
    assert len(run(make_engine(model, pages=needed), [(prompt, params)])[0][0]) == 400


def test_a_request_whose_scores_are_not_numbers_fails_alone(model: Llama) -> None:
    engine = make_engine(model)
    banned = {i: -float("inf") for i in range(VOCAB)}
    good = engine.add([1, 2], GenerationParams(max_tokens=3, seed=0))
    bad = engine.add([1, 2], GenerationParams(n=2, logit_bias=banned))
    events: list[Event] = []
    while engine.has_work():
        events += engine.step()
        engine.check_integrity()
    assert [(e.finish, e.stream) for e in events if e.request == bad] == [("error", 0), ("error", 1)]
    assert sum(len(e.tokens) for e in events if e.request == good) == 3


@built
def test_a_request_with_explain_has_events_with_every_choice(model: Llama) -> None:
    job: Job = ([3, 4, 5], GenerationParams(max_tokens=6, top_k=5, seed=9, n=2))
    expected = run(make_engine(model), [job])[0]
    engine = make_engine(model)
    seen: list[Event] = []
    explained = engine.add(*job, explain=10)
    other = engine.add(*job)
    while engine.has_work():
        seen += engine.step()
    assert not any(e.considered for e in seen if e.request == other)
    seen = [e for e in seen if e.request == explained]
    for stream in range(2):
        choices = [c for e in seen if e.stream == stream for c in e.considered]
        assert [c.token for c in choices] == expected[stream]
        assert all(c.kept >= 5 and len(c.candidates) >= 10 for c in choices)


@built
def test_a_fork_leaves_its_parent_unchanged(model: Llama) -> None:
    engine = make_engine(model)
    one = run(engine, [([5] * 20, GenerationParams(max_tokens=30, n=1, seed=4))])[0][0]
    many = run(engine, [([5] * 20, GenerationParams(max_tokens=30, n=5, seed=4))])[0]
    assert many[0] == one


@built
def test_prompt_logprobs_survive_preemption_in_mid_prompt(model: Llama) -> None:
    params = GenerationParams(max_tokens=2, temperature=0, prompt_logprobs=1)
    prompt = [i * 7 % VOCAB for i in range(200)]
    alone = make_engine(model)
    alone.add(prompt, params)
    expected = [event.prompt_logprobs for event in alone_events(alone)][-1]
    engine = make_engine(model, pages=17, token_budget=8)
    engine.add([3] * 50, GenerationParams(max_tokens=150, seed=1))
    second = engine.add(prompt, params)
    events = [event for event in alone_events(engine) if event.request == second]
    assert engine.preemptions > 0
    assert events[-1].prompt_logprobs == expected


def alone_events(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while engine.has_work():
        events += engine.step()
        engine.check_integrity()
    return events


@built
def test_two_requests_of_one_prompt_never_hold_it_twice_for_long(model: Llama) -> None:
    prompt = [i % VOCAB for i in range(160)]
    params = [GenerationParams(max_tokens=40, n=4, seed=seed) for seed in (1, 2)]
    expected = run(make_engine(model), [(prompt, p) for p in params])
    needed = make_engine(model).limits.pages_needed(len(prompt), params[0])
    for budget in (8, 64, 512):
        for spare in range(3):
            engine = make_engine(model, pages=needed + spare, token_budget=budget)
            assert run(engine, [(prompt, p) for p in params]) == expected


@built
def test_an_interrupted_step_owes_its_copies(model: Llama) -> None:
    job: Job = ([5] * 20, GenerationParams(max_tokens=20, n=3, seed=4))
    expected = run(make_engine(model), [job])[0]
    engine = make_engine(model)
    engine.add(*job)
    tokens: list[list[int]] = [[], [], []]
    interrupts = iter([False, True] * 3)
    hidden = engine._runner.hidden

    def interrupted(batch: Batch, layers: Iterable[int] = ()) -> States:
        if next(interrupts, False):
            raise KeyboardInterrupt
        return hidden(batch, layers)

    engine._runner.hidden = interrupted  # type: ignore[method-assign]
    while engine.has_work():
        try:
            for event in engine.step():
                assert event.stream is not None
                tokens[event.stream] += event.tokens
        except KeyboardInterrupt:
            engine.check_integrity()
    assert tokens == expected


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int, int, bool, int]]:
    """Draws requests as (prompt length, max_tokens, n, with prompt_logprobs, steps before the next one)."""
    entry = st.tuples(
        st.integers(1, 90), st.integers(1, 20), st.integers(1, 3), st.booleans(), st.integers(0, 4)
    )
    return draw(st.lists(entry, min_size=2, max_size=6))


@built
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories(), st.integers(0, 4), st.sampled_from([4, 16, 128]), st.integers(0, 5), st.booleans())
def test_any_history_of_requests_gives_what_each_gives_alone(
    model: Llama,
    history: list[tuple[int, int, int, bool, int]],
    spare: int,
    budget: int,
    aborted: int,
    drafts: bool,
) -> None:
    jobs: list[tuple[Job, int]] = []
    for i, (length, most, n, scored, wait) in enumerate(history):
        params = GenerationParams(
            max_tokens=most,
            n=n,
            seed=i,
            prompt_logprobs=0 if scored else None,
            speculate="auto" if drafts else None,
        )
        jobs.append((([j % 7 for j in range(length)], params), wait))
    fewest = max(make_engine(model).limits.pages_needed(len(p), params) for (p, params), _ in jobs)
    engine = make_engine(model, pages=fewest + spare, token_budget=budget)
    events: dict[int, list[Event]] = {}
    for i, (job, wait) in enumerate(jobs):
        events[engine.add(*job)] = []
        for step in range(wait if i < len(jobs) - 1 else 10_000):
            if step == 1 and i == aborted:
                engine.abort(i)
            if not engine.has_work():
                break
            for event in engine.step():
                events[event.request].append(event)
            engine.check_integrity()
    assert not engine.has_work()
    for i, (job, _) in enumerate(jobs):
        alone = make_engine(model)
        alone.add(job[0], job[1].replace(speculate=None))
        found = streams_of(events[i])
        for stream, whole in streams_of(alone_events(alone)).items():
            mine = found.get(stream, [])
            assert mine == (whole[: len(mine)] if i == aborted else whole)


def streams_of(events: Iterable[Event]) -> dict[int | None, list[object]]:
    """Returns each stream's tokens, with the prompt's log-probabilities, and the reason that ended it."""
    found: dict[int | None, list[object]] = {}
    for event in events:
        stream = found.setdefault(event.stream, [])
        stream += [(token, event.prompt_logprobs) for token in event.tokens]
        stream += [event.finish] if event.finish else []
    return found


def test_streams_share_what_another_request_computed_at_the_same_time(model: Llama) -> None:
    prompt = [i * 7 % VOCAB for i in range(64)]
    engine = make_engine(model, pages=24)
    engine.add([3], GenerationParams(max_tokens=380, temperature=0))
    last = before = 0
    for step in range(2000):
        # Shortly before the first request needs most pages, both others start in the same step.
        if step == 16 * 14 - 2:
            engine.add(prompt, GenerationParams(max_tokens=60, n=2, seed=5))
            last = engine.add(prompt, GenerationParams(max_tokens=160, n=2, seed=1))
        if step > 300 and not engine.has_work():
            break
        engine.step()
        engine.check_integrity()
        if len(engine._requests) > 1 or not last:
            before = engine.preemptions
    assert engine.preemptions == before > 0, "it fits alone and was preempted"
    assert not engine.has_work()


@built
def test_never_more_sequences_run_than_allowed(model: Llama) -> None:
    jobs: list[Job] = [
        ([i + 1] * 20, GenerationParams(max_tokens=6, n=1 + i % 3, seed=i, temperature=1.0)) for i in range(8)
    ]
    expected = run(make_engine(model), jobs)
    engine = make_engine(model, max_sequences=3)
    ids = [engine.add(*job) for job in jobs]
    tokens = {(i, s): list[int]() for i, (_, p) in zip(ids, jobs, strict=True) for s in range(p.n)}
    most = 0
    while engine.has_work():
        for event in engine.step():
            tokens[event.request, event.stream] += event.tokens
        most = max(most, sum(len(r.sequences) for r in engine._scheduler.running))
    assert most == 3
    assert [tokens[i, s] for i, s in tokens] == [stream for request in expected for stream in request]
