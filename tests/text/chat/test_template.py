from __future__ import annotations

import json
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from decodery.errors import ModelError, RequestError
from decodery.text.chat.template import MAX_TEMPLATE, render_chat

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# The idioms of published templates, one in each line of TEMPLATES.
TEMPLATES = {
    "chatml": CHATML,
    "alternation": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system = '<<SYS>>\n' ~ messages[0]['content'].strip() ~ '\n<</SYS>>\n\n' %}{% else %}"
        "{% set loop_messages = messages %}{% set system = '' %}{% endif %}{% for m in loop_messages %}"
        "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('must alternate') }}{% endif %}"
        "{% if m['role'] == 'user' %}"
        "{{ '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "blocks and comments": (
        "{# a comment #}\n{%- set ns = namespace(found=false, texts=[]) -%}\n"
        "{%- for message in messages %}\n    {%- if message.role == 'user' %}\n        "
        "{%- set ns.found = true %}\n"
        "        {%- set ns.texts = ns.texts + [message.content | upper] %}\n    {%- endif %}\n"
        "{%- endfor %}\n"
        "{{- ns.texts | join(', ') }}{% if ns.found %} yes{% endif %}\n    {% if not ns.found %}no"
        "{% endif %}\n"
    ),
    "tools": (
        "{%- if tools %}\n{{- 'Tools:\n' }}{%- for tool in tools %}{{- tool | tojson }}\n"
        "{{ tool.function | tojson(indent=4) }}{{ tool['function']['name'] | replace('_', ' ') | title }}"
        "{% for name, kind in tool.function.parameters.items() %}{{ loop.index }}:{{ name }}={{ kind }};"
        "{% endfor %}{%- endfor %}{%- endif %}{{ tools is not none and tools is iterable }}"
        "{{ tools | length }}"
    ),
    "macros": (
        "{% macro turn(role, text='') %}<{{ role }}>{{ text }}{{ caller() if caller else '' }}</{{ role }}>"
        "{% endmacro %}{% for m in messages if m.role != 'system' %}{{ turn(m.role, m.content) }}{% endfor %}"
        "{% call turn('x') %}called{% endcall %}{% set block %}{{ turn('y') }}!{% endset %}"
        "{{ block | length }}"
    ),
    "loop controls": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% continue %}{% endif %}{{ loop.index }}/"
        "{{ loop.length }}{{ ' last' if loop.last }}{% if loop.index == 2 %}{% break %}{% endif %}"
        "{{ loop.previtem.role if loop.previtem is defined }}{{ loop.cycle('a', 'b') }}{% else %}none"
        "{% endfor %}"
    ),
    "thinking": (
        "{% for m in messages %}{% set content = m.content.split('</think>')[-1].lstrip('\n') %}"
        "{% if '</think>' in m.content and not loop.last %}{{ content }}{% else %}{{ m.content }}{% endif %}"
        "{{ m.get('name', 'anon') }}{{ m['missing'] }}{{ m.content[:3] }}{{ m.content[::-1] | e }}"
        "{% endfor %}"
    ),
    "recursion": (
        "{% for item in [{'n': 1, 'kids': [{'n': 2}, {'n': 3}]}] recursive %}{{ item.n }}"
        "{% if item.kids %}({{ loop(item.kids) }}){% endif %}{% endfor %}"
    ),
    "expressions": (
        "{{ (1, 2.5, none, true, 'x', [1, 'b'], {'k': 2}) }}{{ 7 // 2 + 2 ** 3 * 2 % 5 - 1 / 4 }}"
        "{{ '%s=%05.1f' % ('a', 3.14159) }}{{ '{0}-{b:>4}'.format('x', b='y') }}{{ 'a' if false }}"
        "{{ [3, 1, 2] | sort | reverse | list }}{{ messages | map(attribute='role') | unique | join('+') }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ 'x' * 3 ~ 4 ~ none }}"
        "{{ {'b': 1, 'a': 2} | dictsort }}{{ [1, 2] | sum }}{{ 2.567 | round(1) }}{{ 'a\nb' | indent(2) }}"
        "{{ range(3) | list }}{{ undefined_thing | default('d') }}{{ undefined_thing is defined }}"
    ),
    "filter block": "{% filter upper %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfilter %}",
    "unpacking": (
        "{% set a, b = 1, 2 %}{% for x, (y, z) in [(1, (2, 3)), (a, (b, a))] %}{{ x + y * z }}{% endfor %}"
    ),
}
MESSAGES = [
    {"role": "system", "content": "  Be <b>brief</b> & kind. "},
    {"role": "user", "content": "Hi\nthere"},
    {"role": "assistant", "content": "<think>hm</think>\n\nHello {{ no }} 'quoted'"},
    {"role": "user", "content": "日本 😀", "name": "Tom"},
]
TOOLS = [
    {"type": "function", "function": {"name": "get_the_time", "parameters": {"zone": "é<>&'", "n": [1]}}}
]


