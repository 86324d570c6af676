"""Tests what the page shows of a strategy's own numbers: those of the trace, in the right places."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.page.branching import accessible

SHOW = """async ([params, index]) => {
  // The pieces of a view are loaded after it.
  while (!document.querySelector('.prompt-menu')) await new Promise(requestAnimationFrame);
  const { Api } = await import('/assets/core/api.js');
  const { Run, RunReader } = await import('/assets/core/run.js');
  const { renderStrategy } = await import('/assets/parts/strategy_section.js');
  const run = new Run({});
  const reader = new RunReader([run]);
  const requests = [{ prompt: 'abababab', params: { seed: 1, max_tokens: 6, ...params } }];
  const body = { candidates: 3, texts: true, requests };
  for await (const line of new Api().lines('/trace', body)) reader.feed(line);
  const place = document.createElement('section');
  const heading = document.createElement('h2');
  heading.textContent = 'Token';
  document.querySelector('#panel-token').replaceChildren(heading, place);
  const position = run.stream(0).positions[index];
  renderStrategy(place, run, position);
  return { hidden: place.hidden, choice: position.choice };
}"""


def rows_of(page: Any, heading: str) -> list[list[str]]:
    """Returns the cells of the table below a heading, without the column of tokens."""
    part = page.locator(".strategy-part", has=page.get_by_role("heading", name=heading, exact=True))
    return [row.locator("td").all_inner_texts() for row in part.locator("tbody tr").all()]


def written(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    return ("" if value < 0 else "+") + written(value, 2)


@pytest.mark.page
def test_contrastive_search_shows_what_it_weighed(opened: Any) -> None:
    params = {"strategy": {"type": "contrastive_search", "top_k": 3, "penalty_alpha": 0.3}}
    weighed = opened.evaluate(SHOW, [params, 2])["choice"]["weighed"]
    assert [row[1:] for row in rows_of(opened, "Contrastive search")] == [
        [written(w["similarity"], 3), written(w["score"], 3)] for w in weighed
    ]
    for w in weighed:
        assert w["score"] == pytest.approx(0.7 * w["probability"] - 0.3 * w["similarity"], abs=1e-5)
    formula = "score = 0.7 × probability − 0.3 × similarity"
    assert opened.get_by_text(formula).is_visible()
    ids = [int(b.get_attribute("data-token-id")) for b in opened.locator("[data-token-id]").all()]
    assert ids == [w["token"] for w in weighed]


@pytest.mark.page
def test_dola_and_guidance_show_both_sides_and_the_layers(opened: Any) -> None:
    params = {
        "strategy": {"type": "dola", "layers": [0, 1]},
        "guidance_scale": 1.5,
        "negative_prompt": "no",
    }
    dola, guidance = opened.evaluate(SHOW, [params, 3])["choice"]["combined"]
    for heading, combined in (("DoLa", dola), ("Guidance", guidance)):
        expected = [
            [written(own, 2), written(other, 2), signed(own - other)]
            for own, other in zip(combined["own"], combined["other"], strict=True)
        ]
        assert rows_of(opened, heading) == expected
    taken = max(dola["divergences"], key=lambda pair: pair[1])[0]
    assert dola["layer"] == taken
    assert opened.locator(".layer-bars .taken").inner_text().startswith(f"layer {taken}, taken")
    assert accessible(opened)


@pytest.mark.page
def test_drafts_are_shown_as_accepted_or_rejected(opened: Any) -> None:
    params = {"temperature": 0, "speculate": {"type": "prompt_lookup"}, "logit_bias": {"65": 40, "66": 40}}
    texts = set()
    for index in range(1, 6):
        found = opened.evaluate(SHOW, [params, index])
        if not found["hidden"]:
            texts.add(opened.locator(".strategy-part p").first.get_attribute("class"))
    assert texts
    assert texts <= {"accepted", "rejected"}


@pytest.mark.page
def test_plain_sampling_has_nothing_of_its_own(opened: Any) -> None:
    assert opened.evaluate(SHOW, [{"speculate": None}, 1])["hidden"] is True
