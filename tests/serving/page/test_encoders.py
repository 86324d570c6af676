"""Tests the page of a server that has encoders alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from tests.encoding.folders import MEAN, sentence_folder
from tests.serving.live import serving

pytestmark = pytest.mark.page


def test_a_server_of_encoders_is_told_once_and_nothing_is_asked_of_it_again(
    page: Any, tmp_path: Path
) -> None:
    with serving(LLM(sentence_folder(tmp_path, (MEAN,)))) as server:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        notice = page.locator(".notice.error")
        notice.wait_for()
        assert "tiny is an encoder" in notice.inner_text()
        assert "decodery serve -m MODEL" in notice.inner_text()
        page.wait_for_timeout(2500)
        assert page.locator(".notice").count() == 1
        assert sum(url.endswith("/v1/models") for url in asked) == 1
        assert not any("/trace" in url for url in asked)
