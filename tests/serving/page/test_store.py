"""Tests what the browser keeps of runs: finished tokens survive a reload, and trouble is told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.live import LiveServer
from tests.serving.page.branching import kept

# Returns the runs that a fresh store loads.
LOADED = """async () => {
  const { Store } = await import("/assets/core/store.js");
  const runs = await new Store().load();
  return runs.map(({ id, state, streams }) => ({ id, state, tokens: streams[0]?.tokens ?? [] }));
}"""
# Begins a run of the API by hand, and resolves when so many of its tokens are there.
BEGUN = """async ([tokens, count]) => {
  const { Api } = await import("/assets/core/api.js");
  const { Runs } = await import("/assets/core/runs.js");
  const { Store } = await import("/assets/core/store.js");
  const runs = new Runs(new Api(), new Store());
  const params = { max_tokens: tokens, seed: 3, ignore_eos: true };
  const [run] = runs.start({ requests: [{ prompt: "Once", params }] });
  const missing = () => (run.streams[0]?.positions.length ?? 0) < count && !run.ended;
  while (missing()) await new Promise((done) => setTimeout(done, 2));
  return { id: run.id, tokens: run.streams[0].tokens };
}"""


def loaded(page: Any, run: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in page.evaluate(LOADED) if one["id"] == run)
    return found


@pytest.mark.page
def test_finished_tokens_are_there_after_a_reload_in_the_middle_and_the_run_is_cut(
    page: Any, server: LiveServer
) -> None:
    page.goto(server.url)
    begun = page.evaluate(BEGUN, [900, 200])
    page.reload()
    found = loaded(page, begun["id"])
    assert found["state"] == "cut"
    # What came in the last half second is written when the page is left.
    assert len(found["tokens"]) >= 150
    assert found["tokens"][:150] == begun["tokens"][:150]


def test_a_run_that_has_ended_is_there_whole(page: Any, server: LiveServer) -> None:
    page.goto(server.url)
    begun = page.evaluate(BEGUN, [30, 30])
    kept(page, begun["id"], 30)
    for _ in range(2):
        page.reload()
        found = loaded(page, begun["id"])
        assert (found["state"], found["tokens"]) == ("done", begun["tokens"])


@pytest.mark.page
def test_runs_are_removed_one_by_one_and_all(page: Any, server: LiveServer) -> None:
    page.goto(server.url)
    first, second = (page.evaluate(BEGUN, [3, 3])["id"] for _ in range(2))
    for run in (first, second):
        kept(page, run, 3)
    use = 'async (id) => new (await import("/assets/core/store.js")).Store()'
    page.evaluate(f"async (id) => (await ({use})()).remove(id)", first)
    assert {one["id"] for one in page.evaluate(LOADED)} >= {second}
    assert first not in {one["id"] for one in page.evaluate(LOADED)}
    page.evaluate(f"async () => (await ({use})()).clear()")
    assert page.evaluate(LOADED) == []


FAULTS = {
    "a browser that forbids it": 'indexedDB.open = () => { throw new DOMException("no", "SecurityError"); };',
    "no storage at all": 'Object.defineProperty(window, "indexedDB", { value: undefined });',
    "no room": """IDBObjectStore.prototype.put = function () {
      throw new DOMException("full", "QuotaExceededError");
    };""",
}


@pytest.mark.page
def test_where_runs_cannot_be_kept_the_page_says_so_once_and_works(context: Any, server: LiveServer) -> None:
    words = {"no room": "no room"}
    for name, fault in FAULTS.items():
        page = context.new_page()
        page.add_init_script(fault)
        page.goto(server.url)
        page.wait_for_selector("[data-state=done]")
        notice = page.locator(".notice", has_text=words.get(name, "does not let the page keep runs"))
        notice.wait_for()
        assert notice.count() == 1, name
        page.close()
