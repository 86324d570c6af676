"""Tests `/trace` with a suffix: a text that stands between two others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decodery import LLM, GenerationParams
from tests.cli.conftest import write_coder
from tests.serving.live import LiveServer, serving
from tests.serving.test_trace_route import lines_of, refused

PARAMS = {"max_tokens": 9, "seed": 3}


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return LLM(write_coder(tmp_path_factory.mktemp("coder")), dtype="float32", kv_memory="16MB")


@pytest.fixture(scope="module")
def filling(coder: LLM) -> Iterator[LiveServer]:
    with serving(coder) as found:
        yield found


def test_a_text_is_filled_in_and_goes_on_from_its_ids(filling: LiveServer, coder: LLM) -> None:
    expected = coder.infill("a = ", "return a", GenerationParams(**PARAMS))  # type: ignore[arg-type]
    asked = {"prompt": "a = ", "suffix": "return a", "params": PARAMS}
    header, *_, output, _ = lines_of(filling, requests=[asked], candidates=1)
    ids = expected.completions[0].token_ids
    assert output["output"]["completions"][0]["token_ids"] == ids
    [told] = header["requests"]
    assert told["prompt_token_ids"] == expected.prompt_token_ids
    assert coder.tokenizer.token_id("<|fim_pad|>") in told["params"]["stop_token_ids"]
    further = {"prompt": told["prompt_token_ids"] + ids[:4], "params": told["params"], "generated": 4}
    *_, output, _ = lines_of(filling, requests=[further], candidates=1)
    assert output["output"]["completions"][0]["token_ids"] == ids[4:]


def test_either_side_may_be_empty_but_not_both(filling: LiveServer) -> None:
    for prompt, suffix in (("", "b"), ("a", "")):
        lines_of(filling, requests=[{"prompt": prompt, "suffix": suffix, "params": PARAMS}])
    assert refused(filling, requests=[{"prompt": "", "suffix": ""}])["param"] == "requests[0].prompt"
    assert refused(filling, requests=[{"prompt": [65], "suffix": "b"}])["param"] == "requests[0].suffix"


def test_a_model_says_if_it_can_fill_in(filling: LiveServer, library: LLM) -> None:
    assert filling.client.get("/trace").json()["can_infill"] is True
    assert library.intake.can_infill is False
