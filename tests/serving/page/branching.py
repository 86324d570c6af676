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


def ended(page: Any) -> None:
    """Waits until the shown run has ended."""
    page.wait_for_selector("#log .run[data-state=done]", timeout=LONGEST_MS)


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
    for (const details of folded) details.open = true;
    // What they hold is made when they have been opened.
    await new Promise((told) => setTimeout(told, 50));
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
