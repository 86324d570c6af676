"""Checks how a vocabulary's tokens make the prompt that asks for the middle of a text."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from decodery.errors import ModelError
from decodery.text.infill import SPELLINGS, InfillTokens, infill_tokens


class Vocabulary:
    """Holds tokens by their text, in order, and the roles that the files declare."""

    def __init__(self, *texts: str, **named: int) -> None:
        self.texts = texts
        self.named_ids: Mapping[str, int] = named

    def token_id(self, text: str) -> int | None:
        return self.texts.index(text) if text in self.texts else None

    def token_bytes(self, token: int) -> bytes:
        return self.texts[token].encode()


@pytest.mark.parametrize(
    ("vocabulary", "prompt", "ends"),
    [
        (
            Vocabulary("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
            [1, 50, 51, 3, 60, 2],
            (0, 4),
        ),
        (Vocabulary("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), [0, 50, 51, 1, 60, 2], ()),
        (Vocabulary("x", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"), [1, 50, 51, 2, 60, 3], (4,)),
        (
            Vocabulary("<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"),
            [1, 50, 51, 0, 60, 2],
            (),
        ),
        (
            Vocabulary("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),
            [1, 60, 0, 50, 51, 2],
            (),
        ),
        (Vocabulary("[PREFIX]", "[SUFFIX]"), [1, 60, 0, 50, 51], ()),
        (Vocabulary("p", "s", "m", "e", fim_pre=0, fim_suf=1, fim_mid=2, eot=3), [0, 50, 51, 1, 60, 2], (3,)),
        (Vocabulary("p", "s", "m", prefix=0, suffix=1, middle=2), [0, 50, 51, 1, 60, 2], ()),
    ],
)
def test_the_prompt_has_the_order_of_the_models_training(
    vocabulary: Vocabulary, prompt: list[int], ends: tuple[int, ...]
) -> None:
    tokens = infill_tokens(vocabulary)
    assert tokens.prompt([50, 51], [60]) == prompt
    assert tokens.ends == ends


def test_what_the_files_declare_counts_before_known_texts() -> None:
    vocabulary = Vocabulary(*SPELLINGS[0][:3], "<|file_sep|>", fim_pre=2, fim_suf=1, fim_mid=0, fim_sep=3)
    assert infill_tokens(vocabulary) == InfillTokens(2, 1, 0, False, (3,))


def test_known_texts_tell_the_order_of_declared_tokens_and_further_ends() -> None:
    texts = ("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>", "eot")
    vocabulary = Vocabulary(*texts, fim_pre=0, fim_suf=1, fim_mid=2, eot=3)
    assert infill_tokens(vocabulary) == InfillTokens(0, 1, 2, True, (3,))
    roles = {"fim_pre": 0, "fim_suf": 1, "fim_mid": 2, "fim_pad": 4}
    vocabulary = Vocabulary(*SPELLINGS[0][:3], "<|file_sep|>", "pad", **roles)
    assert infill_tokens(vocabulary) == InfillTokens(0, 1, 2, False, (4, 3))


@pytest.mark.parametrize(
    "vocabulary",
    [
        Vocabulary("a", "b"),
        Vocabulary("<|fim_prefix|>", "<|fim_suffix|>"),
        Vocabulary("<unused60>", "<unused61>", "<unused62>", fim_pre=0, fim_suf=1, fim_mid=2),
    ],
)
def test_a_model_without_these_tokens_is_an_error_that_names_them(vocabulary: Vocabulary) -> None:
    with pytest.raises(ModelError, match=r"cannot fill in: .* fim_pre, fim_suf, fim_mid, .*<\|fim_prefix\|>"):
        infill_tokens(vocabulary)
