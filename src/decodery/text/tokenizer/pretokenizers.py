"""Holds the pre-tokenizers of byte-level vocabularies: one scheme for each name in `tokenizer.ggml.pre`.

A GGUF file names its pre-tokenizer and does not describe it. The schemes repeat what the models' own
`tokenizer.json` files declare.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

from decodery.errors import CheckpointError

# Steps that are built into the tokenizers library. Any other step is a regex whose matches are isolated.
_SINGLE_DIGITS = "single digits"
_DIGIT_RUNS = "digit runs"
_PUNCTUATION_RUNS = "punctuation runs"
_GPT2 = "GPT-2's regex, then bytes to their alphabet"

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_TEKKEN = rf"{_UPPER}*{_LOWER}+|{_UPPER}+{_LOWER}*|\p{{N}}|{_CASED_TAIL}"
_GPT4O = rf"{_UPPER}*{_LOWER}+{_CONTRACTION}|{_UPPER}+{_LOWER}*{_CONTRACTION}|\p{{N}}{{1,3}}|{_CASED_TAIL}"

# DeepSeek LLM lists the letters of the cased scripts by code point, from an older version of Unicode.
_CASED_LETTERS = (
    r"A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}"
    r"\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}"
    r"\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}"
    r"\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}"
    r"\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}"
    r"\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}"
    r"\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}"
    r"\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}"
    r"\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}"
    r"\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}"
    r"\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}"
    r"\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}"
    r"\x{118a0}-\x{118df}\x{1e900}-\x{1e943}"
)
_EAST_ASIAN = r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+"
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_CASED_LETTERS}]+",
    r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+",
    r"\s+$",
    _EAST_ASIAN,
    _SINGLE_DIGITS,
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST_ASIAN, _SINGLE_DIGITS)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


@dataclass(frozen=True, slots=True)
class Scheme:
    """Holds what the name of a pre-tokenizer implies.

    `compose`: text is normalized to Unicode form C first. `ignore_merges`: a piece that is itself a token is
    encoded as that token without applying merges. `add_bos`: the default when the file lacks the key.
    """

    steps: tuple[str, ...]
    compose: bool = False
    ignore_merges: bool = False
    add_bos: bool = False


_PLAIN_GPT2 = Scheme((_GPT2,))
_NEOX = Scheme((_GPT2,), compose=True)
_DIGITS_GPT2 = Scheme((_SINGLE_DIGITS, _GPT2))
_LLAMA3_SCHEME = Scheme((_LLAMA3,), ignore_merges=True, add_bos=True)
_GPT4O_SCHEME = Scheme((_GPT4O,))

SCHEMES: dict[str, Scheme] = {
    "default": _PLAIN_GPT2,
    "gpt-2": _PLAIN_GPT2,
    "phi-2": _PLAIN_GPT2,
    "jina-v1-en": _PLAIN_GPT2,
    "jina-v2-code": _PLAIN_GPT2,
    "jina-v2-de": _PLAIN_GPT2,
    "jina-v2-es": _PLAIN_GPT2,
    "jina-de": _PLAIN_GPT2,
    "jina-es": _PLAIN_GPT2,
    "mpt": _NEOX,
    "olmo": _NEOX,
    "smollm": _DIGITS_GPT2,
    "starcoder": _DIGITS_GPT2,
    "refact": _DIGITS_GPT2,
    "codeshell": _DIGITS_GPT2,
    "exaone": _DIGITS_GPT2,
    "command-r": Scheme((_SINGLE_DIGITS, _GPT2), compose=True),
    "falcon": Scheme((_PUNCTUATION_RUNS, _GPT2, _DIGIT_RUNS, "[0-9][0-9][0-9]")),
    "llama-bpe": _LLAMA3_SCHEME,
    "llama3": _LLAMA3_SCHEME,
    "llama-v3": _LLAMA3_SCHEME,
    "dbrx": Scheme((_LLAMA3,)),
    "smaug-bpe": Scheme((_LLAMA3,)),
    "qwen2": Scheme((_QWEN2,), compose=True),
    "deepseek-r1-qwen": Scheme((_QWEN2,), compose=True),
    "stablelm2": Scheme((_QWEN2,)),
    "tekken": Scheme((_TEKKEN,), ignore_merges=True, add_bos=True),
    "gpt-4o": _GPT4O_SCHEME,
    "llama4": _GPT4O_SCHEME,
    "deepseek-llm": Scheme(_DEEPSEEK_LLM),
    "deepseek-coder": Scheme(_DEEPSEEK_CODER),
    "deepseek-v3": Scheme(_DEEPSEEK3),
}


def scheme_named(name: str) -> Scheme:
    """Returns the scheme of a pre-tokenizer. Raises `CheckpointError`, with all known names, if unknown."""
    try:
        return SCHEMES[name]
    except KeyError:
        raise CheckpointError(
            f"the vocabulary's pre-tokenizer {name!r} (tokenizer.ggml.pre) is unknown; "
            f"known are {', '.join(sorted(SCHEMES))}"
        ) from None


def build_pre_tokenizer(scheme: Scheme, *, add_prefix_space: bool = False) -> pre_tokenizers.PreTokenizer:
    """Returns the library's pre-tokenizer of a scheme; its last step maps bytes to their alphabet."""
    steps = [_build_step(step, add_prefix_space) for step in scheme.steps]
    if _GPT2 not in scheme.steps:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=False))
    return pre_tokenizers.Sequence(steps)


def _build_step(step: str, add_prefix_space: bool) -> pre_tokenizers.PreTokenizer:
    if step == _SINGLE_DIGITS:
        return pre_tokenizers.Digits(individual_digits=True)
    if step == _DIGIT_RUNS:
        return pre_tokenizers.Digits(individual_digits=False)
    if step == _PUNCTUATION_RUNS:
        return pre_tokenizers.Punctuation(behavior="contiguous")
    if step == _GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=True)
    return pre_tokenizers.Split(Regex(step), behavior="isolated")
