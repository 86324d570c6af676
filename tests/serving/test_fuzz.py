"""Checks that no body whatever makes the server fail. `python -m tests.serving.fuzz` is the long form."""

from __future__ import annotations

from pathlib import Path

from decodery import LLM
from tests.encoding.folders import encoder_folder
from tests.serving.fuzz import fuzz
from tests.serving.live import LiveServer, serving


def test_whatever_comes_is_answered_or_refused_and_the_next_request_works(server: LiveServer) -> None:
    statuses = fuzz(server, 300, seed=5)
    assert statuses[200] > 20
    assert statuses[400] > 100


def test_whatever_comes_to_an_encoder_is_answered_or_refused_too(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path, "BertForSequenceClassification", num_labels=1)
    with serving(LLM(folder), token_arrays="own") as server:
        statuses = fuzz(server, 300, seed=5)
    assert statuses[200] > 20
    assert statuses[400] > 100
