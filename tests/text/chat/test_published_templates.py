"""Checks that published chat templates render as transformers renders them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tokenizers

from decodery.errors import DecoderyError
from decodery.text.chat.template import render_chat
from tests.text.archives import llama_cpp_models

pytestmark = pytest.mark.slow


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def reply(content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def function(name: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"name": name, "description": "Does it: é<>&'\"", "parameters": schema}


TOOLS = [
    {
        "type": "function",
        "function": function(
            "get_weather",
            place={"type": "string", "description": "A town"},
            days={"type": "integer", "description": "How many", "enum": [1, 2]},
        ),
    },
    {"type": "function", "function": function("stop")},
]
CALL = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"place": "Köln", "days": 2}},
}
ANSWER = {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": '{"sky": "blue"}'}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "a question": {"messages": [user("Hi")]},
    "a system prompt": {"messages": [system("Be brief."), user("Hi")]},
    "many turns": {"messages": [user("Hi"), reply("Hello!"), user("Well?"), reply("Fine."), user("Good.")]},
    "spaces, no prompt": {
        "messages": [system("  Be kind.\n"), user(" a "), reply("b\n"), user("c")],
        "add_generation_prompt": False,
    },
    "an empty question": {"messages": [user("")]},
    "unicode": {
        "messages": [
            user("für </s> <|im_end|> {{ x }} {% y %} \u2028\r\n\t日本語 😀"),
            reply("e\u0301 ﬁ"),
            user("العربية"),
        ]
    },
    "tools": {"messages": [user("Weather in Köln?")], "tools": TOOLS},
    "a call": {
        "messages": [
            system("Use tools."),
            user("Weather?"),
            reply("", tool_calls=[CALL]),
            ANSWER,
            reply("Blue."),
        ],
        "tools": TOOLS,
        "add_generation_prompt": False,
    },
    "calls without content": {
        "messages": [user("Weather?"), reply(None, tool_calls=[CALL, CALL]), ANSWER, ANSWER],
        "tools": TOOLS,
    },
    "reasoning": {
        "messages": [user("2+2?"), reply("<think>\nhm\n</think>\n\n4", reasoning="hm"), user("And 3+3?")],
        "enable_thinking": True,
    },
}


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = llama_cpp_models(tmp_path_factory.mktemp("llama_cpp")) / "templates"
    found = {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.jinja"))}
    assert len(found) == 70
    return found


@pytest.fixture(scope="module")
def oracle() -> Any:
    transformers = pytest.importorskip("transformers")
    model = tokenizers.models.BPE({"<s>": 0, "</s>": 1}, [])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(model), bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_templates_render_as_in_transformers(name: str, templates: dict[str, str], oracle: Any) -> None:
    rendered = 0
    for title, template in templates.items():
        values = {"add_generation_prompt": True, **copy.deepcopy(CONVERSATIONS[name])}
        messages = values.pop("messages")
        try:
            text = oracle.apply_chat_template(
                copy.deepcopy(messages), chat_template=template, tokenize=False, **copy.deepcopy(values)
            )
        except Exception:  # A template refuses with any error.
            with pytest.raises(DecoderyError):
                render_chat(template, messages, bos_token="<s>", eos_token="</s>", **values)
            continue
        assert render_chat(template, messages, bos_token="<s>", eos_token="</s>", **values) == text, title
        rendered += 1
    assert rendered >= 50
