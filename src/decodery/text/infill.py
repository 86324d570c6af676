"""Builds the prompts with which a model fills in the text between a prefix and a suffix.

Bavarian et al., Efficient Training of Language Models to Fill in the Middle (2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from decodery.errors import ModelError


class HasTokens(Protocol):
    """Offers the tokens of a vocabulary by their text, and those whose role the model's files declare."""

    @property
    def named_ids(self) -> Mapping[str, int]: ...

    def token_id(self, text: str) -> int | None: ...

    def token_bytes(self, token: int) -> bytes: ...


class Spelling(NamedTuple):
    """Holds the texts of the tokens of one way to ask for the middle.

    `middle` is None where the prompt ends with the prefix. `ends` are tokens that end a middle besides the
    model's own end tokens.
    """

    prefix: str
    suffix: str
    middle: str | None
    suffix_first: bool = False
    ends: tuple[str, ...] = ()


SPELLINGS = (
    # Qwen2.5-Coder and Qwen3-Coder; CodeGemma ends with <|file_separator|>.
    Spelling(
        *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        ends=("<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>"),
    ),
    # StarCoder, StarCoder2, StableCode and Granite Code.
    Spelling(
        *("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
        ends=("<|endoftext|>", "<fim_pad>", "<repo_name>", "<file_sep>"),
    ),
    # SantaCoder.
    Spelling("<fim-prefix>", "<fim-suffix>", "<fim-middle>", ends=("<|endoftext|>", "<fim-pad>")),
    # CodeLlama.
    Spelling("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>", ends=("\u2581<EOT>",)),
    # DeepSeek-Coder; its bars and blocks are not ASCII.
    Spelling("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
    # CodeGeeX4.
    Spelling("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    # Seed-Coder.
    Spelling("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>", suffix_first=True),
    # Codestral.
    Spelling("[PREFIX]", "[SUFFIX]", None, suffix_first=True),
)
# The roles in GGUF files, in the order of `Spelling`, and the older ones.
ROLES = (("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle"))
END_ROLES = ("fim_pad", "fim_rep", "fim_sep", "eot")


@dataclass(frozen=True)
class InfillTokens:
    """Holds the tokens that ask a model for the middle of a text, and those that end it."""

    prefix: int
    suffix: int
    middle: int | None
    suffix_first: bool
    ends: tuple[int, ...]

    def prompt(self, prefix: Sequence[int], suffix: Sequence[int]) -> list[int]:
        """Returns the prompt after which the model writes the tokens between `prefix` and `suffix`."""
        before, after = [self.prefix, *prefix], [self.suffix, *suffix]
        end = [] if self.middle is None else [self.middle]
        return [*after, *before, *end] if self.suffix_first else [*before, *after, *end]


def infill_tokens(vocabulary: HasTokens) -> InfillTokens:
    """Returns a model's tokens for infilling: those that its files name, else those with a known text.

    Known texts also tell the order and further tokens that end a middle. Raises ModelError that names what is
    missing if the model cannot fill in.
    """
    declared, spelled = _declared(vocabulary), _spelled(vocabulary)
    if declared is None and spelled is None:
        known = ", ".join(dict.fromkeys(spelling.prefix for spelling in SPELLINGS))
        raise ModelError(
            "this model cannot fill in: its vocabulary has no tokens for the prefix, the suffix and the "
            f"middle (its files declare none as {', '.join(ROLES[0])}, and none is written like {known})"
        )
    if declared is None or spelled is None:
        return declared or spelled  # type: ignore[return-value]
    same_order = spelled.suffix_first and spelled.prefix == declared.prefix
    ends = tuple(dict.fromkeys((*declared.ends, *spelled.ends)))
    return replace(declared, suffix_first=same_order, ends=ends)


def _declared(vocabulary: HasTokens) -> InfillTokens | None:
    """Returns the tokens that the files name, if their texts are not placeholders."""
    named = vocabulary.named_ids
    for roles in ROLES:
        if all(role in named for role in roles):
            prefix, suffix, middle = (named[role] for role in roles)
            # Every GGUF file of Gemma names the tokens of CodeGemma, which are unused in others.
            if not vocabulary.token_bytes(prefix).startswith(b"<unused"):
                ends = tuple(dict.fromkeys(named[role] for role in END_ROLES if role in named))
                return InfillTokens(prefix, suffix, middle, False, ends)
    return None


def _spelled(vocabulary: HasTokens) -> InfillTokens | None:
    """Returns the tokens of the first spelling of which the vocabulary has all."""
    for spelling in SPELLINGS:
        prefix, suffix = vocabulary.token_id(spelling.prefix), vocabulary.token_id(spelling.suffix)
        middle = None if spelling.middle is None else vocabulary.token_id(spelling.middle)
        if prefix is None or suffix is None or (middle is None) != (spelling.middle is None):
            continue
        ends = (vocabulary.token_id(text) for text in spelling.ends)
        known = tuple(end for end in ends if end is not None)
        return InfillTokens(prefix, suffix, middle, spelling.suffix_first, known)
    return None
