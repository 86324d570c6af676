"""The page of a story: self-contained HTML that needs no network."""

from __future__ import annotations

from decodery.decoding.trace import Considered
from decodery.outputs import Completion
from decodery.pictures.beam_tree_svg import WIDTH as TREE_WIDTH
from decodery.pictures.beam_tree_svg import tree_of, tree_svg
from decodery.pictures.choice_panel import choice_panel
from decodery.pictures.choices_svg import WIDTH as CHOICES_WIDTH
from decodery.pictures.choices_svg import choices_svg
from decodery.pictures.drafts_section import drafts_section
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.markup import Markup, element, joined, percent, surprise
from decodery.pictures.svg_sheet import MARGIN, heading, sheet, style
from decodery.version import __version__

_HINT = "Point at a token, or go to it with the Tab key, to see the text up to it."


def page(story: GenerationTrace) -> str:
    """The whole page, as text."""
    title = f"{' '.join(story.prompt.split())[:60]} – decodery"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style("page.css"), style("svg.css")),
    )
    parts = [_header(story)]
    if story.beams:
        parts.append(_tree(story))
    parts += [_completion(story, place, c) for place, c in enumerate(story.completions)]
    if not story.completions:
        parts.append(element("p", "Nothing was generated.", class_="note"))
    footer = element("footer", f"Made by decodery {__version__}")
    script = element("script", style("page.js"))
    body = element("body", element("main", parts, footer), script)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def picture(story: GenerationTrace) -> str:
    """The same as one static SVG document."""
    if story.beams:
        body, height = tree_svg(tree_of(story), story)
        width = TREE_WIDTH + 2 * MARGIN
    else:
        body, height = choices_svg(story)
        width = CHOICES_WIDTH + 2 * MARGIN
    top, used = heading(story, width)
    texts, more = _texts(story, used + height + 8) if story.beams else (Markup(""), 0.0)
    moved = element("g", body, transform=f"translate({MARGIN:.0f} {used:.0f})")
    return str(sheet(joined([top, moved, texts]), width, used + height + more + MARGIN, story.prompt)) + "\n"


def _texts(story: GenerationTrace, top: float) -> tuple[Markup, float]:
    from decodery.pictures.svg_sheet import LINE, fitted, line

    lines = []
    for place, completion in enumerate(story.completions, 1):
        score = "" if completion.score is None else f"  {completion.score:.3f}"
        text = fitted(f"★{place}{score}  {' '.join(completion.text.split())}", 150)
        lines.append(line(MARGIN, top + place * LINE, text))
    return joined(lines), LINE * len(lines) + 12


def _header(story: GenerationTrace) -> Markup:
    output = story.output
    facts = [("model", story.model)]
    facts += story.settings()
    if output is not None:
        facts.append(("seed", str(output.seed)))
    chips = [element("li", element("span", name), " ", element("b", value)) for name, value in facts]
    error = None if output is None or output.error is None else element("p", output.error, class_="error")
    return element(
        "header",
        element("p", story.prompt, class_="prompt", dir="auto"),
        element("ul", chips, class_="facts"),
        *([error] if error is not None else []),
    )


def _tree(story: GenerationTrace) -> Markup:
    tree = tree_of(story)
    body, height = tree_svg(tree, story)
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
        element("p", _HINT, class_="told", id="told", aria_live="polite"),
        class_="beams",
    )


def _completion(story: GenerationTrace, place: int, completion: Completion) -> Markup:
    steps = story.steps.get(completion.index, [])
    choices = [c for step in steps for c in step.considered]
    several = len(story.completions) > 1
    score = "" if completion.score is None else f", score {completion.score:.4f}"
    reason = "" if completion.stop_reason is None else f" ({_reason(story, completion.stop_reason)})"
    ended = f"{len(completion.token_ids)} tokens, ended by {completion.finish_reason}{reason}{score}"
    title = f"Completion {place + 1}" if several else "Text"
    heading_ = element("h2", title, " ", element("small", ended))
    if not choices:
        body = element("p", completion.text or "(empty)", class_="text", dir="auto")
        return element("section", heading_, body)
    drafted = {k for k, on in enumerate(_drafted(story, completion.index)) if on}
    pieces = story.pieces([c.token for c in choices])
    links = [
        _token(story, f"c{place}t{k}", c, piece, drafted=k in drafted)
        for k, (c, piece) in enumerate(zip(choices, pieces, strict=True))
    ]
    panels = [
        choice_panel(story, f"c{place}t{k}", k + 1, c, drafted=k in drafted, first=k == 0)
        for k, c in enumerate(choices)
    ]
    text = element("p", links, class_="text", dir="auto")
    left = element("div", text, _legend(drafted=bool(drafted), choices=choices), drafts_section(story, steps))
    return element(
        "section",
        heading_,
        element("div", left, element("div", panels, class_="panels"), class_="split"),
    )


def _reason(story: GenerationTrace, reason: str | int) -> str:
    return story.label(reason) if isinstance(reason, int) else repr(reason)


def _drafted(story: GenerationTrace, stream: int) -> list[bool]:
    """For each token, whether a draft proposed it."""
    return [k < step.accepted for step in story.steps.get(stream, ()) for k in range(len(step.tokens))]


def _token(story: GenerationTrace, name: str, considered: Considered, piece: str, *, drafted: bool) -> Markup:
    marks = f"{' forced' if considered.forced else ''}{' drafted' if drafted else ''}"
    label = story.label(considered.token)
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
    """Its text, in which line ends can be seen."""
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
