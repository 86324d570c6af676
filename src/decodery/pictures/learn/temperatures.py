"""Draws what the temperature does: to the probabilities of the next token, and to the surprise of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.learn.layout import WIDTH, rule, stacked, titled_document
from decodery.pictures.markup import Markup, element, joined, surprise
from decodery.pictures.svg_sheet import CELL, line

_LEFT = 76.0
_CELL = 12 * CELL
_LINE = 20.0


def temperatures_picture(
    next_token: Mapping[float, GenerationTrace], texts: Mapping[float, GenerationTrace]
) -> str:
    """Returns the picture of runs by their temperatures.

    Of the first runs, which have the same prompt, the first position is drawn; of the others, the text.
    """
    first, second = next(iter(next_token.values())), next(iter(texts.values()))
    parts = [
        line(0, 14, f"The next token after “{first.prompt}”", kind="strong"),
        line(0, 30, "each part is as wide as its token is probable", kind="dim small"),
    ]
    y = 42.0
    for temperature, trace in next_token.items():
        parts.append(_distribution(temperature, trace, y))
        y += 24
    seed = "" if second.output is None else f", seed {second.output.seed}"
    parts += [
        rule(y + 8),
        line(0, y + 34, f"Texts after “{second.prompt}”{seed}", kind="strong"),
        line(0, y + 50, "the redder a token, the less probable it was under the model", kind="dim small"),
    ]
    y += 62
    for temperature, trace in texts.items():
        text, height = _text(trace)
        parts.append(line(0, y + 14, f"T = {temperature:g}"))
        parts.append(element("g", text, transform=f"translate({_LEFT:.0f} {y:.0f})"))
        y += height + 8
    return titled_document("Temperature", joined(parts), y)


def _distribution(temperature: float, trace: GenerationTrace, y: float) -> Markup:
    considered = trace.steps[0][0].considered[0]
    shares = [c.after for c in considered.candidates]
    labels = [trace.label(c.token) for c in considered.candidates]
    return joined(
        [
            line(0, y + 12, f"T = {temperature:g}"),
            stacked(shares, labels, ["model"] * len(shares), _LEFT, y + 1, WIDTH - _LEFT),
        ]
    )


def _text(trace: GenerationTrace) -> tuple[Markup, float]:
    """Draws the tokens of a text in lines, each on the colour of its surprise, and returns their height."""
    choices = [c for step in trace.steps.get(0, ()) for c in step.considered]
    parts: list[Markup] = []
    x, y = 0.0, 0.0
    for label, considered in zip(_labels(trace, [c.token for c in choices]), choices, strict=True):
        width = len(label) * _CELL
        if x + width > WIDTH - _LEFT:
            x, y = 0.0, y + _LINE
        kind = f"s{surprise(considered.before)}"
        parts.append(element("rect", class_=kind, x=x, y=y + 2, width=width, height=17, rx=3))
        parts.append(line(x, y + 14, label))
        x += width
    return joined(parts), y + _LINE


def _labels(trace: GenerationTrace, tokens: Sequence[int]) -> list[str]:
    """Returns the texts of tokens with their spaces as they are."""
    return [trace.label(token).replace("␣", "\u00a0") for token in tokens]
