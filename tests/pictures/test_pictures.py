"""Tests the HTML page and the SVG picture of traces made by hand."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.trace import BeamCandidate
from decodery.outputs import Completion, RequestOutput
from decodery.pictures.beam_tree import Tree, build_tree
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.html_page import html_page
from decodery.pictures.markup import escaped, percent, surprise
from decodery.pictures.svg_picture import svg_picture
from decodery.pictures.svg_sheet import asset
from tests.pictures.traces import HOSTILE, WORDS, beam_trace, sampled_trace

TRACES = {
    "sampled": sampled_trace(),
    "hostile": sampled_trace(
        [*HOSTILE, "😀".encode()[:2], "😀".encode()[2:]], prompt="</title><script>x\x00"
    ),
    "drafts": sampled_trace(drafts=True, grammar=True),
    "beams": beam_trace(steps=19, width=3),
    "hostile beams": beam_trace([*HOSTILE, *WORDS[:5]], steps=5),
}
VOID = {"meta", "br"}


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data

    def having(self, name: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.found if name in (a.get("class") or "").split()]


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_a_page_is_well_formed_and_needs_no_network(trace: GenerationTrace) -> None:
    source = html_page(trace)
    elements = Elements(source)
    assert elements.open == []
    assert Counter(tag for tag, _ in elements.found)["script"] == 1
    for tag, attributes in elements.found:
        assert tag not in ("link", "img", "iframe", "b onload")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "http://" not in source.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in source
    assert "url(" not in source
    assert "@import" not in source


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_a_picture_is_well_formed(trace: GenerationTrace) -> None:
    root = ElementTree.fromstring(svg_picture(trace))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [e for e in root.iter() if e.tag.endswith(("script", "image", "foreignObject"))]


def test_no_text_of_a_model_becomes_markup() -> None:
    trace = TRACES["hostile"]
    elements = Elements(html_page(trace))
    links = [a for a in elements.having("t") if "href" in a]
    assert len(links) == len(trace.completions[0].token_ids)
    assert "</script><b>" in elements.text
    assert "</title><script>x␀" in elements.text
    assert "😀" in elements.text
    assert not set(html_page(trace)) & {"\x00", "\x1b", "\u202e"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("</script>", "&lt;/script&gt;"),
        ("a&b\"c'd", "a&amp;b&quot;c'd"),
        ("\x00\x1b\x7f\x85", "␀␛␡\ufffd"),
        ("a\u202eb\u2066c\u200f", "a\ufffdb\ufffdc\ufffd"),
        ("a\tb\nc", "a\tb\nc"),
        ("\ud800", "\ufffd"),
    ],
)
def test_text_is_escaped(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_each_token_opens_its_own_panel() -> None:
    elements = Elements(html_page(TRACES["sampled"]))
    links = [a["href"] for a in elements.having("t") if "href" in a]
    panels = [a["id"] for a in elements.having("panel")]
    assert links == [f"#{name}" for name in panels]
    assert len(links) == len(set(links)) == len(WORDS)


def test_a_panel_shows_how_many_tokens_each_processor_kept() -> None:
    trace = TRACES["sampled"]
    considered = trace.steps[0][0].considered[0]
    text = " ".join(Elements(html_page(trace)).text.split())
    for stage in considered.stages:
        assert f"{stage.name.replace('_', ' ')}{stage.kept} kept" in text
    assert f"entropy {considered.entropy:.2f} bits" in text
    first = html_page(trace).split("<article")[1]
    assert first.count("<tr") == 1 + len(considered.candidates)
    assert first.count("✕") == sum(c.after == 0 for c in considered.candidates)
    assert first.count('class="taken"') == 1


def test_forced_and_drafted_tokens_and_failed_drafts_are_marked() -> None:
    trace = TRACES["drafts"]
    elements = Elements(html_page(trace))
    steps = trace.steps[0]
    linked = [a for a in elements.having("t") if "href" in a]
    drafted = [a for a in linked if "drafted" in (a["class"] or "").split()]
    forced = [a for a in linked if "forced" in (a["class"] or "").split()]
    assert len(drafted) == sum(step.accepted for step in steps)
    assert len(forced) == sum(c.forced for step in steps for c in step.considered)
    assert len(elements.having("good")) == len(drafted)
    assert len(elements.having("bad")) == sum(len(step.drafts) - step.accepted for step in steps)
    assert len(elements.having("card")) == len(steps)


def test_each_draft_says_where_it_comes_from() -> None:
    trace = sampled_trace(drafts=True)
    sources = ("text", *["successors"] * 8)
    steps = [replace(step, draft_sources=sources[: len(step.drafts)]) for step in trace.steps[0]]
    trace.steps[0] = steps
    elements = Elements(html_page(trace))
    titles = [e["title"] for kind in ("good", "bad") for e in elements.having(kind)]
    expected = [
        f"{'accepted' if place < s.accepted else 'rejected'}, from {source}"
        for s in steps
        for place, source in enumerate(s.draft_sources)
    ]
    assert sorted(map(str, titles)) == sorted(expected)
    accepted = [source for s in steps for source in s.draft_sources[: s.accepted]]
    assert f"text: {accepted.count('text')}, successors: {accepted.count('successors')}." in elements.text


def test_the_header_shows_prompt_model_and_parameters() -> None:
    text = Elements(html_page(TRACES["sampled"])).text
    for fact in ("Once upon a time", "model a-model", "temperature 0.7", "top_p 0.9", "seed 1"):
        assert fact in text
    assert "top_k" not in text
    assert f"{len(WORDS)} tokens, ended by length" in text


def test_a_trace_of_a_failed_request_shows_the_error() -> None:
    trace = GenerationTrace("x", "m", GenerationParams(), TRACES["sampled"].tokenizer)
    trace.output = RequestOutput("x", [1], [], 1, error="no token is possible: <all>")
    assert "no token is possible: &lt;all&gt;" in html_page(trace)
    ElementTree.fromstring(svg_picture(trace))


A, B, C, D, END = range(5)
BEAMS = (
    (
        BeamCandidate(0, A, -0.1, -0.1, "kept", 0),
        BeamCandidate(0, B, -0.5, -0.5, "kept", 1),
        BeamCandidate(0, C, -0.9, -0.9, "pruned"),
    ),
    (
        BeamCandidate(1, C, -0.1, -0.6, "kept", 0),
        BeamCandidate(0, END, -0.3, -0.4, "finished"),
        BeamCandidate(1, D, -0.4, -0.9, "kept", 1),
    ),
    (BeamCandidate(0, D, -0.1, -0.7, "kept", 0), BeamCandidate(1, A, -1.0, -1.9, "kept", 1)),
)
ENDED = Completion(0, "", [A, END], "stop", score=-0.2)
LONG = Completion(1, "", [B, C, D], "length", score=-0.3)


def nodes_of(tree: Tree, tokens: list[int]) -> int:
    return next(i for i in range(len(tree.nodes)) if tree.tokens(i) == tokens)


def test_a_node_of_a_tree_has_its_parent_and_its_lane() -> None:
    tree = build_tree(BEAMS, [ENDED, LONG])
    assert (tree.steps, tree.beams, tree.lanes) == (3, 2, 3)
    assert tree.tokens(nodes_of(tree, [B, C, D])) == [B, C, D]
    assert tree.nodes[nodes_of(tree, [B, C])].lane == 0
    assert tree.nodes[nodes_of(tree, [C])].lane == 2


def test_paths_to_returned_completions_are_marked_and_pruned_nodes_have_the_step() -> None:
    tree = build_tree(BEAMS, [ENDED, LONG])
    chosen = [tree.tokens(i) for i, node in enumerate(tree.nodes) if node.chosen]
    assert sorted(chosen) == [[A], [A, END], [B], [B, C], [B, C, D]]
    assert tree.nodes[nodes_of(tree, [A, END])].completion == 0
    assert tree.nodes[nodes_of(tree, [B, C, D])].completion == 1
    assert tree.nodes[nodes_of(tree, [C])].pruned == 1
    shown = {tuple(tree.tokens(i)): n.pruned for i, n in enumerate(tree.nodes) if n.pruned}
    assert shown == {(C,): 1}


def test_a_beam_that_nothing_continues_was_pruned_in_the_next_step() -> None:
    last = (BeamCandidate(0, D, -0.1, -0.7, "kept", 0), BeamCandidate(0, A, -1.0, -1.6, "kept", 1))
    tree = build_tree([*BEAMS[:2], last], [LONG])
    assert tree.nodes[nodes_of(tree, [B, D])].pruned == 3
    assert tree.nodes[nodes_of(tree, [A])].pruned is None


def test_a_completion_without_its_end_token_is_found() -> None:
    tree = build_tree(BEAMS, [Completion(0, "", [A], "stop", score=-0.2)])
    assert tree.nodes[nodes_of(tree, [A, END])].completion == 0


def test_the_tree_is_drawn_with_scores_and_marks() -> None:
    trace = beam_trace(steps=19, width=3, returned=2)
    drawn = svg_picture(trace)
    assert len(re.findall(r'class="edge', drawn)) == sum(len(step) for step in trace.beams)
    for place, completion in enumerate(trace.completions, 1):
        assert f"★{place}" in drawn
        assert f"{completion.score:.3f}" in drawn
    assert "pruned in step 3" in drawn
    widths = [float(w) for w in re.findall(r"stroke-width:([\d.]+)", drawn)]
    assert 1 <= min(widths) < max(widths) == 4.5


def test_an_unlikely_token_has_a_high_level_of_surprise() -> None:
    assert [surprise(p) for p in (1, 0.5, 0.1, 0.001)] == [0, 2, 4, 7]
    assert [percent(p) for p in (0, 0.00001, 0.5, 0.99999, 1)] == [
        "0.0%",
        "<0.1%",
        "50.0%",
        ">99.9%",
        "100.0%",
    ]


def test_stylesheets_have_rules_for_dark_screens_and_print() -> None:
    for name in ("page.css", "svg.css"):
        assert "prefers-color-scheme: dark" in asset(name)
    assert "@media print" in asset("page.css")
    assert len(asset("page.js").splitlines()) < 60


def test_the_files_beside_the_code_are_all_used() -> None:
    folder = Path(__file__).parents[2] / "src/decodery/pictures"
    assert {f.name for f in folder.iterdir() if f.suffix in (".css", ".js")} == {
        "page.css",
        "page.js",
        "svg.css",
    }


def test_finished_candidates_of_a_step_that_keeps_no_beam_take_the_lanes_of_beams() -> None:
    last = (
        BeamCandidate(0, D, -0.1, -0.7, "finished"),
        BeamCandidate(0, A, -0.2, -0.8, "pruned"),
        BeamCandidate(1, A, -1.0, -1.9, "finished"),
    )
    tree = build_tree([*BEAMS[:2], last], [LONG])
    assert {tuple(tree.tokens(i)): n.lane for i, n in enumerate(tree.nodes) if n.step == 2} == {
        (B, C, D): 0,
        (B, D, A): 1,
        (B, C, A): 2,
    }
