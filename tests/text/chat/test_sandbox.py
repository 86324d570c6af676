from __future__ import annotations

import time

import pytest

from decodery.errors import ModelError, RequestError
from decodery.text.chat import budget
from decodery.text.chat.template import render_chat

MESSAGES = [{"role": "user", "content": "Hi"}]
TWINS = "{%% set ns = namespace(s=1, t=1) %%}%s{%% for i in range(99) %%}%s{%% endfor %%}{{ ns.s == ns.t }}"
GROW = "{%% set ns = namespace(s=%s) %%}{%% for i in range(99) %%}%s{%% endfor %%}{{ ns.s }}"

ENDLESS = {
    "nested loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "loops over text": "{% set s = 'x' * 100000 %}{% for a in s %}{% for b in s %}{% endfor %}{% endfor %}",
    "loop tests": "{% set y = ('y' * 99999) | list %}{% for a in range(99999) if a in y %}{% endfor %}",
    "two calls a call": (
        "{% macro f(n) %}{% if n %}{% set a = f(n - 1) ~ f(n - 1) %}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "tests in filters": "{{ ('x' * 99999) | list | select('in', ('y' * 99999) | list) | list }}",
    "comparisons": (
        "{% set a = ['xy'] * 99999 %}{% for i in range(99999) %}{% if 'x' in a %}{% endif %}{% endfor %}"
    ),
}
GIANT = {
    "repeated text": "{{ 'x' * 10 ** 15 }}",
    "repeated list": "{{ [1] * 10 ** 15 }}",
    "doubled by ~": GROW % ("'x'", "{% set ns.s = ns.s ~ ns.s %}"),
    "doubled by +": GROW % ("'x'", "{% set ns.s = ns.s + ns.s %}"),
    "doubled by blocks": "{% set ns = namespace(s='x') %}"
    + "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}" * 60,
    "doubled lists": GROW % ("1", "{% set ns.s = [ns.s, ns.s] %}"),
    "doubled tuples": GROW % ("1", "{% set ns.s = (ns.s, ns.s) %}"),
    "doubled dicts": GROW % ("1", "{% set ns.s = {'a': ns.s, 'b': ns.s} %}"),
    "doubled arguments": (
        "{% set ns = namespace(s=1) %}{% macro f() %}{% set ns.s = varargs %}{% endmacro %}"
        "{% for i in range(99) %}{{ f(ns.s, ns.s) }}{% endfor %}{{ ns.s }}"
    ),
    "compared lists": TWINS % ("", "{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}"),
    "compared tuples": TWINS % ("", "{% set ns.s = (ns.s, ns.s) %}{% set ns.t = (ns.t, ns.t) %}"),
    "compared dicts": TWINS % ("", "{% set ns.s = {1: ns.s, 2: ns.s} %}{% set ns.t = {1: ns.t, 2: ns.t} %}"),
    "compared arguments": TWINS
    % (
        "{% macro s() %}{% set ns.s = varargs %}{% endmacro %}"
        "{% macro t() %}{% set ns.t = varargs %}{% endmacro %}",
        "{{ s(ns.s, ns.s) }}{{ t(ns.t, ns.t) }}",
    ),
    "squared numbers": GROW % ("10", "{% set ns.s = ns.s * ns.s %}"),
    "powers": "{{ 10 ** (10 ** 9) }}",
    "percent width": "{{ '%1000000000000000d' % 1 }}",
    "percent width as a value": "{{ '%*d' % (1000000000000000, 1) }}",
    "percent many": "{{ ('%s' * 9999) % (('x' * 9999,) * 9999) }}",
    "format width": "{{ '{:1000000000000000}'.format(1) }}",
    "format width as a value": "{{ '{1:{0[0]}}'.format([1000000000000000], 'x') }}",
    "format many": "{{ ('{0}' * 99999).format('x' * 99999) }}",
    "format map": "{{ '{a:1000000000000000}'.format_map({'a': 1}) }}",
    "format filter": "{{ '%1000000000000000d' | format(1) }}",
    "padding": "{{ 'x'.ljust(10 ** 15) }}",
    "replaced": "{{ ('x' * 99999).replace('x', 'y' * 99999) }}",
    "replaced nothing": "{{ ('x' * 99999) | replace('', 'y' * 99999) }}",
    "joined": "{{ ('x' * 99999).join('y' * 99999) }}",
    "joined by a filter": "{{ ('y' * 99999) | join('x' * 99999) }}",
    "shared text": "{{ ['x' * 999999] * 999 }}",
    "indented": "{{ ('\n' * 99999) | indent(99999) }}",
    "indented json": "{{ [[[1]]] | tojson(indent=10 ** 9) }}",
    "wide json": "{{ (['a'] * 9999) | tojson(separators=('x' * 99999, 'y')) }}",
    "summed lists": "{{ ([['x'] * 99999] * 30) | sum(start=[]) }}",
    "rounding": "{{ 1.5 | round(10 ** 9, 'ceil') }}",
    "dates": "{{ strftime_now('%A' * 999999) }}",
    "text in a loop": "{% for i in range(100000) %}" + "y" * 9999 + "{% endfor %}",
    "text in a macro": "{% macro m() %}"
    + "y" * 9999
    + "{% endmacro %}{% for i in range(99999) %}{% set x = m() %}{% endfor %}",
    "lists kept": "{% for i in range(99999) %}{% set x = range(99999) | list %}{% endfor %}",
    "endless calls": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "endless blocks": "{% block a %}{{ self.a() }}{% endblock %}",
    "deep lists": (
        "{% set ns = namespace(s=1) %}{% for i in range(9999) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}"
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_does_not_end_is_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"stopped: it ran for more than 0\.3 seconds"):
        render_chat(ENDLESS[name], MESSAGES)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", GIANT)
def test_a_template_that_builds_too_much_is_stopped_before_it_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "MAX_SECONDS", 60)
    with pytest.raises(ModelError, match=r"was stopped: it (builds|computes|rounds|indents|nests)"):
        render_chat(GIANT[name], MESSAGES)


def test_a_template_that_writes_too_much_is_stopped() -> None:
    template = "{% set s = 'x' * 999999 %}{% for i in range(9) %}{{ s }}{% endfor %}"
    with pytest.raises(ModelError, match="was stopped: it wrote more than 4000000 characters"):
        render_chat(template, MESSAGES)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a'.translate({97: 'x'}) }}",
        "{{ '\t'.expandtabs(10) }}",
        "{{ (1).to_bytes(10, 'big') }}",
        "{{ lipsum() }}",
        "{{ dict.fromkeys(range(9)) }}",
        "{{ namespace(_a=1) }}{% set n = namespace() %}{% set n._a = 1 %}",
    ],
)
def test_what_no_chat_template_needs_is_not_there(template: str) -> None:
    with pytest.raises(RequestError, match=r"SecurityError|UndefinedError"):
        render_chat(template, MESSAGES)


def test_long_conversations_stay_within_the_bounds() -> None:
    template = (
        "{% set ns = namespace(kept=[]) %}{% for m in messages %}{% set ns.kept = ns.kept + [m] %}"
        "{% endfor %}"
        "{% for m in ns.kept %}"
        "{{ '<' + m.role + '>' + m.content.split('</think>')[-1] | trim + '\n' }}{% endfor %}"
    )
    messages = [{"role": "user", "content": "some words " * 100}] * 1000
    assert len(render_chat(template, messages)) > 1_000_000


def test_renders_do_not_share_a_budget() -> None:
    template = "{% for i in range(15) %}{% set s = 'x' * 3999990 %}{% endfor %}done"
    assert [render_chat(template, MESSAGES) for _ in range(3)] == ["done"] * 3
