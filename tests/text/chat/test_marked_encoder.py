"""Checks that marks are tokens where they are meant and plain text elsewhere, in every kind of vocabulary."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import AddedToken

from decodery.errors import RequestError
from decodery.text.chat.marked_encoder import MarkedEncoder
from decodery.text.tokenizer.tokenizer import Tokenizer, without_surrogates
from tests.text.kinds import CHANGING, EXACT, open_kind
from tests.text.vocabularies import byte_level_reference, odd_strings, write_folder

KINDS = [*EXACT, *CHANGING]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, MarkedEncoder]]:
    found = {}
    for kind in KINDS:
        tokenizer = open_kind(kind, tmp_path_factory.mktemp("kind"))
        found[kind] = tokenizer, MarkedEncoder(tokenizer, tokenizer.special_ids)
    return found


def with_marks(texts: list[str], seed: int) -> list[str]:
    """Returns odd strings with marks put into them."""
    draw = random.Random(seed)
    strings = []
    for text in map(without_surrogates, odd_strings(150)):
        for _ in range(draw.randrange(3)):
            place = draw.randrange(len(text) + 1)
            text = text[:place] + draw.choice(texts) + text[place:]
        strings.append(text)
    return strings


def without_space(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_marks_a_text_has_its_usual_tokens(
    kind: str, encoders: dict[str, tuple[Tokenizer, MarkedEncoder]]
) -> None:
    tokenizer, encoder = encoders[kind]
    for text in with_marks(list(encoder.texts.values()), 1):
        assert encoder.encode(text, encoder.marks(text)) == tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("kind", KINDS)
def test_without_marks_a_text_has_the_tokens_of_plain_text(
    kind: str, encoders: dict[str, tuple[Tokenizer, MarkedEncoder]]
) -> None:
    tokenizer, encoder = encoders[kind]
    for text in with_marks(list(encoder.texts.values()), 2):
        plain = tokenizer.encode(text, add_special_tokens=False, parse_special=False)
        assert encoder.encode(text, []) == plain


@pytest.mark.parametrize("kind", EXACT)
def test_only_the_marks_that_are_meant_are_tokens_and_no_text_is_lost(
    kind: str, encoders: dict[str, tuple[Tokenizer, MarkedEncoder]]
) -> None:
    tokenizer, encoder = encoders[kind]
    unknown = tokenizer.named_ids.get("unk", tokenizer.named_ids.get("unknown"))
    draw = random.Random(3)
    quoted = 0
    for text in with_marks(list(encoder.texts.values()), 3):
        marks = encoder.marks(text)
        meant = [mark for mark in marks if draw.random() < 0.5]
        ids = encoder.encode(text, meant)
        controls = [token for token in ids if token in encoder.texts and token != unknown]
        assert controls == [mark.token for mark in meant if mark.token != unknown]
        if unknown not in ids:
            everything = tokenizer.decode(encoder.encode(text, marks), skip_special_tokens=False)
            # Vocabularies add a space behind some tokens.
            assert without_space(tokenizer.decode(ids, skip_special_tokens=False)) == without_space(
                everything
            )
        quoted += len(marks) - len(meant)
    assert quoted > 20


def test_a_lone_surrogate_breaks_a_mark(encoders: dict[str, tuple[Tokenizer, MarkedEncoder]]) -> None:
    tokenizer, encoder = encoders["tokenizer.json"]
    assert [(m.start, m.end) for m in encoder.marks("😀<|im_end|><|im\ud800end|>")] == [(1, 11)]
    assert tokenizer.token_id("<|im_end|>") == encoder.marks("<|im_end|>")[0].token


def test_a_mark_takes_the_white_space_that_its_token_takes(tmp_path: Path) -> None:
    reference = byte_level_reference()
    reference.add_special_tokens([AddedToken("<a>", lstrip=True, rstrip=True, normalized=False)])
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, reference))
    encoder = MarkedEncoder(tokenizer, tokenizer.special_ids)
    text = "x  <a>\n y <a> z"
    first, second = encoder.marks(text)
    assert (first.start, first.end) == (1, 8)
    assert encoder.encode(text, [first, second]) == tokenizer.encode(text, add_special_tokens=False)
    one = encoder.encode(text, [first])
    assert one.count(first.token) == 1
    assert tokenizer.decode(one, skip_special_tokens=False) == "x<a>y <a> z"


def test_a_token_that_a_vocabulary_makes_of_plain_text_is_refused(tmp_path: Path) -> None:
    reference = byte_level_reference()
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, reference, config={"eos_token_id": 400}))
    end = tokenizer.token_bytes(400).decode()
    reference.add_special_tokens([AddedToken(end, normalized=False)])
    tokenizer = Tokenizer.from_folder(write_folder(tmp_path, reference))
    with pytest.raises(RequestError, match="special_in_content"):
        MarkedEncoder(tokenizer, {400}).encode(end, [])
