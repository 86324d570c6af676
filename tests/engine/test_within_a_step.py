"""What functions of the caller, and the collection of what nobody holds, may do in the middle of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from decodery.decoding.params import GenerationParams
from decodery.decoding.strategy import BeamSearch, ContrastiveSearch
from decodery.engine.engine import Engine
from decodery.engine.request import Event
from decodery.errors import RequestError
from decodery.models.llama import Llama
from tests.engine.runs import make_engine, run
from tests.models.tiny import tiny_model

PROMPT = list(range(1, 20))
PLAIN = GenerationParams(max_tokens=16, seed=1)


@pytest.fixture(scope="module")
def model() -> Llama:
    return tiny_model()


def calling(act: Callable[[], None], step: int) -> GenerationParams:
    """Parameters with a processor that acts once, when so many tokens have been generated."""

    def processor(ids: list[int], logits: Any) -> Any:
        if len(ids) == len(PROMPT) + step:
            act()
        return logits

    return PLAIN.replace(logits_processors=(processor,))


def events_of(engine: Engine) -> list[Event]:
    found = []
    while engine.has_work():
        found += engine.step()
        engine.check_integrity()
    return found


@pytest.mark.parametrize("strategy", [None, BeamSearch(3), ContrastiveSearch(3)], ids=str)
@pytest.mark.parametrize("step", [0, 3])
def test_a_request_dropped_within_a_step_is_gone_after_it_and_disturbs_nobody(
    model: Llama, strategy: Any, step: int
) -> None:
    expected = run(make_engine(model), [(PROMPT, PLAIN)])[0][0]
    engine = make_engine(model)
    asked = PLAIN if strategy is None else PLAIN.replace(strategy=strategy)
    other = engine.add(list(range(30)), asked)
    kept = engine.add(PROMPT, calling(lambda: engine.abort(other), step))
    events: list[Event] = []
    while engine.has_work():
        found = engine.step()
        events += found
        engine.check_integrity()
        if other not in engine._requests:
            assert not any(e.request == other for e in found), "a dropped request is told of"
    assert [t for e in events if e.request == kept for t in e.tokens] == expected
    assert engine._scheduler.pages.available == engine.limits.pages


def test_a_step_within_a_step_fails_the_request_that_asks_for_it_alone(model: Llama) -> None:
    expected = run(make_engine(model), [(PROMPT, PLAIN)])[0][0]
    engine = make_engine(model)

    def again() -> None:
        with pytest.raises(RequestError, match="in the middle of a step"):
            engine.step()
        engine.step()

    asking = engine.add(PROMPT, calling(again, 2))
    plain = engine.add(PROMPT, PLAIN)
    events = events_of(engine)
    assert [t for e in events if e.request == plain for t in e.tokens] == expected
    (error,) = (e.error for e in events if e.request == asking and e.finish)
    assert error is not None
    assert "in the middle of a step" in error
