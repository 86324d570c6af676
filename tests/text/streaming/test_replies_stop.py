"""Checks that stops in the reply of a chat model look at its visible content alone, however it is cut."""

from __future__ import annotations

from typing import Any

import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.text.streaming.detokenizer import start
from decodery.text.streaming.regions import ReplyMarks, begin
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.text.tokenizer.vocabulary import Vocabulary
from tests.text.streaming.test_stops import earliest

PIECES = (
    *(b"<think>", b"</think>", b"<call>", b"<hidden>", b"a", b"b", b"ab", b"\n", b" ", b"\n\n", b"<", b">"),
    *(b"</th", b"ink>", b"a<ca", b"ll>b", "é".encode(), b"\xc3", b"\xa9", b"\xff", b"ba"),
)
SPECIAL = frozenset(range(4))
MARKS = frozenset(range(3))


def tokenizer() -> Tokenizer:
    return Tokenizer(
        Vocabulary(
            backend=tokenizers.Tokenizer(tokenizers.models.BPE()),
            spell=lambda token: PIECES[token],
            size=len(PIECES),
            special_ids=SPECIAL,
            bos_token_id=None,
            eos_token_ids=(3,),
            pad_token_id=None,
            bos_token="",
            eos_token="",
            prefix=(),
            suffix=(),
            chat_templates={},
            named_ids={},
        )
    )


def expected(raw: str, marks: ReplyMarks, stops: tuple[str, ...], include: bool) -> tuple[str, str | None]:
    """Returns the raw text cut at the first stop of its content, found in the whole text."""
    state = begin(marks).read(raw)
    regions = [*state.pieces, *state.flush()]
    content, shown = "", ""
    for place, (kind, text) in enumerate(regions):
        shown += text
        if kind != "content":
            continue
        content += text
        last = place + 1 == len(regions) or regions[place + 1].kind != "content"
        if last:
            found = earliest(content, stops)
            if found is not None:
                stop, end = found
                cut = len(content) - (end if include else end - len(stop))
                return shown[: len(shown) - cut], stop
            content = ""
    return shown, None


@given(
    st.lists(st.integers(0, len(PIECES) - 1), max_size=14),
    st.sampled_from(((), ("a",), ("ab", "b\n"), ("\n",), ("<", "a<"), ("bab",))),
    st.sampled_from(("reasoning", "open", "content")),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=600, deadline=None)
def test_a_reply_is_cut_at_the_first_stop_in_its_content(
    tokens: list[int], stops: tuple[str, ...], beginning: Any, include: bool, calls: bool
) -> None:
    marks = ReplyMarks(("<think>", "</think>"), beginning, ("<call>",) if calls else ())
    own = tokenizer()
    state = start(own, stops, include_stop=include, marks=marks, shown=MARKS)
    text = ""
    for token in tokens:
        state = state.after(token)
        text += state.piece
    flushed = text + state.flush()
    raw = b"".join(PIECES[token] for token in tokens if token not in SPECIAL - MARKS).decode(
        "utf-8", "replace"
    )
    cut, stop = expected(raw, marks, stops, include)
    assert flushed == cut
    if stop is None:
        assert state.stopped is None


@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=14), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_no_stop_is_looked_for_before_the_least_number_of_tokens(tokens: list[int], least: int) -> None:
    marks = ReplyMarks(("<think>", "</think>"), "open", ("<call>",))
    state = start(tokenizer(), ("a", "\n"), min_tokens=least, marks=marks, shown=MARKS)
    for token in tokens[: least - 1]:
        state = state.after(token)
        assert state.stopped is None
