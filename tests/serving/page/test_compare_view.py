"""Tests the view that compares strategies in a browser, against the library's texts."""

from __future__ import annotations

import json
import math
import random
from itertools import combinations, pairwise
from typing import Any

import pytest

from decodery import LLM, BeamSearch, GenerationParams
from tests.serving.live import LiveServer, until
from tests.serving.page.branching import kept
from tests.serving.page.two_models import BYTES, MERGES

PROMPT = "Once upon a time"
SEED, LENGTH = 7, 30
GREEDY = GenerationParams(max_tokens=LENGTH, seed=SEED, temperature=0, logprobs=0)
DRAWN = GREEDY.replace(temperature=0.8, top_p=0.95)
BEAMS = GenerationParams(max_tokens=LENGTH, seed=SEED, strategy=BeamSearch(num_beams=4), logprobs=0)


@pytest.fixture
def view(page: Any, two_models: LiveServer) -> Any:
    page.goto(f"{two_models.url}#compare")
    page.locator(".column").nth(1).wait_for()
    page.get_by_label("Longest text, in tokens").fill(str(LENGTH))
    return page


def run(view: Any, columns: int = 2) -> None:
    view.get_by_role("button", name="Run", exact=True).click()
    view.locator(".column[data-state=done]").nth(columns - 1).wait_for()


def traced(view: Any) -> list[dict[str, Any]]:
    """Returns the bodies of the requests of `/trace`, to which later ones are added."""
    sent: list[dict[str, Any]] = []
    view.on("request", lambda r: sent.append(json.loads(r.post_data)) if r.method == "POST" else None)
    return sent


def column(view: Any, name: str) -> Any:
    return view.get_by_role("region", name=f"Column {name}")


def texts(view: Any, name: str) -> list[str]:
    found: list[str] = (
        column(view, name).locator(".token").evaluate_all("(all) => all.map((t) => t.textContent)")
    )
    return found


def marked(view: Any, name: str, mark: str) -> list[int]:
    """Returns the places of the tokens with a mark."""
    found: list[int] = (
        column(view, name).locator(f".{mark}").evaluate_all("(all) => all.map((t) => Number(t.dataset.i))")
    )
    return found


def first_difference(one: list[int], other: list[int]) -> int:
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


def test_columns_run_in_one_batch_and_show_where_they_part(view: Any, library: LLM) -> None:
    sent = traced(view)
    view.get_by_role("button", name="Add a column").click()
    run(view, 3)
    assert [len(body["requests"]) for body in sent] == [1, 1, 1]
    outputs = library.generate([PROMPT] * 3, [GREEDY, DRAWN, BEAMS])
    ids = [output.completions[0].token_ids for output in outputs]
    for name, output in zip("ABC", outputs, strict=True):
        assert "".join(texts(view, name)).startswith(output.completions[0].text.rstrip("\ufffd"))
        logprob = output.completions[0].cumulative_logprob
        assert logprob is not None
        told = column(view, name).locator(".column-numbers").inner_text()
        assert f"{logprob:.2f}".replace("-", "−") in told
        assert f"{-logprob / math.log(2) / len(output.completions[0].token_ids):.2f} bits" in told
        assert "tokens/s" in told
    pairs = {(i, j): first_difference(ids[i], ids[j]) for i, j in combinations(range(3), 2)}
    first = min(pairs.values())
    for i, name in enumerate("ABC"):
        assert marked(view, name, "common") == list(range(first))
        assert marked(view, name, "parts") == sorted({p for pair, p in pairs.items() if i in pair})
    assert f"part at token {first + 1}" in view.get_by_label("Where the texts part").inner_text()


@pytest.mark.page
def test_two_models_start_at_once_and_are_compared_by_their_bytes(
    view: Any, library: LLM, merging: LLM
) -> None:
    sent = traced(view)
    for name in "AB":
        column(view, name).get_by_label("Preset").select_option("precise")
    column(view, "B").get_by_label("Model").select_option(MERGES)
    run(view)
    assert [body["model"] for body in sent] == [BYTES, MERGES]
    data = []
    for llm in (library, merging):
        [output] = llm.generate(PROMPT, GREEDY)
        data.append([llm.tokenizer.token_bytes(token) for token in output.completions[0].token_ids])
    byte = first_difference(list(b"".join(data[0])), list(b"".join(data[1])))
    for name, pieces in zip("AB", data, strict=True):
        ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
        place = next(i for i, end in enumerate(ends) if end > byte)
        assert marked(view, name, "parts") == [place]
        assert marked(view, name, "common") == list(range(place))


