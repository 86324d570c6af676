"""Branches texts in the page of a browser, as the inspector does, and reads the runs of the page."""

from __future__ import annotations

from typing import Any

# A busy machine takes long for a text.
LONGEST_MS = 40_000
_PLAIN = """(detail) => {
  const { run, stream } = detail;
  return {
    id: run.id,
    title: run.title,
    parent: run.parent,
    state: run.state,
    prompt: run.promptTokenIds,
    generated: run.generated,
    cached: run.cachedTokens,
    drawn: run.drawn,
    seed: run.seed,
    params: run.params,
    steps: run.steps.length,
    text: stream.text,
    finish: stream.finishReason,
    tokens: stream.positions.map(({ token }) => token),
    picked: stream.positions.map(({ picked }) => picked),
    choices: stream.positions.map(({ choice }) => choice),
  };
}"""
# The events of the page hold the run that is shown.
_AT = f"""async ([index, token]) => {{
  const plain = {_PLAIN};
  const view = document.querySelector('#view-write');
  // The pieces of a view are loaded after it.
  while (!view.querySelector('.prompt-menu')) await new Promise(requestAnimationFrame);
  const place = document.querySelector(`#log .token[data-i="${{index}}"]`);
  const detail = await new Promise((told) => {{
    view.addEventListener('position', (event) => told(event.detail), {{ once: true }});
    place.dispatchEvent(new PointerEvent('pointerover', {{ bubbles: true }}));
  }});
  if (token !== null) {{
    const asked = {{ ...detail, index, token }};
    place.dispatchEvent(new CustomEvent('branch', {{ bubbles: true, detail: asked }}));
  }}
  return plain(detail);
}}"""


def run_of(page: Any) -> dict[str, Any]:
    """Returns the run that the view shows, and its shown stream."""
    found: dict[str, Any] = page.evaluate(_AT, [0, None])
    return found


def ended(page: Any, count: int = 1) -> None:
    """Waits until so many runs are shown, and all have ended."""
    run = page.locator("#log .run[data-state=done]")
    run.nth(count - 1).wait_for(timeout=LONGEST_MS)


_KEPT = """async ([id, count, longest]) => {
  const { Store } = await import('/assets/core/store.js');
  const store = new Store();
  const kept = async () => (await store.load()).find((run) => run.id === id);
  const isThere = (run) => count > 0 && run.state === 'done' && run.streams[0].positions.length === count;
  const began = performance.now();
  for (let run = await kept(); run === undefined ? count > 0 : !isThere(run); run = await kept()) {
    if (performance.now() - began > longest) throw new Error(`The run is not kept as it is shown.`);
    await new Promise(requestAnimationFrame);
  }
}"""


def kept(page: Any, run: str, tokens: int) -> None:
    """Waits until the browser keeps an ended run with so many tokens; with 0, until it keeps it no more."""
    page.evaluate(_KEPT, [run, tokens, LONGEST_MS])


# Only numbers are given: ids of runs are bytes, and stay different.
_SEEDS = """(seed) => {
  const random = crypto.getRandomValues.bind(crypto);
  crypto.getRandomValues = (values) => (values instanceof Uint32Array ? values.fill(seed) : random(values));
}"""


def give_seed(page: Any, seed: int) -> None:
    """Makes this number the seed of each run that is started without one."""
    page.evaluate(_SEEDS, seed)


def show_tree(page: Any) -> Any:
    """Opens the tab with the trees, and returns that of the branches."""
    page.get_by_role("tab", name="Branches").click()
    return page.locator(".branch-tree")


def ask_branch(page: Any, index: int, token: int) -> dict[str, Any]:
    """Picks a candidate of a position of the shown text; returns the run that was shown."""
    found: dict[str, Any] = page.evaluate(_AT, [index, token])
    return found


def branch(page: Any, index: int, token: int) -> dict[str, Any]:
    """Goes on from a position of the shown text with this token, to the end; returns the branch."""
    before = ask_branch(page, index, token)
    shown = f'#log .run[data-state=done]:not([data-run="{before["id"]}"])'
    page.wait_for_selector(shown, timeout=LONGEST_MS)
    return run_of(page)


def other_candidate(run: dict[str, Any], index: int, place: int = 0) -> int:
    """Returns a candidate of a position that is not its token."""
    others = [c["token"] for c in run["choices"][index]["candidates"] if c["token"] != run["tokens"][index]]
    found: int = others[place]
    return found


_UNFOLD = """async (tree) => {
  for (;;) {
    const folded = [...tree.querySelectorAll('details:not([open])')];
    if (folded.length === 0) return;
    // What they hold is made when they have been opened.
    const opened = folded.map((details) => new Promise((told) => {
      details.addEventListener('toggle', told, { once: true });
    }));
    for (const details of folded) details.open = true;
    await Promise.all(opened);
  }
}"""


def unfold(tree: Any) -> None:
    """Opens everything in a tree that is folded."""
    tree.evaluate(_UNFOLD)


def accessible(page: Any) -> bool:
    """True if axe-core finds no fault in the page; fails with what it finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    return True
