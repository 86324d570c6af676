"""Tests how tokens are shown: their text, and visible marks for what cannot be seen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.live import LiveServer
from tests.serving.page.scripted_traces import open_with, trace_of

SPELL = """async (pieces) => {
  const { Speller, label } = await import("/assets/core/spelling.js");
  const map = new Map(pieces.map((bytes, i) => [i, { bytes: Uint8Array.from(bytes), special: false }]));
  const speller = new Speller(map);
  return pieces.map((_, i) => ({ ...speller.push(i), label: label(i, map) }));
}"""
FAMILY = "👩‍👩‍👧"
FLAG = "🇫🇷"


@pytest.fixture
def spelled(page: Any, server: LiveServer) -> Any:
    """Returns a function that spells tokens with these bytes in the page."""
    page.goto(server.url)

    def spell(*pieces: bytes) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = page.evaluate(SPELL, [list(piece) for piece in pieces])
        return found

    return spell


@pytest.mark.page
def test_bytes_are_joined_across_tokens_and_every_way_to_divide_a_text_gives_the_same_text(
    spelled: Any,
) -> None:
    text = f"a é {FAMILY}{FLAG}ﬁ 語\n\u202eb"
    data = text.encode()
    for first in range(1, len(data), 3):
        parts = spelled(data[:first], data[first : first + 2], data[first + 2 :])
        assert "".join(part["text"] for part in parts) == text
        for part in parts:
            assert "".join(segment["text"] for segment in part["segments"]) == part["text"]


@pytest.mark.page
def test_halves_of_a_character_are_bytes_under_the_glyph_that_the_last_of_them_completes(
    spelled: Any,
) -> None:
    first, second = spelled(b"\xf0\x9f", b"\x98\x80")
    assert (first["text"], first["bytes"]) == ("", "F0 9F")
    assert (second["text"], second["bytes"]) == ("😀", "98 80")
    parts = spelled(b"\xf0", b"\x9f", b"\x98", b"\x80", b"a")
    assert [part["bytes"] for part in parts] == ["F0", "9F", "98", "80", None]
    assert [part["text"] for part in parts] == ["", "", "", "😀", "a"]


@pytest.mark.page
def test_a_whole_character_has_no_bytes_and_a_broken_one_shows_them(spelled: Any) -> None:
    whole, broken, told = spelled("é".encode(), b"a\xff", "\ufffd".encode())
    assert whole["bytes"] is None
    assert (broken["text"], broken["bytes"]) == ("a\ufffd", "61 FF")
    assert told["bytes"] is None


@pytest.mark.page
@pytest.mark.parametrize(
    ("text", "marks"),
    [
        (" the", [None]),
        (" ", ["·"]),
        ("   ", ["···"]),
        ("\n\n", ["⏎", "⏎"]),
        (".\n", [None, "⏎"]),
        ("\t", ["⇥"]),
        ("\u200b", ["U+200B"]),
        ("a\u202eb", [None, "U+202E", None]),
        ("\ufeff", ["U+FEFF"]),
        ("\x00", ["U+0000"]),
        (FAMILY, [None]),
        ("\u200d", ["U+200D"]),
        ("\u00ad", ["U+00AD"]),
    ],
)
def test_what_cannot_be_seen_gets_a_mark_before_its_text(
    spelled: Any, text: str, marks: list[str | None]
) -> None:
    [part] = spelled(text.encode())
    found = [segment["mark"] for segment in part["segments"]]
    assert found == marks
    assert part["text"] == text


@pytest.mark.page
def test_a_label_marks_the_spaces_at_the_ends_and_the_bytes_of_a_half(spelled: Any) -> None:
    labels = [part["label"] for part in spelled(b" the", b"a b ", b"\n\n", b"\xf0\x9f", b"", b"  ")]
    assert labels == ["·the", "a b·", "⏎⏎", "F0 9F", "(empty)", "··"]


HOSTILE = [
    b"<script>alert(1)</script>",
    b"<img src=x onerror=alert(1)>",
    b"[x](javascript:alert(1))",
    b"![](http://evil.example/?q=1)",
    b"&lt;b&gt;",
    "\u202eabc".encode(),
    "\u200b\u2066".encode(),
    b"</span></div>",
    "שלום".encode(),
    b"\xf0\x9f",
    b"\x98\x80",
    b".\n\n",
    b"x" * 10_000,
]


def test_hostile_tokens_are_shown_as_text_and_copied_as_they_are(page: Any, server: LiveServer) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    open_with(page, server, trace_of(HOSTILE))
    page.locator("#prompt").fill("<b>Once</b>")
    page.locator("#prompt").press("Enter")
    page.locator(".prompt-inline", has_text="<b>Once</b>").wait_for()
    page.wait_for_selector(".run[data-state=done]")
    whole = b"".join(HOSTILE).decode()
    assert page.evaluate("document.querySelector('.tokens').textContent") == whole
    assert page.locator(".tokens script, .tokens img, .tokens a, .tokens b").count() == 0
    copied = page.evaluate("""() => {
      getSelection().selectAllChildren(document.querySelector(".tokens"));
      return getSelection().toString();
    }""")
    assert copied.replace("\r", "") == whole
    assert page.locator(".token").count() == len(HOSTILE)
    # Ten thousand characters without a space do not make the page wider.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert dialogs == []


@pytest.mark.page
def test_the_mark_of_a_line_end_stands_before_the_break(page: Any, server: LiveServer) -> None:
    open_with(page, server, trace_of([b"a", b"\n\n", b"b", b".\n", b"c"]))
    newline, full_stop = page.locator(".token").nth(1), page.locator(".token").nth(3)
    assert newline.get_attribute("data-mark") == "⏎⏎"
    assert "⏎" in newline.evaluate("(e) => getComputedStyle(e, '::before').content")
    # The parts of a token in order: its text, the mark, the break.
    kinds = full_stop.evaluate("(e) => [...e.childNodes].map((n) => n.nodeName + (n.data ?? ''))")
    assert kinds == ["#text.", "I", "#text\n"]


@pytest.mark.page
def test_a_special_token_is_shown_and_is_no_part_of_the_text(page: Any, server: LiveServer) -> None:
    open_with(page, server, trace_of([b"Hi", b"<|end|>"], special=[1]))
    special = page.locator(".token.special")
    assert special.inner_text() == "<|end|>"
    assert special.evaluate("(e) => getComputedStyle(e).userSelect") == "none"
