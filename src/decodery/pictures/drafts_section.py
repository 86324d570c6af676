"""What speculation tried: the tokens of each step, and under them the drafts."""

from __future__ import annotations

from collections.abc import Sequence

from decodery.pictures.generation_trace import GenerationTrace, Step
from decodery.pictures.markup import Markup, element


def drafts_section(story: GenerationTrace, steps: Sequence[Step]) -> Markup:
    """A card a step, or nothing where nothing was drafted."""
    tried = sum(len(step.drafts) for step in steps)
    if not tried:
        return Markup("")
    accepted = sum(step.accepted for step in steps)
    tokens = sum(len(step.tokens) for step in steps)
    told = (
        f"{accepted} of {tried} drafts accepted ({accepted / tried:.0%});"
        f" {tokens} tokens in {len(steps)} steps, {tokens / len(steps):.1f} a step."
    )
    return element(
        "div",
        element("h3", "Drafts"),
        element("p", told, class_="note"),
        element("div", [_card(story, k, step) for k, step in enumerate(steps, 1)], class_="cards"),
        class_="drafts",
    )


def _card(story: GenerationTrace, number: int, step: Step) -> Markup:
    width = max(len(step.tokens), len(step.drafts))
    columns = []
    for place in range(width):
        token = story.label(step.tokens[place]) if place < len(step.tokens) else ""
        columns.append(
            element("span", element("bdi", token or "\u00a0"), _draft(story, step, place), class_="pair")
        )
    return element("div", element("span", str(number), class_="number"), columns, class_="card")


def _draft(story: GenerationTrace, step: Step, place: int) -> Markup:
    if place >= len(step.drafts):
        return element("small", "\u00a0")
    label = story.label(step.drafts[place])
    if place < step.accepted:
        return element("small", f"✓ {label}", class_="good", title="accepted")
    return element("small", "✕ ", element("s", label), class_="bad", title="rejected")
