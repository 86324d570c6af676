from __future__ import annotations

import codecs
import re
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from decodery.errors import ParameterError
from decodery.text.streaming.detokenizer import TextState, start
from decodery.text.streaming.regions import ReplyMarks
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.text.tokenizer.vocabulary import Vocabulary
from tests.text.kinds import CHANGING, EXACT, open_kind
from tests.text.streaming.test_stops import earliest, longest_start
from tests.text.vocabularies import CORPUS, odd_strings, repaired

# Bytes of every role in UTF-8, whole and broken characters, letters shared by stop strings, an id without a
# token.
PIECES = (
    *(b"a", b"b", b"ab", b"ba", b"aab", b" ", b"\n", b"", b"END", b"EN", b"D"),
    *(
        b"\xf0",
        b"\x9f",
        b"\x98",
        b"\x80",
        b"\xf0\x9f",
        b"\x98\x80",
        "😀".encode(),
        b"\xe2\x82",
        b"\xac",
        "€".encode(),
    ),
    *(
        b"\xc3",
        b"\xa9",
        "é".encode(),
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0",
        b"\xed",
        b"\xf4\x90",
        b"\xef\xbf\xbd",
    ),
    *(b"a\xc3", b"\xa9b\xf0\x9f", b"</s>"),
)
SPECIAL = len(PIECES) - 1


def _tokenizer() -> Tokenizer:
    return Tokenizer(
        Vocabulary(
            backend=tokenizers.Tokenizer(tokenizers.models.BPE()),
            spell=lambda token: PIECES[token],
            size=len(PIECES),
            special_ids=frozenset({SPECIAL}),
            bos_token_id=None,
            eos_token_ids=(SPECIAL,),
            pad_token_id=None,
            bos_token="",
            eos_token="</s>",
            prefix=(),
            suffix=(),
            chat_templates={},
            named_ids={},
        )
    )


TOKENIZER = _tokenizer()
TOKENS = st.lists(st.integers(0, len(PIECES) - 1), max_size=30)
STOPS = st.lists(
    st.one_of(st.text("ab", min_size=1, max_size=4), st.text("abEND é€😀\ufffd</s>", min_size=1, max_size=4)),
    max_size=4,
).map(tuple)


# Greedy and lazy, alternatives, a fixed end, lookahead, lookbehind, word and line boundaries.
REGEXES = st.sampled_from(
    (
        "a+",
        "b+?a",
        "END|a\n",
        "(a|b){3}",
        "[^a]\ufffd",
        "€.*a",
        "b$",
        "(?i)A[^b]",
        "a+?b",
        r"\bD",
        "(?s)a..",
    )
)


def regex_end(text: str, regex: str) -> int | None:
    """Returns the length of the shortest prefix of the text in which the regular expression matches.

    In RE2's syntax, a word consists of ASCII letters, digits and underscores.
    """
    return next((end for end in range(1, len(text) + 1) if re.search(regex, text[:end], re.ASCII)), None)


def run(state: TextState, tokens: list[int]) -> list[TextState]:
    states = []
    for token in tokens:
        state = state.after(token)
        states.append(state)
    return states


# A hidden token, and a character that is not complete before it, in the text that `symbols` returns.
HIDDEN, UNREAD = "\ue000", "\ue001"


def symbols(tokens: list[int], hidden: bool) -> str:
    """Returns the text of the tokens, with marks of its hidden tokens if they are left out."""
    found, data = "", b""
    for token in tokens:
        if hidden and token == SPECIAL:
            found += UNREAD * len(data.decode("utf-8", "replace")) + HIDDEN
            continue
        text, used = codecs.utf_8_decode(data + PIECES[token], "replace", False)
        found, data = found + text, (data + PIECES[token])[used:]
    return found + data.decode("utf-8", "replace")


def shown(text: str) -> str:
    return text.replace(HIDDEN, "").replace(UNREAD, "")


