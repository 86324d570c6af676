"""Tests the tree of beams: its form against that of the library's pictures, and how it is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decodery.pictures.beam_tree import build_tree
from decodery.pictures.generation_trace import traces_of
from tests.serving.live import LiveServer
from tests.serving.page.branching import accessible, run_of, unfold
from tests.serving.test_trace_route import lines_of

BEAMS: dict[str, dict[str, Any]] = {
    "beams": {"type": "beam_search", "num_beams": 4, "num_return_sequences": 3},
    "early": {"type": "beam_search", "num_beams": 3, "early_stopping": True},
    "groups": {"type": "beam_search", "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
    "forced": {"type": "beam_search", "num_beams": 4, "force_words": [[66], [67]]},
    "stochastic": {"type": "stochastic_beam_search", "num_beams": 5},
}
TREE = """async (lines) => {
  const { Run, RunReader } = await import('/assets/core/run.js');
  const { beamTree, chains, dropped, fateOf } = await import('/assets/core/beams.js');
  const run = new Run({});
  const reader = new RunReader([run]);
  for (const line of lines) reader.feed(line);
  const tree = beamTree(run);
  const read = [];
  const walk = ({ pieces }) => pieces.forEach(({ nodes, parting, dropped }) => {
    read.push(...nodes.map(({ index }) => index), ...dropped.map(({ index }) => index));
    parting.forEach(walk);
  });
  const begun = chains(tree);
  begun.forEach(walk);
  read.push(...dropped(tree).map(({ index }) => index));
  return {
    nodes: tree.nodes.map((node) => ({ ...node, why: fateOf(tree, node) })),
    read,
    main: begun[0].nodes.map(({ token }) => token),
  };
}"""


def lines_with_beams(server: LiveServer, strategy: dict[str, Any]) -> list[dict[str, Any]]:
    params = {"strategy": strategy, "max_tokens": 8, "seed": 2, "logit_bias": {"256": 3.0}}
    return lines_of(server, requests=[{"prompt": "Hello", "params": params}], candidates=2, texts=True)


@pytest.mark.page
@pytest.mark.parametrize("strategy", BEAMS.values(), ids=BEAMS)
def test_the_tree_is_that_of_the_pictures_and_is_read_once(
    opened: Any, server: LiveServer, strategy: dict[str, Any]
) -> None:
    lines = lines_with_beams(server, strategy)
    whole = lines_of(
        server,
        requests=[{"prompt": "Hello", "params": lines[0]["requests"][0]["params"] | {"seed": 2}}],
        candidates=2,
    )
    [trace] = traces_of(map(json.dumps, whole))
    tree = build_tree(trace.beams, trace.output.completions)
    found = opened.evaluate(TREE, lines)
    # The pictures sort the candidates of a step.
    expected = {id(node.candidate): node for node in tree.nodes}
    candidates = [candidate for beams in trace.beams for candidate in beams]
    for candidate, node in zip(candidates, found["nodes"], strict=True):
        other = expected[id(candidate)]
        assert node["fate"] == candidate.fate
        assert (node["pruned"], node["chosen"]) == (other.pruned, other.chosen)
        assert node["returned"] == other.completion
        assert node["share"] == pytest.approx(other.share)
    assert sorted(found["read"]) == list(range(len(found["nodes"])))
    best = trace.output.completions[0].token_ids
    assert found["main"][: len(best)] == best


@pytest.mark.page
def test_a_pruned_candidate_says_what_it_lost_against(opened: Any, server: LiveServer) -> None:
    nodes = opened.evaluate(TREE, lines_with_beams(server, BEAMS["beams"]))["nodes"]
    for node in nodes:
        kept = [
            other["score"] for other in nodes if other["step"] == node["step"] and other["fate"] == "kept"
        ]
        if node["fate"] == "pruned" and kept and node["score"] < min(kept):
            worst = f"{min(kept):.2f}".replace("-", "−")
            assert node["why"].endswith(f"is below that of the worst kept one, {worst}")
        elif node["fate"] == "kept" and node["pruned"]:
            assert node["why"] == f"none of its continuations was kept at step {node['pruned']}"


SHOW = """async (params) => {
  // The pieces of a view are loaded after it.
  while (!document.querySelector('.prompt-menu')) await new Promise(requestAnimationFrame);
  const { Api } = await import('/assets/core/api.js');
  const { Run, RunReader } = await import('/assets/core/run.js');
  const { renderBeamTree } = await import('/assets/parts/beam_tree.js');
  const run = new Run({});
  const reader = new RunReader([run]);
  const place = document.querySelector('section[aria-label=Beams]');
  place.hidden = false;
  document.querySelector('#tab-tree').click();
  document.querySelector('.details').classList.add('open');
  renderBeamTree(place, run);
  const body = { candidates: 2, texts: true, requests: [{ prompt: 'Hello', params }] };
  for await (const line of new Api().lines('/trace', body)) reader.feed(line);
  await new Promise(requestAnimationFrame);
  place.addEventListener('branch', ({ detail }) => { window.branched = detail.tokens; });
  return run.steps.flat().length;
}"""


@pytest.mark.page
@pytest.mark.parametrize("width", [360, 1280])
def test_sixty_candidates_read_downwards_and_fit_a_phone(opened: Any, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 720})
    params = {"strategy": {"type": "beam_search", "num_beams": 15}, "max_tokens": 4, "seed": 1}
    assert opened.evaluate(SHOW, params) >= 60
    tree = opened.locator("section[aria-label=Beams]")
    unfold(tree)
    assert tree.evaluate("tree => tree.scrollWidth <= tree.clientWidth")
    boxes = [box for token in tree.locator(".beam-token").all() if (box := token.bounding_box())]
    assert max(box["x"] + box["width"] for box in boxes) <= width
    # No column a level: a text that goes on stands where it began.
    main = tree.locator(".outermost > .branch > .piece > .beam-token")
    lefts = {
        round(piece.bounding_box()["x"]) for piece in tree.locator(".outermost > .branch > .piece").all()
    }
    assert main.count() == 4
    assert len(lefts) == 1
    assert accessible(opened)


@pytest.mark.page
def test_a_candidate_is_reached_by_keyboard_and_goes_on_from_there(opened: Any) -> None:
    params = {"strategy": {"type": "beam_search", "num_beams": 3}, "max_tokens": 4, "seed": 1}
    opened.evaluate(SHOW, params)
    tree = opened.locator("section[aria-label=Beams]")
    summary = tree.locator("summary").last
    summary.focus()
    opened.keyboard.press("Enter")
    # What is folded is made when it is opened.
    tree.locator("details[open] .dropped button").first.wait_for()
    opened.keyboard.press("Tab")
    node = opened.evaluate("document.activeElement.dataset.tokenId")
    assert "is below that of the worst kept one" in tree.get_by_role("status").inner_text()
    tree.get_by_role("button", name="Go on from here").click()
    assert opened.evaluate("window.branched").pop() == int(node)


@pytest.mark.page
def test_a_text_goes_on_from_a_beam_as_a_new_search(page: Any, server: LiveServer) -> None:
    def with_beams(route: Any) -> None:
        body = json.loads(route.request.post_data or "{}")
        for request in body.get("requests", ()):
            request["params"] |= {"strategy": {"type": "beam_search", "num_beams": 3}, "max_tokens": 6}
        route.continue_(post_data=json.dumps(body) if body else None)

    page.route("**/trace", with_beams)
    page.goto(server.url)
    page.wait_for_selector("#log .run[data-state=done]")
    first = run_of(page)
    page.get_by_role("tab", name="Branches").click()
    tree = page.locator("section[aria-label=Beams]")
    unfold(tree)
    tree.locator(".dropped button").last.click()
    token = int(tree.locator(".dropped button").last.get_attribute("data-token-id"))
    tree.get_by_role("button", name="Go on from here").click()
    page.wait_for_selector(f'#log .run[data-state=done]:not([data-run="{first["id"]}"])')
    second = run_of(page)
    assert second["generated"] > 0
    assert second["tokens"][second["generated"] - 1] == token
    assert len(second["tokens"]) == 6
    assert second["steps"] == 6 - second["generated"]
    assert second["parent"]["run"] == first["id"]
