"""Checks that added tokens are found where the tokenizers library finds them."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models

from decodery.text.chat.added_finder import AddedFinder

TEXTS = ("<a>", "<a>b", "<", "b", "a>", "<|im_start|>", "<|im_end|>", "é", " ", "\n\n", "ab ab", "😀<")
PIECES = (*TEXTS, "<|im_", "start|>", "c", "  ", "\t", "a", ">", "\u3000", "\x1c", "日")
FLAGS = st.tuples(st.booleans(), st.booleans(), st.booleans())


@settings(deadline=None, max_examples=300)
@given(
    flags=st.dictionaries(st.sampled_from(TEXTS), FLAGS, min_size=1, max_size=5),
    text=st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
)
def test_added_tokens_are_found_as_the_library_finds_them(
    flags: dict[str, tuple[bool, bool, bool]], text: str
) -> None:
    # The library finds a token of white space a second time within the white space that another one takes.
    strips = not any(t[0].isspace() for t in flags)
    added = [
        AddedToken(t, lstrip=left and strips, rstrip=right and strips, single_word=word, normalized=False)
        for t, (left, right, word) in flags.items()
    ]
    library = tokenizers.Tokenizer(models.WordLevel({"\uffff": 0}, "\uffff"))
    library.add_tokens(added)
    found = library.encode(text, add_special_tokens=False)
    right = [(*place, token) for token, place in zip(found.ids, found.offsets, strict=True) if token]
    marks = AddedFinder(dict(enumerate(added, 1))).marks(text)
    assert [(m.start, m.end, m.token) for m in marks] == right


def test_nothing_is_found_without_tokens() -> None:
    assert list(AddedFinder({}).marks("abc")) == []


@pytest.mark.parametrize("text", ["<" * 200_000, "<|im_" * 50_000, "<a> " * 50_000])
def test_a_long_text_is_searched_once(text: str) -> None:
    added = [AddedToken(t, lstrip=True, rstrip=True, normalized=False) for t in ("<|im_end|>", "<a>")]
    count = sum(1 for _ in AddedFinder(dict(enumerate(added))).marks(text))
    assert count == text.count("<a>")