def cut_at_a_stop(text: str, stops: tuple[str, ...], include: bool) -> tuple[str, str | None]:
    """Returns what is displayed of a text of `symbols`, and the first stop string to end in it."""
    for end in range(1, len(text) + 1):
        plain = [
            stop for stop in stops if text[end - 1] not in HIDDEN + UNREAD if shown(text[:end]).endswith(stop)
        ]
        hidden = [
            stop for stop in stops if "</s>" in stop if text[:end].endswith(stop.replace("</s>", HIDDEN))
        ]
        found = [(len(stop), stop) for stop in plain]
        found += [(len(shown(stop.replace("</s>", HIDDEN))), stop) for stop in hidden]
        if found:
            size, stop = max(found)
            read = text[:end].removesuffix(HIDDEN)
            before = shown(read) + "\ufffd" * (len(read) - len(read.rstrip(UNREAD)))
            if read.endswith(UNREAD) and cut_at_a_stop(before, stops, include)[1]:
                return cut_at_a_stop(before, stops, include)
            return before[: len(before) - size] + stop * include, stop
    return shown(text), None


WITHOUT_BROKEN = st.lists(
    st.integers(0, len(PIECES) - 1).filter(lambda token: PIECES[token].isascii()), max_size=30
)
SPECIAL_STOPS = st.lists(
    st.lists(st.sampled_from(("a", "b", "E", "</s>", "</", "s>")), min_size=1, max_size=4).map("".join),
    max_size=4,
).map(tuple)


@given(st.one_of(TOKENS, WITHOUT_BROKEN), st.one_of(STOPS, SPECIAL_STOPS), st.booleans(), st.booleans())
def test_the_pieces_are_the_whole_text_cut_at_the_first_stop(
    tokens: list[int], stops: tuple[str, ...], skip: bool, include: bool
) -> None:
    first = start(TOKENIZER, stops, skip_special_tokens=skip, include_stop=include)
    states = [first, *run(first, tokens)]
    whole, stop = cut_at_a_stop(symbols(tokens, skip), stops, include)
    if "\ufffd" not in "".join(stops):
        assert states[-1].stopped == stop
    if stop is None:
        assert whole == TOKENIZER.decode(tokens, skip_special_tokens=skip)
    assert "".join(state.piece for state in states) + states[-1].flush() == whole


@given(TOKENS, STOPS, REGEXES, st.booleans(), st.booleans())
def test_the_pieces_are_the_whole_text_cut_where_the_regex_first_matches(
    tokens: list[int], stops: tuple[str, ...], regex: str, skip: bool, include: bool
) -> None:
    first = start(TOKENIZER, stops, skip_special_tokens=skip, include_stop=include, stop_regex=regex)
    states = [first, *run(first, tokens)]
    whole = TOKENIZER.decode(tokens, skip_special_tokens=skip)
    match, end = earliest(whole, stops), regex_end(whole, regex)
    if match is not None and (end is None or match.end <= end):
        whole = whole[: match.end if include else match.end - len(match.stop)]
    elif end is not None:
        whole = whole[:end]
    assert "".join(state.piece for state in states) + states[-1].flush() == whole


@given(TOKENS, REGEXES)
def test_a_regex_holds_nothing_back_and_stops_at_the_token_that_completes_a_match(
    tokens: list[int], regex: str
) -> None:
    shown, data = "", b""
    states = run(start(TOKENIZER, skip_special_tokens=False, stop_regex=regex), tokens)
    for token, state in zip(tokens, states, strict=True):
        data += PIECES[token]
        text = codecs.utf_8_decode(data, "replace", False)[0]
        end = regex_end(text, regex)
        shown += state.piece
        assert shown == text[:end]
        if end is not None:
            found = re.search(regex, text[:end], re.ASCII)
            assert found is not None
            assert state.stopped == found.group()
            return
        assert state.stopped is None


@given(TOKENS, TOKENS, REGEXES)
def test_a_fork_with_a_regex_does_not_disturb_its_origin(
    tokens: list[int], others: list[int], regex: str
) -> None:
    alone = run(start(TOKENIZER, stop_regex=regex), tokens)
    state = start(TOKENIZER, stop_regex=regex)
    for token, expected in zip(tokens, alone, strict=True):
        for other in others[:3]:
            state.after(other).flush()
        state = state.after(token)
        assert (state.piece, state.stopped, state.flush()) == (
            expected.piece,
            expected.stopped,
            expected.flush(),
        )


