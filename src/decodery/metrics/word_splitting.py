"""Splits texts into words and sentences, of every script, for metrics that compare words."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

# Chinese, Japanese, Thai, Lao, Burmese and Khmer have no spaces between words. Each letter is a token there.
UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff"
)
# A sentence ends at these marks before a space, and at those of Chinese and Japanese without one.
SPACED_END = re.compile("([.!?…؟।۔][\"'”’»)\\]]*)\\s+")
UNSPACED_END = re.compile("([。！？｡][\"'”’」』）)]*)")
LATIN = re.compile("[a-z0-9]+")


def words(text: str) -> list[str]:
    """Returns the words of a text in lower case: runs of letters, marks and digits of any script.

    In scripts without spaces between words each letter is a word, with its marks. Characters are composed
    (Unicode's NFC) first.
    """
    return _word_pattern().findall(unicodedata.normalize("NFC", text).lower())


def latin_words(text: str) -> list[str]:
    """Returns the runs of a-z and 0-9 of a text in lower case, as rouge-score does."""
    return LATIN.findall(text.lower())


def sentences(text: str) -> list[str]:
    """Returns the sentences of a text: it is divided between lines, and behind marks that end a sentence.

    A full stop within a line ends a sentence where a space follows, so also that of an abbreviation.
    """
    return lines(UNSPACED_END.sub("\\1\n", SPACED_END.sub("\\1\n", text)))


def lines(text: str) -> list[str]:
    """Returns the lines of a text that are not blank."""
    return [line for line in text.split("\n") if line.strip()]


@cache
def _word_pattern() -> re.Pattern[str]:
    """Returns the pattern of a word. Python's `\\w` has no marks, such as the vowels of Devanagari."""
    codes = range(sys.maxunicode + 1)
    marks = "".join(re.escape(chr(code)) for code in codes if unicodedata.category(chr(code))[0] == "M")
    # Joiners stand within words of Persian and of the scripts of India.
    more = f"[{marks}\u200c\u200d]"
    letter, single = f"(?![{UNSPACED}])[^\\W_]", f"(?=[{UNSPACED}])[^\\W_]"
    return re.compile(f"{single}{more}*|{letter}(?:{more}|{letter})*")