def plainly(template: str, **values: Any) -> str:
    """Returns the text that Jinja's own sandbox renders, set up for chat templates and without limits."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    return environment.from_string(template).render(**values)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", [True, False])
def test_templates_render_as_in_an_unbounded_sandbox(name: str, prompt: bool) -> None:
    template = TEMPLATES[name]
    values = {"add_generation_prompt": prompt, "tools": TOOLS, "bos_token": "<s>", "eos_token": "</s>"}
    text = render_chat(template, MESSAGES, **values)  # type: ignore[arg-type]
    assert text == plainly(template, messages=MESSAGES, **values)
    assert text


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text()), min_size=1, max_size=4))
def test_content_is_never_read_as_a_template(turns: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    expected = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    assert render_chat(CHATML, messages, add_generation_prompt=False) == expected


def test_generation_marks_are_tolerated() -> None:
    template = (
        "{% for m in messages %}{% generation %}{{ m.content }}{% set x = 1 %}{% endgeneration %}{% endfor %}"
    )
    assert (
        render_chat(template, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        == "ab"
    )


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert render_chat("{{ messages[0].content }}", [{"role": "user", "content": parts}]) == "ab"


def test_variables_reach_the_template_and_what_is_not_given_is_none() -> None:
    template = "{{ thinking }} {{ tools is none }} {{ documents is none }} {{ other is defined }}"
    assert render_chat(template, MESSAGES, thinking=True) == "True True True False"


def test_a_call_of_a_tool_needs_no_content() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    assert render_chat("{{ messages[0].tool_calls[0].function.name }}", [message]) == "f"


def test_a_key_without_a_value_counts_as_missing() -> None:
    message = {"role": "assistant", "content": None, "name": None, "tool_calls": [{"function": {"x": None}}]}
    template = "{% for key in messages[0] %}{{ key }} {% endfor %}{{ messages[0].tool_calls[0].function }}"
    assert render_chat(template, [message]) == "role tool_calls {'x': None}"


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_reaches_a_template_under_both_names_that_templates_read(name: str) -> None:
    message = {"role": "assistant", "content": "4", name: "2 and 2"}
    template = "{{ messages[0].reasoning_content }}, {{ messages[0].thinking }}"
    assert render_chat(template, [message]) == "2 and 2, 2 and 2"
    both = {**message, "reasoning_content": "first", "thinking": "own"}
    assert render_chat(template, [both]) == "first, own"


def test_the_callers_messages_are_out_of_a_templates_reach() -> None:
    messages = [{"role": "user", "content": "a", "list": [1]}]
    for attempt in ("messages[0].update(a=1)", "messages.append(1)", "dict.update(messages[0], {'a': 1})"):
        with pytest.raises(RequestError, match=r"SecurityError|UndefinedError"):
            render_chat("{{ " + attempt + " }}", messages)
    assert messages == [{"role": "user", "content": "a", "list": [1]}]


def test_what_a_template_refuses_is_the_requests_error() -> None:
    with pytest.raises(RequestError, match=r"refuses this conversation: must alternate$"):
        render_chat(TEMPLATES["alternation"], [MESSAGES[1], MESSAGES[3]])


def test_a_model_without_a_template_says_what_to_do() -> None:
    for nothing in (None, ""):
        with pytest.raises(RequestError, match=r"no chat template: give it a plain prompt"):
            render_chat(nothing, MESSAGES)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a\n{% for x %}", r"not valid, line 2: "),
        ("{{ x | urlize }}", r"No filter named 'urlize'"),
        ("{{ " + "(" * 3000 + ")" * 3000 + " }}", r"cannot be compiled: maximum recursion"),
        ("{{ " + "9" * 9000 + " }}", r"cannot be compiled"),
        ("x" * (MAX_TEMPLATE + 1), r"more than 64000 are not read"),
    ],
)
def test_a_template_that_is_not_valid_is_the_models_error(template: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        render_chat(template, MESSAGES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content.nothing.more }}",
        "{{ 1 / 0 }}",
        "{% include 'x' %}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_a_template_that_fails_is_one_clear_error(template: str) -> None:
    with pytest.raises(RequestError, match=r"chat template failed on this conversation: \w+: ") as caught:
        render_chat(template, MESSAGES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "at least one message"),
        ("Hi", "must be a list"),
        ({"role": "user", "content": "Hi"}, "must be a list"),
        (["Hi"], "message 0 must be a dict with a role"),
        ([{"content": "Hi"}], "message 0 must be a dict with a role"),
        ([MESSAGES[0], {"role": "user"}], "content of message 1 must be a string or a list"),
        ([{"role": "user", "content": 3}], "content of message 0 must be"),
        ([{"role": "user", "content": None}], "content of message 0 must be"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "a part that is not"),
        ([{"role": "user", "content": ["Hi"]}], "a part that is not"),
        ([{"role": "user", "content": "Hi", "image": object()}], "message 0 holds a object"),
        ([{"role": "user", "content": "x" * 4_000_001}], "longer than 4000000"),
    ],
)
def test_malformed_messages_are_one_clear_error(messages: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        render_chat(CHATML, messages)


def test_a_message_that_contains_itself_is_an_error() -> None:
    message: dict[str, Any] = {"role": "user", "content": "Hi"}
    message["me"] = [message]
    with pytest.raises(RequestError, match="nested more than 64 levels"):
        render_chat(CHATML, [message])
