"""Tests the learner's pages: their form, their examples and pictures, and the numbers in their texts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from decodery import GenerationParams, ParameterError
from decodery.decoding.request.plain import params_from_plain
from decodery.learn import LearnPage, learn_page, learn_pages
from tests.learn.more_claims import MORE_CLAIMS
from tests.learn.pictures import CERTAIN, OPEN, PRONOUN_LAYER, RULES, next_tokens, run_of, traced
from tests.learn.render import FOLDER, rendered

PAGES = learn_pages()
NAMES = [page.name for page in PAGES]
HEADINGS = ("How it works", "When to", "Example", "Source")
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*"))}
by_name = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def test_the_index_lists_every_page_once_and_nothing_else_is_in_the_folder() -> None:
    assert len(NAMES) == len(set(NAMES)) == 19
    expected = {f"{name}.{kind}" for name in NAMES for kind in ("md", "svg")}
    assert FILES.keys() == expected | {"README.md"}


@by_name
def test_a_page_has_its_sections_in_order_and_its_own_picture(page: LearnPage) -> None:
    assert page.text.startswith("# ")
    headings = re.findall(r"^## (.+)$", page.text, re.MULTILINE)
    assert [heading.startswith(start) for heading, start in zip(headings, HEADINGS, strict=True)] == [
        True
    ] * 4
    assert re.findall(r"!\[[^\]]{40,}\]\((\S+)\)", page.text) == [f"{page.name}.svg"]
    assert f"[Try it](http://127.0.0.1:8000/#learn/{page.name})" in page.text
    assert "```python\n" in page.text
    assert "```console\n$ decodery " in page.text
    assert re.search(r"\]\(https://(arxiv\.org|doi\.org)/", page.text)


@by_name
def test_a_page_is_read_in_a_few_minutes(page: LearnPage) -> None:
    prose = re.sub(r"```.*?```", "", page.text.partition("## Source")[0], flags=re.DOTALL)
    assert 200 <= len(prose.split()) <= 450


@by_name
def test_the_run_to_try_is_one_that_the_page_shows(page: LearnPage) -> None:
    if "text" in page.run:
        assert page.run.keys() == {"text"}
        assert page.name == "tokenizers"
        return
    if "layers" in page.run:
        assert page.run.keys() == {"layers"}
        assert f'text = "{page.run["layers"]}"' in page.text
        return
    assert page.run.keys() == {"prompt", "params"}
    # The server's page has a temperature of its own for parameters that name none.
    assert "temperature" in page.run["params"]
    params = params_from_plain(page.run["params"], models=None)
    assert page.run["prompt"] in page.text.replace("\\n", "\n")
    assert str(params.max_tokens if "max_tokens" in page.run["params"] else params.temperature) in page.text


@by_name
def test_a_picture_is_well_formed_and_asks_for_nothing(page: LearnPage) -> None:
    source = page.picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(source)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [e for e in root.iter() if e.tag.endswith(("script", "image", "foreignObject", "}a"))]
    assert "http" not in source.replace("http://www.w3.org/2000/svg", "")
    assert "prefers-color-scheme: dark" in source
    # Numbers have two decimal places, so that no picture depends on the last bits of a result.
    assert not re.search(r'="[^"]*\.\d{3}', source)


def test_examples_and_pictures_are_those_of_the_default_model(native_llm: Any) -> None:
    stale = [path.name for path, text in rendered(native_llm) if FILES.get(path.name) != text]
    assert stale == [], "run make learn"


@pytest.mark.parametrize(
    ("given", "name"), [("greedy", "greedy"), ("Beam Search", "beam-search"), (" beam_search", "beam-search")]
)
def test_a_page_is_found_by_its_name_however_it_is_spelled(given: str, name: str) -> None:
    assert learn_page(given).name == name


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("gredy", "did you mean greedy?"),
        ("beam", "did you mean beam-search?"),
        ("xyz", "the pages are token"),
    ],
)
def test_a_page_that_is_not_there_is_an_error_that_names_the_nearest(given: str, advice: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(advice)):
        learn_page(given)


def percent(share: float) -> str:
    return f"{share:.1%}"


def greedy_claims(llm: Any, page: LearnPage) -> list[str]:
    [choices] = [[c for step in run_of(llm, page).steps[0] for c in step.considered]]
    found = {
        label: [c.before for c in choices if c.token == llm.tokenizer.encode(label)[0]]
        for label in (" ready", " challenge")
    }
    (ready, ready_again), (challenge, challenge_again) = found.values()
    return [
        f"has a probability of {percent(ready)}, the second time {percent(ready_again)}",
        f"rises from {percent(challenge)} to {percent(challenge_again)}",
    ]


def sampling_claims(llm: Any, page: LearnPage) -> list[str]:
    shares = [
        percent(next_tokens(llm, OPEN, temperature=t).steps[0][0].considered[0].candidates[0].after)
        for t in (0.3, 1.0, 1.5)
    ]
    hot = next_tokens(llm, OPEN, 40, temperature=1.5).steps[0][0].considered[0].candidates[:40]
    return [
        "`␣cat` has {} at T = 0.3, {} at T = 1 and {} at T = 1.5".format(*shares),
        f"the 40 most probable tokens have only {percent(sum(c.after for c in hot))} together",
    ]


def truncation_claims(llm: Any, page: LearnPage) -> list[str]:
    kept = {
        name: [next_tokens(llm, prompt, **rule).steps[0][0].considered[0].kept for prompt in (CERTAIN, OPEN)]
        for name, rule in RULES.items()
    }
    p, m = kept["top-p 0.9"], kept["min-p 0.1"]
    assert kept["top-k 5"] == [5, 5]
    return [f"Top-p 0.9 keeps {p[0]} and {p[1]}", f"Min-p 0.1 keeps {m[0]} and {m[1]}"]


def beam_claims(llm: Any, page: LearnPage) -> list[str]:
    params = params_from_plain(page.run["params"], models=None).replace(logprobs=0)
    greedy = GenerationParams(temperature=0, max_tokens=5, logprobs=0)
    outputs = llm.generate([page.run["prompt"]] * 2, [greedy, params])
    one, best = (output.completions[0] for output in outputs)
    assert one.text.startswith(" let")
    assert best.text.startswith(" said")
    ratio = 2.718281828 ** (best.cumulative_logprob - one.cumulative_logprob)
    assert round(ratio) == 5
    sums = [f"{c.cumulative_logprob:.2f}".replace("-", "−") for c in (one, best)]
    return [f"a sum of {sums[0]} after five tokens", f"the sum {sums[1]}, which is five times as probable"]


def contrastive_claims(llm: Any, page: LearnPage) -> list[str]:
    choices = [c for step in run_of(llm, page).steps[0] for c in step.considered]
    stop = choices[10]
    assert llm.tokenizer.decode([stop.token]) == "."
    assert stop.rank == 3
    assert min(stop.weighed, key=lambda w: w.similarity).token == stop.token
    return ["At position 11 the full stop is taken, though it is only third by its probability"]


def grammar_claims(llm: Any, page: LearnPage) -> list[str]:
    free = traced(llm, page.run["prompt"], GenerationParams(temperature=0, max_tokens=10))
    assert free.completions[0].text == " July 14, 1789"
    first = run_of(llm, page).steps[0][0].considered[0]
    assert llm.tokenizer.decode([first.candidates[0].token]) == " July"
    assert first.forced
    return ['it writes "July 14, 1789"', "the model would begin with `␣July`", "It forces a space"]


def speculation_claims(llm: Any, page: LearnPage) -> list[str]:
    steps = run_of(llm, page).steps[0]
    tokens = sum(len(step.tokens) for step in steps)
    return [f"In this run {tokens} tokens take {len(steps)} steps; without drafts they take {tokens}"]


def tokenizer_claims(llm: Any, page: LearnPage) -> list[str]:
    tokenizer = llm.tokenizer
    pieces = " ".join(f"`{tokenizer.token_label(t)}`" for t in tokenizer.encode("untranslatable"))
    assert len({tuple(tokenizer.encode(text)) for text in ("hello", " hello", "HELLO")}) == 3
    assert [tokenizer.decode([t]) for t in tokenizer.encode("3.14159")] == list("3.14159")
    emoji = tokenizer.encode("naïve 😀")[2:]
    assert b"".join(map(tokenizer.token_bytes, emoji)).decode() == " 😀"
    assert len(emoji) == 2
    return [f"{tokenizer.vocab_size:,} pieces", pieces, "spread over two tokens"]


def block_claims(llm: Any, page: LearnPage) -> list[str]:
    views = llm.layer_views(page.run["layers"])
    shares = views.layers[PRONOUN_LAYER - 1].attention[8]
    assert llm.tokenizer.decode([views.token_ids[int(shares.argmax())]]) == " cat"
    block = llm.model.layers[0]
    assert (block.attn.layer.heads, block.attn.layer.kv_heads, block.attn.layer.k_width) == (9, 3, 64)
    return [
        f"The default model has {llm.model.depth}",
        f"a vector of {llm.model.width} numbers",
        f"each of {llm.model.config.mlp_width:,} numbers",
        f'in layer 14, head 9 reads "it" and gives {shares.max():.0%} of its attention to "cat"',
    ]


CLAIMS = {
    **MORE_CLAIMS,
    "block": block_claims,
    "tokenizers": tokenizer_claims,
    "greedy": greedy_claims,
    "sampling": sampling_claims,
    "truncation": truncation_claims,
    "beam-search": beam_claims,
    "contrastive-search": contrastive_claims,
    "grammars": grammar_claims,
    "speculation": speculation_claims,
}


@by_name
def test_the_numbers_in_the_prose_are_those_of_the_runs(page: LearnPage, native_llm: Any) -> None:
    prose = " ".join(page.text.split())
    for claim in CLAIMS[page.name](native_llm, page):
        assert claim in prose


def test_links_between_pages_lead_somewhere() -> None:
    for name, text in FILES.items():
        if name.endswith(".md"):
            for link in re.findall(r"\]\(([^):]+)\)", text):
                assert (FOLDER / link).is_file(), f"{name}: {link}"
    assert Path(FOLDER / "../processors.md").is_file()
