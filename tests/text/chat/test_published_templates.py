"""Checks that published chat templates render as transformers renders them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tokenizers

from decodery.errors import DecoderyError, RequestError
from decodery.text.chat.adaptation import adapt
from decodery.text.chat.messages import read_messages
from decodery.text.chat.template import render_chat
from decodery.text.chat.template_traits import template_traits
from decodery.text.chat.tools import read_tools
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


FORMATS = {
    "Qwen-Qwen2.5-7B-Instruct": "hermes",
    "Qwen-Qwen3-0.6B": "hermes",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "hermes",
    "ibm-granite-granite-4.0": "hermes",
    "meta-llama-Llama-3.1-8B-Instruct": "llama",
    "meta-llama-Llama-3.2-3B-Instruct": "llama",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "unsloth-mistral-Devstral-Small-2507": "mistral-arguments",
    "mistralai-Ministral-3-14B-Reasoning-2512": "mistral-arguments",
    # Formats that are not known, although some have a mark of a known one.
    "Qwen3-Coder": None,
    "GLM-4.6": None,
    "Mistral-Small-3.2-24B-Instruct-2506": None,
    "deepseek-ai-DeepSeek-V3.1": None,
    "microsoft-Phi-3.5-mini-instruct": None,
}


def test_the_formats_of_calls_are_recognized(templates: dict[str, str]) -> None:
    found = {title: template_traits(templates[title]).form for title in FORMATS}
    assert {title: form and form.name for title, form in found.items()} == FORMATS
    assert template_traits(templates["mistralai-Mistral-Nemo-Instruct-2407"]).short_ids


def history(**reply_fields: Any) -> list[dict[str, Any]]:
    """Returns a conversation with a call, its result and a system message."""
    call = {"id": "call_0123456789", "type": "function", "function": {"name": "get_weather"}}
    call["function"]["arguments"] = '{"place": "Bonn", "days": 2}'  # type: ignore[index]
    return [
        system("zqsystem"),
        user("zqquestion"),
        {"role": "assistant", "tool_calls": [call], **reply_fields},
        {"role": "tool", "tool_call_id": "call_0123456789", "content": "zqresult"},
        reply("zqanswer"),
        user("zqlast"),
    ]


def test_a_history_with_calls_is_whole_in_every_template_or_is_refused(
    templates: dict[str, str],
) -> None:
    whole = 0
    for title, template in templates.items():
        tools = read_tools(TOOLS)
        try:
            adapted = adapt(template, read_messages(history(content=None)), tools)
            text = render_chat(template, adapted.messages, tools=adapted.tools)
        except RequestError:
            continue
        for word in ("zqsystem", "zqquestion", "get_weather", "Bonn", "zqresult", "zqanswer", "zqlast"):
            assert word in text, (title, word)
        assert '\\"place' not in text, title
        assert "'place'" not in text, title
        assert text.count("Does it") == 2, title
        whole += 1
    assert whole >= 60


def test_no_content_beside_calls_is_one_prompt_in_every_template(templates: dict[str, str]) -> None:
    empty: list[dict[str, Any]] = [{"content": None}, {"content": ""}, {}, {"content": []}]
    for title, template in templates.items():
        texts = set()
        for fields in empty:
            try:
                adapted = adapt(template, read_messages(history(**fields)), read_tools(TOOLS))
                texts.add(render_chat(template, adapted.messages, tools=adapted.tools))
            except RequestError as error:
                texts.add(str(error))
        assert len(texts) == 1, title
