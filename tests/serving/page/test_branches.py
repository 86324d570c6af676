"""Tests branches: a text goes on from a candidate that was clicked, and the old one stays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decodery import LLM, GenerationParams
from tests.serving.live import LiveServer
from tests.serving.page.branching import (
    accessible,
    ask_branch,
    branch,
    give_seed,
    other_candidate,
    run_of,
    show_tree,
    unfold,
)

END = 256
FIRST = "Once upon a time"


@pytest.mark.page
def test_a_branch_asks_for_the_parents_ids_then_the_candidate(opened: Any) -> None:
    asked: list[dict[str, Any]] = []

    def note(request: Any) -> None:
        if request.url.endswith("/trace"):
            asked.append(json.loads(request.post_data))

    parent = run_of(opened)
    token = other_candidate(parent, 9)
    opened.on("request", note)
    child = branch(opened, 9, token)
    [body] = asked
    [request] = body["requests"]
    assert request["prompt"] == [*parent["prompt"], *parent["tokens"][:9], token]
    assert request["generated"] == 10
    assert request["params"] == parent["params"] | {"seed": parent["seed"]}
    assert child["tokens"][:10] == [*parent["tokens"][:9], token]
    assert child["picked"] == [False] * 9 + [True] + [False] * 30
    assert child["parent"] == {"run": parent["id"], "stream": 0, "position": 9, "token": token}


@pytest.mark.page
def test_the_token_that_was_drawn_gives_the_old_text_again(opened: Any) -> None:
    parent = run_of(opened)
    child = branch(opened, 12, parent["tokens"][12])
    assert child["id"] != parent["id"]
    assert (child["tokens"], child["text"], child["finish"]) == (
        parent["tokens"],
        parent["text"],
        parent["finish"],
    )


def test_a_branch_is_what_the_library_says_and_runs_no_prompt_again(opened: Any, library: LLM) -> None:
    parent = run_of(opened)
    token = other_candidate(parent, 30)
    child = branch(opened, 30, token)
    ids = [*parent["prompt"], *parent["tokens"][:30], token]
    params = GenerationParams(max_tokens=40, temperature=0.8, seed=7)
    prepared = library.intake.prepare(ids, params, generated=31)
    prepared.add_with(library.engine.add)
    rest = []
    while library.engine.has_work():
        rest += [token for event in library.engine.step() for token in event.tokens]
    assert child["tokens"][31:] == rest
    assert child["cached"] == (len(ids) - 1) // 16 * 16


@pytest.mark.page
def test_a_picked_candidate_has_its_own_numbers(opened: Any) -> None:
    parent = run_of(opened)
    candidates = parent["choices"][5]["candidates"]
    place, picked = next((i, c) for i, c in enumerate(candidates) if c["token"] != parent["tokens"][5])
    choice = branch(opened, 5, picked["token"])["choices"][5]
    assert (choice["token"], choice["before"], choice["after"]) == tuple(
        picked[key] for key in ("token", "before", "after")
    )
    assert choice["rank"] == place + 1


@pytest.mark.page
def test_the_end_that_was_picked_ends_visibly(opened: Any) -> None:
    parent = run_of(opened)
    child = branch(opened, 4, END)
    assert (child["finish"], child["tokens"]) == ("stop", [*parent["tokens"][:4], END])
    assert opened.locator("#log .token").last.inner_text() == "<|end|>"
    assert opened.get_by_text("5 tokens: the model ended it").is_visible()
    assert show_tree(opened).get_by_text("ended by <|end|>").is_visible()


@pytest.mark.page
def test_half_a_character_stays_a_token_of_its_own(opened: Any, library: LLM) -> None:
    first, second = library.tokenizer.encode("é")
    parent = run_of(opened)
    child = branch(opened, 3, first)
    assert child["tokens"][:4] == [*parent["tokens"][:3], first]
    again = branch(opened, 4, second)
    assert again["tokens"][:5] == [*parent["tokens"][:3], first, second]
    assert opened.locator('#log [data-i="4"]').inner_text().startswith("é")


@pytest.mark.page
def test_a_candidate_that_the_grammar_forbids_is_refused_and_the_text_stays(opened: Any, watch: Any) -> None:
    watch.allowed.append("400")
    parent = run_of(opened)
    opened.route("**/trace", lambda route: route.continue_(post_data=_with_grammar(route.request.post_data)))
    ask_branch(opened, 3, other_candidate(parent, 3))
    opened.wait_for_selector(".notice.error")
    opened.wait_for_selector(f'#log .run[data-run="{parent["id"]}"]')
    assert opened.locator(".notice.error").inner_text().startswith("the grammar does not allow token")
    assert run_of(opened)["id"] == parent["id"]


def _with_grammar(body: str) -> str:
    plain = json.loads(body)
    plain["requests"][0]["params"]["grammar"] = {"type": "regex", "pattern": "x+"}
    return json.dumps(plain)


@pytest.mark.page
def test_branches_are_kept_named_compared_and_removed(opened: Any) -> None:
    first = run_of(opened)
    second = branch(opened, 10, other_candidate(first, 10))
    third = branch(opened, 20, other_candidate(second, 20))
    tree = show_tree(opened)
    assert tree.locator("[data-branch]").count() == 3
    tree.get_by_role("button", name="Rename").click()
    hostile = "<img src=x onerror=alert(1)>"
    opened.get_by_label("Name", exact=True).fill(hostile)
    opened.get_by_role("dialog").get_by_role("button", name="Rename").click()
    assert tree.get_by_role("button", name=hostile).count() == 1
    tree.get_by_label("Compare with").select_option(FIRST)
    assert tree.get_by_role("heading", name="They part at token 11").count() == 1
    shared = tree.locator(".shared").inner_text()
    assert len(shared) >= 10
    sides = tree.locator(".side .tokens")
    assert [sides.nth(i).locator(".token").count() for i in (0, 1)] == [30, 30]
    assert accessible(opened)
    # The middle one goes; what grew on it stays, with its text.
    tree.get_by_role("button", name=FIRST).click()
    assert run_of(opened)["id"] == first["id"]
    tree.locator("[data-branch]").nth(1).click()
    assert run_of(opened)["id"] == second["id"]
    tree.get_by_role("button", name="Remove").click()
    assert run_of(opened)["id"] == first["id"]
    assert tree.locator("[data-branch]").count() == 2
    tree.get_by_role("button", name=hostile).click()
    left = run_of(opened)
    assert left["tokens"] == third["tokens"]
    assert left["parent"] == {"run": first["id"], "stream": 0, "position": 10, "token": second["tokens"][10]}


@pytest.mark.page
def test_the_same_candidate_opens_the_branch_that_is_there(opened: Any) -> None:
    first = run_of(opened)
    token = other_candidate(first, 6)
    second = branch(opened, 6, token)
    show_tree(opened).get_by_role("button", name=FIRST).click()
    assert branch(opened, 6, token)["id"] == second["id"]
    # In place of a token that was picked, another makes a sibling, not a child.
    third = branch(opened, 6, other_candidate(first, 6, 1))
    assert third["parent"] == second["parent"] | {"token": third["tokens"][6]}


@pytest.mark.page
def test_a_text_is_drawn_again_from_a_token_and_written_on(opened: Any) -> None:
    first = run_of(opened)
    give_seed(opened, 99)
    opened.locator('#log [data-i="8"]').click()
    opened.get_by_role("button", name="Draw again from here").click()
    opened.wait_for_selector(f'#log .run[data-state=done]:not([data-run="{first["id"]}"])')
    second = run_of(opened)
    assert second["tokens"][:8] == first["tokens"][:8]
    assert second["tokens"] != first["tokens"]
    assert second["seed"] != first["seed"]
    opened.get_by_role("button", name="Write on at the end").click()
    opened.wait_for_selector(f'#log .run[data-state=done]:not([data-run="{second["id"]}"])')
    third = run_of(opened)
    assert third["tokens"][:40] == second["tokens"]
    assert (third["params"]["max_tokens"], third["seed"]) == (80, second["seed"])


MANY = """async () => {
  // The pieces of a view are loaded after it.
  while (!document.querySelector('.prompt-menu')) await new Promise(requestAnimationFrame);
  const { Run, Position } = await import('/assets/core/run.js');
  const { Runs } = await import('/assets/core/runs.js');
  const { Store } = await import('/assets/core/store.js');
  const { mountBranchTree } = await import('/assets/parts/branch_tree.js');
  const { treeOf } = await import('/assets/core/branches.js');
  const runs = new Runs(null, { load: async () => [], save: async () => {}, remove: async () => {} });
  const spelled = (letter) => ({ bytes: new TextEncoder().encode(letter), special: false });
  const pieces = new Map([...'abcdefghij '].map((letter, i) => [i, spelled(letter)]));
  const make = (parent, position, number) => {
    const run = new Run({ title: `branch ${number}`, prompt: parent === null ? 'Once' : null, pieces,
      parent: parent && { run: parent.id, stream: 0, position, token: number % 10 } });
    run.state = 'done';
    const stream = run.stream(0);
    const kept = parent === null ? [] : parent.streams[0].positions.slice(0, position);
    stream.positions = [...kept, new Position(number % 10, null, { picked: true }),
      ...Array.from({ length: 40 }, (_, i) => new Position((i * number) % 11))];
    runs.add(run);
    return run;
  };
  const levels = [[make(null, 0, 1)]];
  for (let number = 2; number <= 60; number += 1) {
    const level = number <= 11 ? 1 : number <= 28 ? 2 : 3;
    const parents = levels[level - 1];
    const parent = parents[number % parents.length];
    (levels[level] ??= []).push(make(parent, parent.streams[0].positions.length - 30 + (number % 2), number));
  }
  const place = document.createElement('section');
  place.className = 'sheet branch-tree many';
  document.querySelector('#panel-tree').replaceChildren(place);
  document.querySelector('#tab-tree').click();
  document.querySelector('.details').classList.add('open');
  mountBranchTree(place, { runs }).show(levels[3][0], levels[3][0].stream(0));
  const covered = {};
  const walk = ({ run, pieces, from }) => {
    const edges = pieces.flatMap((piece) => [piece.from, piece.to]);
    covered[run.title] = [from, ...edges, run.streams[0].positions.length];
    pieces.forEach(({ branches }) => branches.forEach(walk));
  };
  walk(treeOf(runs.list(), levels[0][0]));
  return covered;
}"""


@pytest.mark.page
@pytest.mark.parametrize("width", [360, 1280])
def test_sixty_branches_of_four_levels_read_downwards(opened: Any, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 720})
    covered = opened.evaluate(MANY)
    assert len(covered) == 60
    for edges in covered.values():
        # Each text stands once: its pieces follow each other from where it parts to its end.
        assert edges[0] == edges[1]
        assert edges[-1] == edges[-2]
        assert edges[2:-2:2] == edges[3:-2:2]
    tree = opened.locator(".many")
    assert tree.locator("details").count() > 0
    unfold(tree)
    assert tree.locator("[data-branch]").count() == 60
    assert tree.evaluate("tree => tree.scrollWidth <= tree.clientWidth")
    lefts = {round(button.bounding_box()["x"]) for button in tree.locator("[data-branch]").all()}
    assert len(lefts) == 4
    assert max(lefts) - min(lefts) < 90
    assert opened.locator("*").count() < 5000
    assert accessible(opened)


@pytest.mark.page
def test_a_branch_is_made_and_opened_by_keyboard_alone(opened: Any) -> None:
    first = run_of(opened)
    branch(opened, 10, other_candidate(first, 10))
    show_tree(opened).get_by_role("button", name="Rename").focus()
    for _ in range(3):
        opened.keyboard.press("Tab")
    opened.keyboard.press("Enter")
    assert run_of(opened)["id"] == first["id"]


@pytest.mark.page
def test_each_of_several_completions_branches_with_its_own_draws(opened: Any, server: LiveServer) -> None:
    found = opened.evaluate(
        """async () => {
          const { Api } = await import('/assets/core/api.js');
          const { Runs } = await import('/assets/core/runs.js');
          const { continuation } = await import('/assets/core/branches.js');
          const runs = new Runs(new Api(), { save: async () => {}, remove: async () => {} });
          const ended = (run) => new Promise((told) => {
            run.addEventListener('change', () => run.ended && told());
          });
          const params = { n: 3, max_tokens: 12, seed: 5, repetition_penalty: 1.3 };
          const [run] = runs.start({ requests: [{ prompt: 'Hello', params }] });
          await ended(run);
          const [, second] = run.streams;
          const asked = continuation(run, second, 6, [second.positions[6].token]);
          const [child] = runs.start({ requests: [asked] });
          await ended(child);
          const deeper = continuation(child, child.stream(0), 9, [child.stream(0).positions[9].token]);
          const [grandchild] = runs.start({ requests: [deeper] });
          await ended(grandchild);
          return [second, child.stream(0), grandchild.stream(0)].map(({ tokens, text }) => [tokens, text])
            .concat([[child.drawn, grandchild.drawn]]);
        }"""
    )
    assert found[0] == found[1] == found[2]
    assert found[3] == [1, 1]


@pytest.mark.page
def test_a_candidate_that_is_clicked_in_the_inspector_makes_a_branch(opened: Any) -> None:
    parent = run_of(opened)
    opened.locator('#log .token[data-i="7"]').click()
    token = other_candidate(parent, 7)
    opened.locator(f'#panel-token .candidates-part [data-token-id="{token}"]').first.click()
    opened.wait_for_selector(f'#log .run[data-state=done]:not([data-run="{parent["id"]}"])')
    assert run_of(opened)["tokens"][:8] == [*parent["tokens"][:7], token]