@pytest.mark.parametrize(
    ("least", "text"), [(0, "ab"), (1, "ab"), (2, "abb"), (3, "abbaaab"), (4, "abbaaabb"), (5, "abbaaabbb")]
)
def test_a_regex_is_looked_for_in_the_text_from_the_least_number_of_tokens_on(least: int, text: str) -> None:
    states = run(start(TOKENIZER, min_tokens=least, stop_regex="b"), [2, 3, 4, 1, 1])
    assert "".join(state.piece for state in states) == text


def test_after_a_regex_nothing_more_is_shown() -> None:
    states = run(start(TOKENIZER, stop_regex="a+b"), [0, 2, 0, 8])
    assert [state.piece for state in states] == ["a", "ab", "", ""]
    assert [state.stopped for state in states] == [None, "aab", "aab", "aab"]
    assert states[-1].flush() == ""


def test_a_regex_cuts_within_the_token_and_releases_what_a_stop_string_held_back() -> None:
    state = start(TOKENIZER, stop_regex="E.").after(8)
    assert (state.piece, state.stopped) == ("EN", "EN")
    states = run(start(TOKENIZER, ("aabb",), stop_regex="ab"), [0, 0, 8])
    assert [state.piece for state in states] == ["", "", "aaEND"]
    states = run(start(TOKENIZER, ("aabb",), stop_regex="ab"), [0, 2])
    assert [state.piece for state in states] == ["", "aab"]


def test_where_a_regex_and_a_stop_string_match_at_one_place_the_stop_string_counts() -> None:
    state = start(TOKENIZER, ("ND",), stop_regex="E.D").after(8)
    assert (state.piece, state.stopped) == ("E", "ND")


@given(TOKENS, STOPS)
def test_nothing_is_held_back_but_the_beginning_of_a_stop_and_of_a_character(
    tokens: list[int], stops: tuple[str, ...]
) -> None:
    shown, data = "", b""
    for token, state in zip(
        tokens, run(start(TOKENIZER, stops, skip_special_tokens=False), tokens), strict=True
    ):
        data += PIECES[token]
        text = codecs.utf_8_decode(data, "replace", False)[0]
        match = earliest(text, stops)
        assert state.stopped == (match.stop if match else None)
        if match is not None:
            return
        shown += state.piece
        assert shown == text[: len(text) - longest_start(text, stops)]


@given(TOKENS, TOKENS, STOPS)
def test_a_fork_does_not_disturb_its_origin(
    tokens: list[int], others: list[int], stops: tuple[str, ...]
) -> None:
    alone = run(start(TOKENIZER, stops), tokens)
    state = start(TOKENIZER, stops)
    for token, expected in zip(tokens, alone, strict=True):
        for other in others[:3]:
            state.after(other).flush()
        state = state.after(token)
        assert (state.piece, state.stopped, state.flush()) == (
            expected.piece,
            expected.stopped,
            expected.flush(),
        )


@given(TOKENS)
def test_pieces_are_whole_characters(tokens: list[int]) -> None:
    for state in run(start(TOKENIZER), tokens):
        state.piece.encode("utf-8")


def test_after_a_stop_nothing_more_is_shown() -> None:
    states = run(start(TOKENIZER, ("ab",)), [0, 1, 0, 8])
    assert [state.piece for state in states] == ["", "", "", ""]
    assert [state.stopped for state in states] == [None, "ab", "ab", "ab"]
    assert states[-1].flush() == ""


def test_a_stop_within_a_token_cuts_the_token() -> None:
    state = start(TOKENIZER, ("N",)).after(8)
    assert (state.piece, state.stopped) == ("E", "N")
    state = start(TOKENIZER, ("N",), include_stop=True).after(8)
    assert (state.piece, state.stopped) == ("EN", "N")


