"""Checks the flags of chat templates and of control tokens in messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decodery import LLM
from tests.cli.conftest import TEMPLATE, Run, write_model

NAMED = [
    {"name": "default", "template": TEMPLATE},
    {"name": "short", "template": "<|user|>{{ messages[-1].content }}"},
]
MESSAGES = [{"role": "user", "content": "hi<|end|>"}]
SHORT = ["--max-tokens", "1", "--json"]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("named")
    write_model(folder, context=1024)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": NAMED}))
    return str(folder)


def test_a_template_is_the_models_by_name_or_a_file(decodery: Run, named: str, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("[{{ messages[0].content }}]\n")
    llm = LLM(named)
    for template, asked in {"short": "short", str(own): "[{{ messages[0].content }}]"}.items():
        ran = decodery("generate", "hi<|end|>", "-m", named, "--chat", "--template", template, *SHORT)
        assert ran.json["prompt_token_ids"] == llm.chat_prompt(MESSAGES, chat_template=asked)
    arguments = ["-m", named, "--chat", "--special-in-content", *SHORT]
    ids = decodery("generate", "hi<|end|>", *arguments).json["prompt_token_ids"]
    assert ids == llm.chat_prompt(MESSAGES, special_in_content=True) != llm.chat_prompt(MESSAGES)


def test_a_conversation_and_calls_use_the_template(
    decodery: Run, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    prompt = LLM.chat_prompt

    def watched(self: LLM, messages: object, **template: object) -> list[int]:
        seen.append(template)
        return prompt(self, messages, **template)  # type: ignore[arg-type]

    monkeypatch.setattr(LLM, "chat_prompt", watched)
    arguments = ["-m", named, "--template", "short", "--special-in-content", "--max-tokens", "1"]
    assert decodery("chat", *arguments, stdin=b"hi\n").status == 0
    assert seen == [{"chat_template": "short", "special_in_content": True}]
    (tmp_path / "tools.json").write_text('{"type": "function", "function": {"name": "f"}}')
    ran = decodery("generate", "hi", *arguments, "--json", "--chat", "--tools", str(tmp_path / "tools.json"))
    llm = LLM(named)
    tools = [{"type": "function", "function": {"name": "f"}}]
    right = llm.chat_prompt([{"role": "user", "content": "hi"}], tools=tools, chat_template="short")
    assert ran.json["prompt_token_ids"] == right


def test_wrong_templates_are_errors_of_one_line(decodery: Run, named: str, plain_model: str) -> None:
    for arguments, words in {
        ("--template", "long"): "the model has default, short",
        ("--template", "nowhere/own.jinja"): "cannot be read",
    }.items():
        for command in (["generate", "hi", "--chat"], ["chat"]):
            ran = decodery(*command, "-m", named, *arguments, stdin=b"hi\n")
            assert ran.status != 0
            assert words in ran.err
            assert ran.err.count("\n") == 1
    for flag in (["--template", "short"], ["--special-in-content"]):
        ran = decodery("generate", "hi", "-m", named, *flag)
        assert (ran.status, "give --chat too" in ran.err) == (2, True)
    arguments = ["-m", plain_model, "--chat", "--template", "short", *SHORT]
    assert "the model has none" in decodery("generate", "hi", *arguments).err
