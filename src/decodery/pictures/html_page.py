"""Draws a trace as one HTML page that needs no other file and no network."""

from __future__ import annotations

from decodery.decoding.trace import Considered
from decodery.outputs import Completion
from decodery.pictures.beam_tree import build_tree
from decodery.pictures.beam_tree_svg import WIDTH as TREE_WIDTH
from decodery.pictures.beam_tree_svg import tree_svg
from decodery.pictures.choice_panel import choice_panel
from decodery.pictures.drafts_section import drafts_section
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.html_document import html_document
from decodery.pictures.markup import Markup, element, joined, percent, surprise
from decodery.pictures.svg_sheet import asset
from decodery.version import __version__

# The id of the element that holds the JSON of a run.
DATA_ID = "run"
_HINT = "Point at a token, or go to it with the Tab key, to see the text up to it."


def html_page(trace: GenerationTrace, source: str | None = None) -> str:
    """Returns the whole page. Its policy forbids all but its own script, and all requests.

    `source` is JSON that the page holds for programs that read it; the page itself does not.
    """
    title = f"{' '.join(trace.prompt.split())[:60]} – decodery"
    parts = [_header(trace)]
    if trace.beams:
        parts.append(_tree(trace))
    parts += [_completion(trace, place, c) for place, c in enumerate(trace.completions)]
    if not trace.completions:
        parts.append(element("p", "Nothing was generated.", class_="note"))
    footer = element("footer", f"Made by decodery {__version__}")
    script = element("script", asset("page.js"))
    data = [] if source is None else [_data(source)]
    body = [element("main", parts, footer), *data, script]
    return html_document(title, body, [asset("page.css"), asset("svg.css")], asset("page.js"))


def _data(source: str) -> Markup:
    """Returns the element that holds JSON; in JSON, "<" stands in texts alone, where it may be escaped."""
    return element("script", Markup(source.replace("<", "\\u003c")), id=DATA_ID, type="application/json")


def _header(trace: GenerationTrace) -> Markup:
    output = trace.output
    facts = [("model", trace.model)]
    facts += trace.settings()
    if output is not None:
        facts.append(("seed", str(output.seed)))
    chips = [element("li", element("span", name), " ", element("b", value)) for name, value in facts]
    error = None if output is None or output.error is None else element("p", output.error, class_="error")
    return element(
        "header",
        element("h1", trace.prompt, class_="prompt", dir="auto"),
        element("ul", chips, class_="facts"),
        *([error] if error is not None else []),
    )


def _tree(trace: GenerationTrace) -> Markup:
    tree = build_tree(trace.beams, trace.completions)
    body, height = tree_svg(tree, trace)
    svg = element(
        "svg",
        body,
        class_="sheet",
        viewBox=f"0 0 {TREE_WIDTH:.0f} {height:.0f}",
        width=TREE_WIDTH,
        height=height,
        role="group",
        aria_label="the beams of each step",
    )
    legend = element(
        "p",
        "Columns are steps, lines are beams; a thick line is as likely as the step’s best. ",
        element("b", "blue", class_="blue"),
        " leads to what is returned (★), ",
        element("b", "green", class_="green"),
        " has ended, ✕ was pruned (in the step of that number)."
        " Under a token: what ranked it, and its own log-probability as processed.",
        class_="note",
    )
    return element(
        "section",
        element("h2", "Beams"),
        legend,
        element("div", svg, class_="scroll", tabindex=0),
        element("p", _HINT, class_="node-text", id="node-text", aria_live="polite"),
        class_="beams",
    )


def _completion(trace: GenerationTrace, place: int, completion: Completion) -> Markup:
    steps = trace.steps.get(completion.index, [])
    choices = [c for step in steps for c in step.considered]
    several = len(trace.completions) > 1
    score = "" if completion.score is None else f", score {completion.score:.4f}"
    reason = "" if completion.stop_reason is None else f" ({_reason(trace, completion.stop_reason)})"
    ended = f"{len(completion.token_ids)} tokens, ended by {completion.finish_reason}{reason}{score}"
    title = f"Completion {place + 1}" if several else "Text"
    heading_ = element("h2", title, " ", element("small", ended))
    if not choices:
        body = element("p", completion.text or "(empty)", class_="text", dir="auto")
        return element("section", heading_, body)
    drafted = {k for k, on in enumerate(_drafted(trace, completion.index)) if on}
    pieces = trace.pieces([c.token for c in choices])
    links = [
        _token(trace, f"c{place}t{k}", c, piece, drafted=k in drafted)
        for k, (c, piece) in enumerate(zip(choices, pieces, strict=True))
    ]
    panels = [
        choice_panel(trace, f"c{place}t{k}", k + 1, c, drafted=k in drafted, first=k == 0)
        for k, c in enumerate(choices)
    ]
    text = element("p", links, class_="text", dir="auto")
    left = element("div", text, _legend(drafted=bool(drafted), choices=choices), drafts_section(trace, steps))
    return element(
        "section",
        heading_,
        element("div", left, element("div", panels, class_="panels"), class_="split"),
    )


def _reason(trace: GenerationTrace, reason: str | int) -> str:
    return trace.label(reason) if isinstance(reason, int) else repr(reason)


def _drafted(trace: GenerationTrace, stream: int) -> list[bool]:
    """Returns for each token whether a draft proposed it."""
    return [k < step.accepted for step in trace.steps.get(stream, ()) for k in range(len(step.tokens))]


def _token(trace: GenerationTrace, name: str, considered: Considered, piece: str, *, drafted: bool) -> Markup:
    marks = f"{' forced' if considered.forced else ''}{' drafted' if drafted else ''}"
    label = trace.label(considered.token)
    # A token that ends inside a character has no text of its own yet.
    shown = [_visible(piece)] if piece else [element("i", label if label else "·")]
    return element(
        "a",
        shown,
        href=f"#{name}",
        class_=f"t s{surprise(considered.before)}{marks}",
        title=f"{label}  {percent(considered.before)}",
    )


def _visible(piece: str) -> Markup:
    """Returns the text with a visible sign at each line end."""
    first, *others = piece.split("\n")
    return joined([first, *(joined([element("i", "⏎"), Markup("<br>"), line]) for line in others)])


def _legend(*, drafted: bool, choices: list[Considered]) -> Markup:
    levels = (">90%", ">60%", ">35%", ">18%", ">8%", ">2.5%", ">0.5%", "less")
    scale = [element("span", name, class_=f"t s{k}") for k, name in enumerate(levels)]
    marks = []
    if any(c.forced for c in choices):
        marks.append(element("span", element("span", "forced", class_="t forced"), " by the grammar"))
    if drafted:
        marks.append(element("span", element("span", "drafted", class_="t drafted"), " and accepted"))
    return element("p", "probability under the model: ", scale, " ", marks, class_="legend")
