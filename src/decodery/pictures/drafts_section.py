"""Draws the drafts of speculation: the tokens of each step, and the drafts below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from decodery.pictures.generation_trace import GenerationTrace, Step
from decodery.pictures.markup import Markup, element


def drafts_section(trace: GenerationTrace, steps: Sequence[Step]) -> Markup:
    """Returns a card for each step, or empty markup if no step had drafts."""
    drafts = sum(len(step.drafts) for step in steps)
    if not drafts:
        return Markup("")
    accepted = sum(step.accepted for step in steps)
    tokens = sum(len(step.tokens) for step in steps)
    summary = (
        f"{accepted} of {drafts} drafts accepted ({accepted / drafts:.0%});"
        f" {tokens} tokens in {len(steps)} steps, {tokens / len(steps):.1f} a step."
    )
    sources = Counter(source for step in steps for source in step.draft_sources[: step.accepted])
    if sources:
        summary += " Accepted drafts came from " + ", ".join(f"{s}: {n}" for s, n in sources.items()) + "."
    return element(
        "div",
        element("h3", "Drafts"),
        element("p", summary, class_="note"),
        element("div", [_card(trace, k, step) for k, step in enumerate(steps, 1)], class_="cards"),
        class_="drafts",
    )


def _card(trace: GenerationTrace, number: int, step: Step) -> Markup:
    width = max(len(step.tokens), len(step.drafts))
    columns = []
    for place in range(width):
        token = trace.label(step.tokens[place]) if place < len(step.tokens) else ""
        columns.append(
            element("span", element("bdi", token or "\u00a0"), _draft(trace, step, place), class_="pair")
        )
    return element("div", element("span", str(number), class_="number"), columns, class_="card")


def _draft(trace: GenerationTrace, step: Step, place: int) -> Markup:
    if place >= len(step.drafts):
        return element("small", "\u00a0")
    label = trace.label(step.drafts[place])
    if place < step.accepted:
        return element("small", f"✓ {label}", class_="good", title=f"accepted{_source(step, place)}")
    return element("small", "✕ ", element("s", label), class_="bad", title=f"rejected{_source(step, place)}")


def _source(step: Step, place: int) -> str:
    return f", from {step.draft_sources[place]}" if step.draft_sources else ""
