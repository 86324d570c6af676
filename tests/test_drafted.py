"""Checks that the engine's drafts change nothing, whatever a request asks for and whatever runs beside it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM, ContrastiveDecoding, DoLa, GenerationParams, PromptLookup, Regex
from decodery.decoding.request.speculation_params import Auto
from tests.cli.conftest import write_model
from tests.combinations import features
from tests.drafted import Asked, Law, generated, law, requests, shares
from tests.kernels.native.fixtures import built
from tests.mixed import random_prompt

pytestmark = built


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Law:
    return law(write_model(tmp_path_factory.mktemp("tiny")), 100, seed=5)


def check_sources(llm: LLM, least: float) -> None:
    """Raises `AssertionError` unless each source gave at least this share of the tokens."""
    found = shares(llm)
    assert min(found.values()) >= least, found


def test_alone_a_request_with_drafts_gives_what_it_gives_plainly(some: Law) -> None:
    llm = some.alone()
    check_sources(llm, 0.02)
    assert llm.engine.statistics().prefix_hits > 0


def test_among_others_on_few_pages_and_streamed_it_gives_the_same(some: Law) -> None:
    llm = some.together(seed=1)
    check_sources(llm, 0.02)
    assert llm.engine.preemptions > 0


@pytest.mark.parametrize("speculate", [Auto(), PromptLookup()], ids=str)
def test_a_contrast_with_a_grammar_gives_the_same_with_drafts(tmp_path: Path, speculate: Any) -> None:
    folder = write_model(tmp_path)
    source = random.Random(1)
    strategies = (
        ContrastiveDecoding(folder, alpha=0.9),
        ContrastiveDecoding(folder),
        DoLa("low"),
        DoLa("low"),
    )
    listed = [
        Asked(
            random_prompt(source),
            GenerationParams(
                max_tokens=30,
                temperature=source.choice((0, 0.5)),
                seed=1,
                strategy=source.choice(strategies),
                grammar=Regex(source.choice(("([a-e]{2} )+", "(ab|cd|[x-z])+"))),
                speculate=speculate,
            ),
        )
        for _ in range(16)
    ]
    listed *= 2
    plain = LLM(folder, dtype="float32", backend="native")
    found = Law(folder, listed, [generated(plain, asked, speculate=None) for asked in listed])
    assert all(one.error is None for one in found.plain)
    assert found.alone().engine.statistics().accepted > 50


def test_the_requests_are_of_every_kind() -> None:
    listed = requests(random.Random(0), features("second"), 2000)
    params = [asked.params for asked in listed]
    defaults = vars(GenerationParams())
    differing = Counter(
        name for one in params for name, value in vars(one).items() if value != defaults[name]
    )
    never = {name for name in defaults if differing[name] < 10}
    # Their values are given with another field.
    assert never == {
        *("penalize_prompt", "mirostat_tau", "mirostat_eta", "xtc_threshold", "dynatemp_exponent"),
        *("dry_base", "dry_allowed_length", "dry_range", "dry_sequence_breakers", "prompt_logprobs_start"),
    }
    assert sum(isinstance(one.speculate, Auto) for one in params) > 1600
    assert sum(isinstance(one.speculate, PromptLookup) for one in params) > 10
    assert sum(asked.closed_after is not None for asked in listed) > 100
    assert len({asked.salt for asked in listed}) == 3


@pytest.mark.slow
def test_two_thousand_requests_give_what_they_give_plainly(tmp_path: Path) -> None:
    found = law(write_model(tmp_path), 2000, seed=0)
    check_sources(found.alone(), 0.05)
    llm = found.together(seed=0)
    check_sources(llm, 0.04)
    assert llm.engine.preemptions > 50
    apart = shares(found.together(seed=1, remember_texts=False))
    assert apart.pop("earlier texts") == 0
    assert min(apart.values()) >= 0.02, apart