def test_a_broken_character_at_the_end_may_complete_a_stop() -> None:
    tokens = [0, PIECES.index(b"\xf0")]
    for include, text in ((False, "a"), (True, "a\ufffd")):
        states = run(start(TOKENIZER, ("\ufffd",), include_stop=include), tokens)
        assert "".join(state.piece for state in states) + states[-1].flush() == text


@pytest.mark.parametrize("kind", EXACT)
def test_text_streams_as_it_was_written(kind: str, tmp_path: Path) -> None:
    tokenizer = open_kind(kind, tmp_path)
    known = set("".join(CORPUS))
    for text in [*odd_strings(200), *CORPUS[:8]]:
        text = repaired(text)
        if (kind.endswith("characters") and not set(text) <= known) or "▁" in text:
            continue
        ids = tokenizer.encode(text, add_special_tokens=False, parse_special=False)
        states = run(start(tokenizer), ids)
        streamed = "".join(state.piece for state in states)
        assert streamed == tokenizer.decode(ids)
        # SentencePiece puts a space in front of a text.
        assert streamed in (text, f" {text}")
        assert not states or states[-1].flush() == ""


@pytest.mark.parametrize("kind", [*EXACT, *CHANGING])
def test_what_streams_is_what_is_decoded_wherever_the_tokens_end(kind: str, tmp_path: Path) -> None:
    tokenizer = open_kind(kind, tmp_path)

    @given(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12), st.booleans())
    def check(tokens: list[int], skip: bool) -> None:
        states = run(start(tokenizer, skip_special_tokens=skip), tokens)
        streamed = "".join(state.piece for state in states) + (states[-1].flush() if states else "")
        assert streamed == tokenizer.decode(tokens, skip_special_tokens=skip)

    check()


@pytest.mark.parametrize("kind", CHANGING)
def test_kinds_that_change_a_text_give_back_what_they_read(kind: str, tmp_path: Path) -> None:
    tokenizer = open_kind(kind, tmp_path)
    for text in ("playing the fair", "unfair ! a") if kind == "word pieces" else (CORPUS[0], CORPUS[3]):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == f" {text}"
        assert tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False) == ids


@pytest.mark.parametrize("token", [-1, len(PIECES)])
def test_an_id_outside_the_vocabulary_is_an_error_even_after_a_stop(token: int) -> None:
    for state in (start(TOKENIZER), start(TOKENIZER, ("a",)).after(0)):
        with pytest.raises(ParameterError, match=rf"token id {token} "):
            state.after(token)


def test_states_are_immutable() -> None:
    with pytest.raises(AttributeError):
        start(TOKENIZER).piece = "x"  # type: ignore[misc]


MARKS = ReplyMarks(reasoning=("<t>", "</t>"), beginning="open", calls=("<call>",))


@pytest.mark.parametrize(
    ("said", "text", "stopped"),
    [
        ("<t>a|b</t>c|d", "<t>ab</t>c", "</s>"),
        ("<t>a|b</t>|d", "<t>ab</t>", "</s>"),
        ("|a", "", "</s>"),
        ("a<call>|b", "a<call>b", None),
        # Held back, since it may become the mark of a call.
        ("a<ca|ll>b", "a<ca", "</s>"),
        ("a b|c", "a b", "</s>"),
    ],
)
def test_in_a_reply_a_special_token_stops_where_the_content_is(
    said: str, text: str, stopped: str | None
) -> None:
    """`|` in what is said stands for the special token."""
    pieces = [*map(chr, range(128)), "</s>"]
    vocabulary = Vocabulary(
        backend=tokenizers.Tokenizer(tokenizers.models.BPE()),
        spell=lambda token: pieces[token].encode(),
        size=129,
        special_ids=frozenset({128}),
        bos_token_id=None,
        eos_token_ids=(),
        pad_token_id=None,
        bos_token="",
        eos_token="",
        prefix=(),
        suffix=(),
        chat_templates={},
        named_ids={},
    )
    first = start(Tokenizer(vocabulary), ("</s>",), marks=MARKS)
    states = [first, *run(first, [128 if c == "|" else ord(c) for c in said])]
    assert "".join(state.piece for state in states) + states[-1].flush() == text
    assert states[-1].stopped == stopped
