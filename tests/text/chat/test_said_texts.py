"""Checks that what a conversation says can neither contain nor complete a mark while a template runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from decodery.text.chat.marked_encoder import MarkedEncoder
from decodery.text.chat.said_texts import SaidTexts
from decodery.text.chat.template import render_chat
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.text.vocabularies import byte_level_reference, write_folder

MARKS = ("<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "<|a|><|a", "|>b|>")
# Pieces that contain marks, and join to marks.
PIECES = (
    *MARKS,
    "<|im_",
    "end|>",
    "|>",
    "<",
    "|",
    ">",
    "s>",
    "</",
    "[IN",
    "ST]",
    "a",
    " ",
    "\n",
    "é",
    "\\",
    '"',
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> SaidTexts:
    reference = byte_level_reference()
    reference.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    folder: Path = write_folder(tmp_path_factory.mktemp("said"), reference)
    tokenizer = Tokenizer.from_folder(folder)
    return SaidTexts(MarkedEncoder(tokenizer, tokenizer.special_ids))


@settings(deadline=None)
@given(text=TEXTS, before=st.sampled_from(PIECES), after=st.sampled_from(PIECES))
def test_a_hidden_text_holds_completes_and_begins_no_mark(
    text: str, before: str, after: str, said: SaidTexts
) -> None:
    hidden = said.hide(text)
    assert (len(hidden), said.show(hidden)) == (len(text), text)
    alone = [(m.start, m.token) for m in said.encoder.marks(before)]
    alone += [(m.start + len(before + text), m.token) for m in said.encoder.marks(after)]
    if text.strip():
        joined = said.encoder.marks(before + hidden + after)
        assert [(m.start, m.token) for m in joined] == alone


@settings(deadline=None)
@given(first=TEXTS, second=TEXTS)
def test_texts_that_a_template_joins_make_no_mark(first: str, second: str, said: SaidTexts) -> None:
    messages = said.hide([{"role": "user", "content": first}, {"role": "user", "content": second}])
    for template in (
        "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
        "{{ messages | map(attribute='content') | join('\n') }}{{ messages[0].content[::-1][::-1] }}",
        "{{ messages[0] | tojson }}{{ messages | tojson(ensure_ascii=true) }}",
        "{{ messages[1].content | upper }}{{ messages[1].content | e }}",
        "{{ (messages[0].content ~ '</think>').split('</think>')[0].strip('\n') }}",
    ):
        assert said.encoder.marks(render_chat(template, messages)) == []


@pytest.mark.parametrize("options", ["", "indent=2", "ensure_ascii=true", "ensure_ascii=true, indent=1"])
@settings(deadline=None)
@given(text=st.one_of(TEXTS, st.text(st.characters(exclude_categories=["Cs"]), max_size=8)))
def test_hidden_texts_become_the_json_that_they_are(options: str, text: str, said: SaidTexts) -> None:
    template = f"{{{{ messages | tojson({options}) }}}}"
    shown = said.show(render_chat(template, said.hide([{"role": "user", "content": text}])))
    assert shown == render_chat(template, [{"role": "user", "content": text}])


def test_keys_and_nested_values_are_hidden_and_others_stay(said: SaidTexts) -> None:
    value: dict[str, Any] = {"<s>": ["</s>", 1, None, 2.5, True, {"a": ("x<s>y",)}]}
    hidden = said.hide(value)
    assert said.encoder.marks(str(hidden)) == []
    [(key, items)] = hidden.items()
    assert said.show(key) == "<s>"
    assert items[1:5] == [1, None, 2.5, True]
    assert said.show(items[5]["a"][0]) == "x<s>y"


def test_a_kept_mark_stays(said: SaidTexts) -> None:
    hidden = said.hide("a</s>b<s>", frozenset({"</s>"}))
    assert hidden.startswith("a</s>b")
    assert len(said.encoder.marks(hidden)) == 1


def test_surrogates_of_a_caller_are_replaced(said: SaidTexts) -> None:
    assert said.hide("\ud800a\ud83d\ude00") == "\ufffda😀"


def test_a_mark_that_takes_white_space_is_hidden(tmp_path: Path) -> None:
    reference = byte_level_reference()
    reference.add_special_tokens([AddedToken("<a>", lstrip=True, rstrip=True, normalized=False)])
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, reference))
    said = SaidTexts(MarkedEncoder(tokenizer, tokenizer.special_ids))
    hidden = said.hide("x \n <a> <a>y")
    assert said.encoder.marks(hidden) == []
    assert said.show(hidden) == "x \n <a> <a>y"


@pytest.mark.parametrize("space", ["", " \n"])
def test_a_text_and_a_template_make_no_mark_together(space: str, said: SaidTexts) -> None:
    template = "{{ before ~ (messages[0].content | trim) ~ after }}"
    for mark in MARKS[:5]:
        for cut in range(1, len(mark)):
            for content, before, after in ((mark[cut:], mark[:cut], ""), (mark[:cut], "", mark[cut:])):
                messages = said.hide([{"role": "user", "content": f"{space}{content}{space}"}])
                text = render_chat(template, messages, before=before, after=after)
                assert said.show(text) == mark
                assert said.encoder.marks(text) == []


@settings(deadline=None)
@given(text=TEXTS, taken=st.sampled_from(PIECES))
def test_a_text_without_beginnings_makes_no_mark_however_it_is_cut(
    text: str, taken: str, said: SaidTexts
) -> None:
    messages = said.hide_beginnings(said.hide([{"role": "user", text: text, "content": text}]))
    rendered = render_chat("{{ messages[0].content.replace(taken, '') | lower }}", messages, taken=taken)
    assert said.tokens(rendered) == []
    assert messages[0]["role"] == "user"
    assert said.show(messages[0]["content"]) == text
    assert said.tokens("".join(map(str, messages[0])).replace(taken, "")) == []


def test_kept_texts_keep_their_beginnings(said: SaidTexts) -> None:
    (hidden,) = said.hide_beginnings(["<think>a<b</think>[c"], frozenset({"</think>", "<think>"}))
    assert hidden.startswith("<think>a")
    assert "</think>" in hidden
    assert hidden.count("<") == 2
    assert said.show(hidden) == "<think>a<b</think>[c"
