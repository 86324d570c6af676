r"""Holds the regexes by which byte-level vocabularies cut a text into pieces before merges are applied.

They are written for the regex engine of the tokenizers library (Oniguruma), in which `[a&&[^b]]` is an
intersection of classes. Each repeats the pattern that a model's own `tokenizer.json` or code declares.
"""

from __future__ import annotations

# The parts of most patterns.
_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LINES = r"\s*[\r\n]+"
_SPACES = r"\s+(?!\S)|\s+"
_GAPS = rf"{_LINES}|{_SPACES}"

# GPT-2's own, and what llama.cpp takes for vocabularies that do not say how they cut.
GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
DEFAULT = (r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
LLAMA3 = rf"{_SUFFIXES}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_GAPS}"
QWEN2 = rf"{_SUFFIXES}|{_WORD}|\p{{N}}|{_SIGNS}|{_GAPS}"
QWEN35 = (
    rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_GAPS}"
)
# Turkish attaches suffixes with an apostrophe, so this pattern lacks the English ones.
UFAKZEKA = rf"{_WORD}|\p{{N}}|{_SIGNS}|{_GAPS}"
MINICPM5 = (r"\p{N}{1,3}", rf"{_SUFFIXES}|{_WORD}|\p{{N}}+|{_SIGNS}|{_GAPS}")
SEED_CODER = rf"{_SUFFIXES}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_GAPS}"
BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    rf"|\s*[\r\n]|{_SPACES}"
)
_WORDS_WITH_SPACES = r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"
EXAONE_MOE = rf"{_SUFFIXES}|{_WORDS_WITH_SPACES}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{_SPACES}"
# Runs of whitespace are cut to the lengths for which there are tokens.
_RUNS = "|".join(
    rf"\s{{{length}}}(?!\S)" for length in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")
)
JAIS2 = rf"{_SUFFIXES}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_LINES}|{_RUNS}|\s"
LINES = r"[^\n]+|\n+"
LAGUNA = (LINES, QWEN2)

# The patterns that begin a new piece at a capital letter within a word.
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_TAIL = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_GAPS}"


def _cased(upper: str, lower: str, suffix: str) -> str:
    lead = r"[^\r\n\p{L}\p{N}]?"
    return rf"{lead}{upper}*{lower}+{suffix}|{lead}{upper}+{lower}*{suffix}"


TEKKEN = rf"{_cased(_UPPER, _LOWER, '')}|\p{{N}}|{_CASED_TAIL}"
GPT4O = rf"{_cased(_UPPER, _LOWER, _SUFFIXES + '?')}|\p{{N}}{{1,3}}|{_CASED_TAIL}"
_NOT_HAN = r"&&[^\p{Han}]]"
KIMI_K2 = (
    rf"\p{{Han}}+|{_cased(_UPPER[:-1] + _NOT_HAN, _LOWER[:-1] + _NOT_HAN, _SUFFIXES + '?')}"
    rf"|\p{{N}}{{1,3}}|{_SIGNS}|{_GAPS}"
)
# Digits in groups of three, counted from the last one.
_DIGITS_FROM_THE_END = r"\d{1,3}(?=(?:\d{3})*\b)"
TINY_AYA = (_DIGITS_FROM_THE_END, GPT4O)
YOUTU = (
    r"[\x{ac00}-\x{d7a3}\x{3131}-\x{318e}]+"
    r"|[\x{ff01}\x{2026}\x{201c}\x{201d}\x{2018}\x{2019}\x{2014}\x{ff1a}\x{ff1b}\x{ff0c}\x{3001}-\x{303f}"
    r"\x{fe30}-\x{fe4f}]+|[\x{3105}-\x{312f}]+|[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+",
    rf"{_cased(_UPPER, _LOWER, _SUFFIXES + '?')}|\p{{N}}|{_CASED_TAIL}",
)

# DeepSeek LLM lists the letters of the cased scripts by code point, from an older version of Unicode.
CASED_LETTERS = (
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
EAST_ASIAN = r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+"
DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{CASED_LETTERS}]+",
    r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+",
    r"\s+$",
    EAST_ASIAN,
)
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST_ASIAN)
_CHINESE_AND_JAPANESE = r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+"
_SIGN_AND_WORD = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
_DEEPSEEK_TEXT = rf"{_SIGN_AND_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_GAPS}"
DEEPSEEK3 = (r"\p{N}{1,3}", _CHINESE_AND_JAPANESE, _DEEPSEEK_TEXT)
SPARK = (
    r"\p{N}{1,3}",
    _CHINESE_AND_JAPANESE,
    rf"{_SIGN_AND_WORD}| ?[\p{{P}}\p{{S}}]+|[\r\n]|{_SPACES}",
    r"\p{N}",
)
# CJK and the scripts of South-East Asia, which are written without spaces.
_UNSPACED = (
    r"[\x{4e00}-\x{9fff}\x{3400}-\x{4dbf}\x{8c48}-\x{faff}\x{3040}-\x{309f}\x{30a0}-\x{30ff}\x{ff65}-\x{ff9f}"
    r"\x{2f00}-\x{2fdf}\x{e40}-\x{e7f}\x{e80}-\x{eff}\x{1780}-\x{17ff}\x{1000}-\x{109f}\x{aa60}-\x{aa7f}"
    r"\x{a9e0}-\x{a9ff}\x{ac00}-\x{d7af}\x{1100}-\x{11ff}]+"
)
AFMOE = (r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", _UNSPACED, _DEEPSEEK_TEXT)

BLOOM = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{ff0c}\x{3001}\x{964}\x{6d4}\x{60c})]+"
SUPERBPE = (r"\p{N}+", r"(?=(\d{3})+(?!\d))")
CHAMELEON = (
    r"<sentinel:[0-9]+>",
    r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    r"([\t\n]|    |  )",
    r"\p{N}",
    r"[\p{P}!-/:-@\[-`{-~]",
)
