"""Provides tiny chat models: one for each format of calls, and one for each way that a prompt ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decodery import LLM
from tests.conversations.models import template, write_chat_model

ChatModel = Callable[..., LLM]


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """Returns a function that opens the model with a format of calls, an ending of the prompt, and marks."""
    opened: dict[tuple[str | None, str, bool, bool], LLM] = {}

    def model(form: str | None = None, ending: str = "", special: bool = True, system: bool = True) -> LLM:
        key = form, ending, special, system
        if key not in opened:
            folder = tmp_path_factory.mktemp("chat")
            path = write_chat_model(folder, template(form, ending=ending, system=system), special=special)
            opened[key] = LLM(path, dtype="float32", kv_memory="16MB")
        return opened[key]

    return model
