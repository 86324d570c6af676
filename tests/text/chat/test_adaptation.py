"""Checks that conversations are adapted to what a chat template can express, and that nothing is dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decodery.errors import RequestError
from decodery.text.chat.adaptation import adapt
from decodery.text.chat.messages import read_messages
from decodery.text.chat.template import render_chat
from decodery.text.chat.template_traits import template_traits
from decodery.text.chat.tools import read_tools

ONE_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ '[S]' + messages[0].content }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[U]' + m.content }}"
    "{% elif m.role == 'assistant' %}{{ '[A]' + m.content }}{% endif %}{% endfor %}"
)
REFUSING = (
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no') }}"
    "{% endif %}{{ m.role + m.content }}{% endfor %}"
)
NATIVE = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}{{ m.role + m.content }}"
    "{% for c in m.tool_calls or [] %}{% set f = c.function %}CALL{% endfor %}{% endfor %}"
)
HERMES = '<tool_call>\n{"name": "{{ f.name }}", "arguments": ARGUMENTS}\n</tool_call>'
WALKING = NATIVE.replace(
    "CALL", "{{ f.name }}{% for k, v in f.arguments.items() %}[{{ k }}={{ v }}]{% endfor %}"
)
DUMPING = NATIVE.replace("CALL", HERMES.replace("ARGUMENTS", "{{ f.arguments | tojson }}"))
PRINTING = NATIVE.replace("CALL", HERMES.replace("ARGUMENTS", "{{ f.arguments }}"))
JOINING = NATIVE.replace("CALL", "{{ f.name + ' ' + f.arguments }}")
NINE = NATIVE.replace(
    "CALL",
    "{% if c.id | length != 9 %}{{ raise_exception('9') }}{% endif %}{{ c.id + f.name }}"
    "{{ f.arguments | tojson }}",
)
CALL = {"id": "call_1", "type": "function", "function": {"name": "get", "arguments": '{"a": "ü"}'}}
HISTORY = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "R1"},
    {"role": "tool", "tool_call_id": "call_1", "content": "R2"},
]
TOOLS = [{"type": "function", "function": {"name": "get", "description": "Gets."}}]


def rendered(template: str, messages: Any, tools: Any = None) -> str:
    adapted = adapt(template, read_messages(messages), read_tools(tools))
    return render_chat(template, adapted.messages, tools=adapted.tools)


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_systems_are_joined_in_front_where_the_template_has_one_place() -> None:
    text = rendered(
        ONE_SYSTEM, [said("system", "x"), said("user", "y"), said("developer", "z"), said("user", "w")]
    )
    assert text == "[S]x\n\nz[U]y[U]w"


def test_systems_stay_where_the_template_writes_them() -> None:
    messages = [said("user", "y"), said("system", "z"), said("user", "w")]
    assert rendered(NATIVE, messages) == "userysystemzuserw"


@pytest.mark.parametrize("template", [ONE_SYSTEM, REFUSING])
def test_a_role_without_a_place_is_named(template: str) -> None:
    with pytest.raises(RequestError) as caught:
        rendered(template, [said("user", "y"), said("critic", "z")])
    assert caught.value.param == "messages[1].role"
    if template is REFUSING:
        with pytest.raises(RequestError) as caught:
            rendered(template, [said("system", "y"), said("user", "z")])
        assert caught.value.param == "messages[0].role"


@pytest.mark.parametrize(
    ("template", "call"),
    [
        (WALKING, "get[a=ü]"),
        (DUMPING, '<tool_call>\n{"name": "get", "arguments": {"a": "ü"}}\n</tool_call>'),
        (PRINTING, '<tool_call>\n{"name": "get", "arguments": {"a": "ü"}}\n</tool_call>'),
        (JOINING, 'get {"a": "ü"}'),
    ],
)
def test_arguments_are_written_as_the_template_expects_them(template: str, call: str) -> None:
    for arguments in ('{"a": "ü"}', {"a": "ü"}):
        history = json.loads(json.dumps(HISTORY))
        for own in history[1]["tool_calls"]:
            own["function"]["arguments"] = arguments
        assert rendered(template, history) == f"userHiassistant{call}{call}toolR1toolR2"
    assert template_traits(template).form is not None or template in (WALKING, JOINING)


def test_ids_become_short_where_the_template_demands_it() -> None:
    text = rendered(NINE, HISTORY)
    assert "call_1" not in text
    assert text.count("get") == 2
    own = json.loads(json.dumps(HISTORY).replace("call_1", "abc123XYZ"))
    assert "abc123XYZget" in rendered(NINE, own)


@pytest.mark.parametrize("template", [ONE_SYSTEM, REFUSING])
def test_calls_and_results_become_texts_where_the_template_has_no_place(template: str) -> None:
    text = rendered(template, HISTORY)
    call = '{"name": "get", "arguments": {"a": "ü"}}'
    results = "Result of get: R1\nResult of get: R2"
    assert text.endswith(f"{call}\n{call}{'[U]' if template is ONE_SYSTEM else 'user'}{results}")


def test_declarations_go_into_the_system_message_where_the_template_takes_none() -> None:
    declaration = (
        '{"name": "get", "description": "Gets.", "parameters": {"type": "object", "properties": {}}}'
    )
    text = rendered(ONE_SYSTEM, [said("system", "Be kind."), said("user", "Hi")], TOOLS)
    assert text.startswith("[S]Be kind.\n\nYou may call functions.")
    assert text.endswith(f"{declaration}[U]Hi")
    assert rendered(ONE_SYSTEM, [said("user", "Hi")], TOOLS).startswith("[S]You may call functions.")
    text = rendered(REFUSING, [said("user", "Hi")], TOOLS)
    assert text.startswith("userYou may call functions.")
    assert text.endswith(f"{declaration}\n\nHi")
    assert "Gets." in rendered(WALKING, [said("user", "Hi")], TOOLS)  # Its calls have an unknown format.


def test_declarations_go_to_a_template_that_takes_them() -> None:
    assert rendered(DUMPING, [said("user", "Hi")], TOOLS).startswith('{"type": "function"')
    assert "You may call" not in rendered(DUMPING, [said("user", "Hi")], TOOLS)


def test_a_template_that_reads_no_messages_gets_the_tools_as_they_are() -> None:
    template = "{% for tool in tools %}{{ tool.function.name }}{% endfor %}"
    assert rendered(template, [said("user", "a")], TOOLS) == "".join(t["function"]["name"] for t in TOOLS)
