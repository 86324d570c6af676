from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, write_model

TOOL = {
    "type": "function",
    "function": {
        "name": "pick",
        "parameters": {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"]},
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a model whose context holds the declarations of tools."""
    return write_model(tmp_path_factory.mktemp("long"), context=1024)


@pytest.fixture
def tools(tmp_path: Path) -> str:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps([TOOL]), encoding="utf-8")
    return str(path)


def test_a_required_call_is_one_line_of_json(decodery: Run, model: str, tools: str) -> None:
    flags = ["-m", model, "--chat", "--tools", tools, "--temperature", "0", "--max-tokens", "200"]
    for choice in ("required", "pick"):
        ran = decodery("generate", "hello", *flags, "--tool-choice", choice)
        assert ran.status == 0, ran.err
        call = json.loads(ran.out.strip())
        assert call["name"] == "pick"
        assert json.loads(call["arguments"]) == {"a": 1}
    ran = decodery("generate", "hello", *flags, "--tool-choice", "required", "--json")
    (completion,) = json.loads(ran.out)["completions"]
    assert completion["finish_reason"] == "tool_calls"
    assert completion["tool_calls"][0]["name"] == "pick"


def test_wrong_tools_are_one_clear_line(decodery: Run, model: str, tools: str, tmp_path: Path) -> None:
    ran = decodery("generate", "hello", "-m", model, "--tools", tools)
    assert (ran.status, ran.out) == (2, "")
    assert "--chat" in ran.err
    ran = decodery("generate", "hello", "-m", model, "--chat", "--tools", tools, "--tool-choice", "nope")
    assert ran.status != 0
    assert "none of the tools" in ran.err
    broken = tmp_path / "broken.json"
    broken.write_text("[", encoding="utf-8")
    ran = decodery("generate", "hello", "-m", model, "--chat", "--tools", str(broken))
    assert ran.status == 2
    assert "JSON" in ran.err