@pytest.mark.page
def test_columns_that_are_the_same_say_so(view: Any) -> None:
    for name in "AB":
        column(view, name).get_by_label("Preset").select_option("precise")
    run(view)
    assert view.get_by_label("Where the texts part").inner_text() == "A and B are the same."
    assert len(marked(view, "A", "common")) == len(texts(view, "A")) == LENGTH
    assert marked(view, "A", "parts") == []


# Notes the text of the status region at each change of its nodes.
NOTE_CHANGES = """() => {
  const told = document.querySelector("#view-compare .told");
  window.texts = [told.textContent];
  new MutationObserver(() => window.texts.push(told.textContent)).observe(
    told, { childList: true, subtree: true, characterData: true });
}"""


@pytest.mark.page
def test_the_status_region_changes_only_when_it_says_something_new(view: Any) -> None:
    view.get_by_label("Longest text, in tokens").fill("200")
    view.evaluate(NOTE_CHANGES)
    run(view)
    run(view)
    said = view.evaluate("window.texts")
    assert len(said) > 1
    assert all(before != after for before, after in pairwise(said)), said


@pytest.mark.page
def test_after_a_reload_write_opens_its_own_newest_run(view: Any, two_models: LiveServer) -> None:
    run(view)
    view.goto(f"{two_models.url}#write")
    view.locator("#view-write .run[data-state=done]").wait_for()
    written = view.locator("#view-write .run .token").count()
    view.goto(f"{two_models.url}#compare")
    view.get_by_label("Prompt for all columns").fill("A text of another view")
    run(view)
    for one in view.locator(".column").all():
        kept(view, one.get_attribute("data-run"), one.locator(".token").count())
    view.goto(f"{two_models.url}#write")
    view.reload()
    view.locator("#view-write .run[data-state=done]").wait_for()
    assert view.locator("#prompt").input_value() == PROMPT
    assert view.locator("#view-write .run .token").count() == written
    assert view.locator(".run-name", has_text="A text of another view").count() == 2


@pytest.mark.page
def test_each_of_several_texts_of_a_column_is_shown_and_compared(view: Any, library: LLM) -> None:
    one = column(view, "B")
    one.locator("summary").click()
    one.get_by_label("Set a parameter").select_option("n")
    one.get_by_label("n", exact=True).fill("3")
    run(view)
    [greedy] = library.generate(PROMPT, GREEDY)
    [drawn] = library.generate(PROMPT, DRAWN.replace(n=3))
    choice = one.get_by_label("Text", exact=True)
    assert column(view, "A").get_by_label("Text", exact=True).is_hidden()
    assert choice.locator("option").count() == 3
    for i, completion in enumerate(drawn.completions):
        choice.select_option(index=i)
        assert "".join(texts(view, "B")).startswith(completion.text.rstrip("\ufffd"))
        place = first_difference(greedy.completions[0].token_ids, completion.token_ids)
        assert marked(view, "A", "parts") == marked(view, "B", "parts") == [place]
        logprob = completion.cumulative_logprob
        assert f"{logprob:.2f}".replace("-", "−") in one.locator(".column-numbers").inner_text()


@pytest.mark.page
def test_a_wrong_parameter_is_told_in_its_own_column(view: Any, watch: Any) -> None:
    watch.allowed.append("400")
    two = column(view, "B")
    two.locator("summary").click()
    two.get_by_label("top_p", exact=True).fill("3")
    view.get_by_role("button", name="Run", exact=True).click()
    view.locator(".column[data-state=failed]").wait_for()
    assert "top_p" in two.get_by_role("alert").last.inner_text()
    view.locator(".column[data-state=done]").wait_for()
    assert column(view, "A").get_by_role("alert").last.is_hidden()


