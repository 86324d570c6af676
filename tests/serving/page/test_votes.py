"""Tests how votes are counted, written as lines, read from files, and kept in the browser."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.serving.live import LiveServer

BLANK = "<!doctype html><html lang='en'><head><title>test</title></head><body></body></html>"
KEPT = "decodery-votes"
NAMES = ("greedy", "drawn", "beams")
CHOICES = ("one", "other", "tie", "both_bad")


@pytest.fixture
def blank(page: Any, server: LiveServer) -> Any:
    """Returns an empty document of the server's origin."""
    page.route("**/blank.html", lambda route: route.fulfill(body=BLANK, content_type="text/html"))
    page.goto(f"{server.url}/blank.html")
    return page


def vote(key: str, **more: Any) -> dict[str, Any]:
    """Returns a vote as the page saves it."""
    settings = {
        side: {"name": name, "model": "m", "params": {"seed": 1}}
        for side, name in (("one", "greedy"), ("other", "drawn"))
    }
    return {
        **{"id": key, "question": "q", "one": "a", "other": "b", "vote": "one", "shown_first": "other"},
        **{"settings": settings, "chat": False, "created": 5},
        **more,
    }


def counted(votes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the tallies of votes, counted without a pass that keeps sums."""
    pairs = dict.fromkeys(tuple(v["settings"][side]["name"] for side in ("one", "other")) for v in votes)
    found = []
    for pair in pairs:
        own = [v for v in votes if tuple(v["settings"][side]["name"] for side in ("one", "other")) == pair]
        decided = [v for v in own if v["vote"] in ("one", "other")]
        sums: dict[str, Any] = {name: sum(v["vote"] == name for v in own) for name in CHOICES}
        first = sum(v["vote"] == v["shown_first"] for v in decided)
        found.append({"names": list(pair), **sums, "first": first, "decided": len(decided)})
    return found


TALLIES = """async (votes) => {
  const { tallies } = await import("/assets/core/votes.js");
  const names = ({ one, other }) => [one.name, other.name];
  return tallies(votes).map(({ settings, ...sums }) => ({ names: names(settings), ...sums }));
}"""


@pytest.mark.page
def test_votes_are_counted_by_pairs_of_settings_with_the_place_of_the_winner(blank: Any) -> None:
    rng = random.Random(3)
    votes = []
    for i in range(400):
        one, other = rng.sample(NAMES, 2)
        more = {"vote": rng.choice(CHOICES), "shown_first": rng.choice(CHOICES[:2])}
        made = vote(str(i), **more)
        made["settings"]["one"]["name"], made["settings"]["other"]["name"] = one, other
        votes.append(made)
    assert blank.evaluate(TALLIES, votes) == counted(votes)
    assert blank.evaluate(TALLIES, []) == []


WILSON = """async (pairs) => {
  const { wilson } = await import("/assets/core/votes.js");
  return pairs.map(([hits, count]) => wilson(hits, count));
}"""


def test_the_interval_of_a_share_has_the_ends_at_which_a_test_of_the_share_is_just_significant(
    blank: Any,
) -> None:
    pairs = [(h, n) for n in (1, 2, 7, 10, 100, 3000) for h in {0, 1, n // 3, n // 2, n - 1, n}]
    for (hits, count), (low, high) in zip(pairs, blank.evaluate(WILSON, pairs), strict=True):
        share = hits / count
        assert 0 <= low <= share <= high <= 1
        for end in (low, high):
            if end in (0, 1):
                assert share == end
            else:
                score = abs(share - end) / math.sqrt(end * (1 - end) / count)
                assert score == pytest.approx(1.959963984540054, rel=1e-9)
    assert blank.evaluate(WILSON, [[0, 0]]) == [None]
    # A value from the literature: Newcombe 1998, table I, 0 of 20.
    assert blank.evaluate(WILSON, [[0, 20]])[0] == pytest.approx([0, 0.1611], abs=5e-5)


READ = """async ([text, name]) => {
  const { readVotes } = await import("/assets/core/import_votes.js");
  try {
    return await readVotes(new File([text], name));
  } catch (error) {
    return `${error.constructor.name}: ${error.message}`;
  }
}"""
LINES = 'async (votes) => (await import("/assets/core/votes.js")).toLines(votes)'


@pytest.mark.page
def test_votes_that_are_saved_are_read_again(blank: Any) -> None:
    texts = ("", "a\nb", "\u2028\u2029\x00\x7f", "\U0001f600 \u202e", "<img src=x onerror=alert(1)>")
    votes = [vote(str(i), question=text, one=text, other=f"{text}!") for i, text in enumerate(texts)]
    lines = blank.evaluate(LINES, votes)
    assert len(lines.split("\n")) == len(votes) + 1
    assert [json.loads(line) for line in lines.split("\n")[:-1]] == votes
    assert blank.evaluate(READ, [f"\ufeff{lines}\r\n\n", "v.jsonl"]) == votes
    # Fields that no vote has are left out.
    assert blank.evaluate(READ, [json.dumps({**votes[0], "more": 1}), "v.jsonl"]) == votes[:1]


def damaged(**more: Any) -> str:
    return json.dumps(vote("1", **more))


DAMAGED = {
    "an empty file": ("", "The file has no votes."),
    "other text": ("hello", "line 1 is not JSON"),
    "a half line": (damaged() + "\n" + damaged()[:50], "line 2 is not JSON"),
    "no object": ("[1]", "Line 1 is no vote of this page: the whole must be of the type object"),
    "no answers": ('{"id": "1", "vote": "one"}', "question must be there"),
    "another vote": (damaged(vote="A"), "vote must be one of one, other, tie, both_bad"),
    "a number for a text": (damaged(one=3), "one must be of the type string"),
    "settings of one": (damaged(settings={"one": {}}), "settings.other must be there"),
    "a forbidden key": ('{"id": "1", "__proto__": {"vote": "one"}}', "has the key __proto__"),
    "a deep value": ('{"id": ' + "[" * 100 + "]" * 100 + "}", "nested deeper"),
}


@pytest.mark.page
@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_holds_no_votes_is_refused_with_one_sentence(blank: Any, name: str) -> None:
    text, message = DAMAGED[name]
    found = blank.evaluate(READ, [text, "v.jsonl"])
    assert found.startswith("ImportError: ")
    assert message in found


KEEP = """async ([begin, added]) => {
  const { KeptVotes } = await import("/assets/core/kept_votes.js");
  const troubles = [];
  const votes = new KeptVotes();
  votes.addEventListener("trouble", ({ detail }) => troubles.push(detail));
  votes.load();
  const before = votes.list.map(({ id }) => id);
  const counts = added.map((one) => votes.add(one));
  return { before, counts, after: votes.list.map(({ id }) => id), troubles, begin };
}"""


def keep(page: Any, *added: list[dict[str, Any]]) -> dict[str, Any]:
    """Loads the votes that are kept, adds others, and returns what the browser has then."""
    found: dict[str, Any] = page.evaluate(KEEP, [None, list(added)])
    return found


@pytest.mark.page
def test_votes_are_kept_and_those_that_are_there_already_are_left_out(blank: Any) -> None:
    first = keep(blank, [vote("1"), vote("2")], [vote("2"), vote("3"), vote("3")])
    assert (first["before"], first["counts"], first["after"]) == ([], [2, 1], ["1", "2", "3"])
    blank.reload()
    again = keep(blank)
    assert (again["before"], again["troubles"]) == (["1", "2", "3"], [])


@pytest.mark.page
def test_a_damaged_vote_takes_no_other_with_it(blank: Any) -> None:
    # A name holds all parameters, such as a grammar.
    side = {"name": "grammar " + "x" * 10_000, "model": "m", "params": {}}
    votes = [vote("1", settings={"one": side, "other": side}), {"id": "2"}, vote("3")]
    blank.evaluate("(text) => localStorage.setItem('decodery-votes', text)", json.dumps(votes))
    found = keep(blank, [vote("4")])
    assert (found["before"], found["after"]) == (["1", "3"], ["1", "3", "4"])
    assert found["troubles"] == [
        "Some of the votes that this browser kept cannot be read. The next vote takes their place."
    ]
    blank.reload()
    assert keep(blank)["before"] == ["1", "3", "4"]


@pytest.mark.page
def test_two_tabs_keep_the_votes_of_both_and_clear_for_both(blank: Any, context: Any, watch: Any) -> None:
    other = context.new_page()
    watch.listen(other)
    other.route("**/blank.html", lambda route: route.fulfill(body=BLANK, content_type="text/html"))
    other.goto(blank.url)
    make = """async () => {
      const { KeptVotes } = await import("/assets/core/kept_votes.js");
      window.votes = new KeptVotes();
      window.votes.load();
    }"""
    for tab in (blank, other):
        tab.evaluate(make)
    for tab, key in ((blank, "1"), (other, "2"), (blank, "3")):
        tab.evaluate("(vote) => window.votes.add([vote])", vote(key))
    for tab in (blank, other):
        tab.wait_for_function("window.votes.list.length === 3")
    other.evaluate("window.votes.clear()")
    blank.wait_for_function("window.votes.list.length === 0")
    blank.evaluate("(vote) => window.votes.add([vote])", vote("4"))
    other.wait_for_function("window.votes.list.map(({ id }) => id).join() === '4'")
    # What another tab has written a moment ago, of which this one has not heard.
    set_item = f"(votes) => localStorage.setItem('{KEPT}', JSON.stringify(votes))"
    blank.evaluate(set_item, [vote("4"), vote("5")])
    blank.evaluate("(vote) => window.votes.add([vote])", vote("6"))
    other.wait_for_function("window.votes.list.map(({ id }) => id).join() === '4,5,6'")


FAULTS = {
    "no room for more votes": """Storage.prototype.setItem = () => {
      throw new DOMException("full", "QuotaExceededError");
    };""",
    "does not let the page keep votes": """Object.defineProperty(window, "localStorage", {
      get() { throw new DOMException("no", "SecurityError"); },
    });""",
    "cannot be read": f"localStorage.setItem('{KEPT}', '[{{}}]');",
}


@pytest.mark.page
@pytest.mark.parametrize("message", FAULTS)
def test_where_votes_cannot_be_kept_it_is_told_once_and_the_tally_goes_on(blank: Any, message: str) -> None:
    blank.evaluate(f"() => {{ {FAULTS[message]} }}")
    found = keep(blank, [vote("1")], [vote("2")])
    assert found["after"] == ["1", "2"]
    assert len(found["troubles"]) == 1
    assert message in found["troubles"][0]