@pytest.mark.page
def test_two_to_four_columns_each_with_parameters_of_its_own(view: Any, library: LLM) -> None:
    assert column(view, "A").get_by_role("button", name="Remove").is_disabled()
    add = view.get_by_role("button", name="Add a column")
    add.click()
    add.click()
    assert add.is_disabled()
    column(view, "B").get_by_role("button", name="Remove").click()
    column(view, "C").get_by_role("button", name="Remove").click()
    two = column(view, "B")
    assert two.get_by_label("Preset").input_value() == "beam"
    two.get_by_label("Preset").select_option("creative")
    two.locator("summary").click()
    two.get_by_label("Set a parameter").select_option("top_k")
    two.get_by_label("top_k", exact=True).fill("5")
    two.get_by_role("button", name="min_p: back to the default").click()
    assert two.locator("summary").inner_text() == "temperature 1.2, top_k 5"
    assert two.get_by_label("Preset").input_value() == ""
    run(view)
    [output] = library.generate(PROMPT, GREEDY.replace(temperature=1.2, top_k=5))
    assert "".join(texts(view, "B")).startswith(output.completions[0].text.rstrip("\ufffd"))


def written(view: Any) -> list[str]:
    """Returns the tokens of the run in the view that writes, once it has ended."""
    view.locator("#view-write .run[data-state=done]").wait_for()
    found: list[str] = view.locator("#view-write .run .token").evaluate_all(
        "(all) => all.map((t) => t.textContent)"
    )
    return found


@pytest.mark.page
def test_a_column_goes_on_in_the_view_that_writes(view: Any) -> None:
    run(view)
    text = "".join(texts(view, "B"))
    column(view, "B").get_by_role("button", name="Go on in Write").click()
    assert "".join(written(view)) == text


@pytest.mark.page
def test_an_opened_token_is_explained_and_its_candidates_branch_into_the_view_that_writes(view: Any) -> None:
    run(view)
    before = texts(view, "B")[:3]
    column(view, "B").locator(".token").nth(3).click()
    token = view.get_by_role("region", name="Token", exact=True)
    token.locator("[data-token-id]").first.click()
    assert written(view)[:3] == before


@pytest.mark.page
def test_stopping_keeps_what_came(view: Any) -> None:
    for name in "AB":
        one = column(view, name)
        one.locator("summary").click()
        one.get_by_label("Set a parameter").select_option("ignore_eos")
        one.get_by_label("ignore_eos", exact=True).check()
    view.get_by_label("Longest text, in tokens").fill("1000")
    # In the page, since the text would be whole before a click came from here.
    view.evaluate(
        """() => {
          const find = (selector) => document.querySelector(`#view-compare ${selector}`);
          const button = () => find("button.primary").previousElementSibling;
          const stop = () => find(".token:nth-child(20)") && button().click();
          new MutationObserver(stop).observe(find(".columns"), { childList: true, subtree: true });
          find("button.primary").click();
        }"""
    )
    view.locator(".column[data-state=cut]").nth(1).wait_for()
    assert 5 < len(texts(view, "A")) < 900
    assert view.get_by_role("button", name="Stop", exact=True).is_hidden()


# Starts requests. When each has tokens, does a deed with some runs, and tells how all ended.
LEFT = """async ([deed, places, lengths]) => {
  const { Api } = await import("/assets/core/api.js");
  const { Runs } = await import("/assets/core/runs.js");
  const { Store } = await import("/assets/core/store.js");
  const runs = new Runs(new Api(), new Store());
  const more = { seed: 3, ignore_eos: true };
  const requests = lengths.map((max_tokens) => ({ prompt: "Once", params: { max_tokens, ...more } }));
  const all = runs.start({ requests });
  const until = async (done) => { while (!done()) await new Promise((told) => setTimeout(told, 2)); };
  await until(() => all.every((run) => run.streams[0]?.positions.length > 3));
  for (const place of places) runs[deed](all[place]);
  await until(() => all.every((run) => !runs.isActive(run)));
  return all.map((run) => run.state);
}"""


@pytest.mark.page
@pytest.mark.parametrize("deed", ["stop", "remove"])
def test_a_run_that_goes_leaves_those_that_were_started_with_it(view: Any, deed: str) -> None:
    assert view.evaluate(LEFT, [deed, [0], [900, 60]]) == ["cut", "done"]
    assert view.evaluate(LEFT, [deed, [1, 2], [60, 900, 900]]) == ["done", "cut", "cut"]


@pytest.mark.page
def test_a_column_that_is_removed_is_dropped_and_leaves_the_others_running(
    view: Any, two_models: LiveServer
) -> None:
    before = dropped(two_models)
    view.get_by_role("button", name="Add a column").click()
    # It shows tokens as they come, which beams do not.
    column(view, "C").get_by_label("Preset").select_option("creative")
    for name in "ABC":
        one = column(view, name)
        one.locator("summary").click()
        one.get_by_label("Set a parameter").select_option("ignore_eos")
        one.get_by_label("ignore_eos", exact=True).check()
    view.get_by_label("Longest text, in tokens").fill("900")
    # In the page, since the texts might be whole before a click came from here.
    view.evaluate(
        """() => {
          const view = document.querySelector("#view-compare");
          const remove = () => {
            const last = view.querySelectorAll(".column")[2];
            if (last === undefined || last.querySelectorAll(".token").length < 5) return;
            seen.disconnect();
            last.querySelector('button[aria-label^="Remove column"]').click();
          };
          const seen = new MutationObserver(remove);
          seen.observe(view, { childList: true, subtree: true });
          view.querySelector("button.primary").click();
        }"""
    )
    view.locator(".column").nth(2).wait_for(state="detached")
    # A text that had its last token counts as one that ended.
    until(lambda: dropped(two_models) == before + 1)
    view.locator(".column[data-state=done]").nth(1).wait_for()
    assert view.locator(".column[data-state=cut]").count() == 0
    assert [len(texts(view, name)) for name in "AB"] == [900, 900]


def dropped(server: LiveServer) -> float:
    """Returns how many completions of the first model the server has dropped before their end."""
    return server.service.metrics.finished.labels(BYTES, "error")._value.get()  # type: ignore[no-any-return]


def expected_partings(
    sequences: list[list[int]], ended: list[bool]
) -> set[tuple[int, frozenset[frozenset[int]]]]:
    """Returns the places at which sequences divide, with the groups there, from pairs alone."""

    def value(i: int, unit: int) -> int | None:
        return sequences[i][unit] if unit < len(sequences[i]) else None

    found = set()
    longest = max(map(len, sequences)) + 1
    for unit in range(longest):
        there = [i for i, one in enumerate(sequences) if unit < len(one) or ended[i]]
        alike: dict[tuple[int, ...], list[int]] = {}
        for i in there:
            if unit <= len(sequences[i]):
                alike.setdefault(tuple(sequences[i][:unit]), []).append(i)
        for members in alike.values():
            groups: dict[int | None, set[int]] = {}
            for i in members:
                groups.setdefault(value(i, unit), set()).add(i)
            if len(groups) > 1:
                found.add((unit, frozenset(frozenset(one) for one in groups.values())))
    return found


@pytest.mark.page
def test_partings_of_random_texts_are_those_of_their_beginnings(page: Any, two_models: LiveServer) -> None:
    page.goto(two_models.url)
    draw = random.Random(0)
    cases = []
    for _ in range(500):
        count = draw.randint(2, 4)
        sequences = [[draw.randint(0, 1) for _ in range(draw.randint(0, 5))] for _ in range(count)]
        cases.append((sequences, [draw.random() < 0.7 for _ in range(count)]))
    found = page.evaluate(
        "async (cases) => { const m = await import('/assets/core/partings.js');"
        " return cases.map(([all, ended]) => m.partings(all.map((units, i) =>"
        " ({units, ended: ended[i], tokenOf: (u) => u})))); }",
        cases,
    )
    for (sequences, ended), partings in zip(cases, found, strict=True):
        shown = {(p["unit"], frozenset(frozenset(g) for g in p["groups"])) for p in partings}
        assert shown == expected_partings(sequences, ended), (sequences, ended)
        assert [p["unit"] for p in partings] == sorted(p["unit"] for p in partings)


@pytest.mark.page
def test_axe_finds_no_fault(view: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    view.get_by_role("button", name="Add a column").click()
    column(view, "C").locator("summary").click()
    run(view, 3)
    for scheme in ("light", "dark"):
        view.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(view)
        assert [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]] == []
