"""Draws the choices of a sampled text as a table for the terminal."""

from __future__ import annotations

from rich.text import Text

from decodery.decoding.trace import Candidate, Considered
from decodery.pictures.generation_trace import Step
from decodery.text.streaming.token_texts import TokenTexts

_EIGHTHS = " ▏▎▍▌▋▊▉"


class ChoiceTable:
    """Draws each choice, `width` cells wide, with its `top` likeliest candidates.

    A candidate's line shows a mark, the token, and two bars with percentages: the probability under the model
    and the one after processing.
    """

    def __init__(self, tokenizer: TokenTexts, width: int, top: int) -> None:
        self.tokenizer = tokenizer
        self.top = top
        self.label = min(max(width // 5, 8), 20)
        # A mark and two gaps of two cells, and two numbers of six after a gap of one.
        self.bar = max((width - self.label - 2 - 4 - 14) // 2, 3)

    def legend(self) -> Text:
        """Returns the lines that explain the columns and marks."""
        text = Text("  " + " " * self.label + "  ")
        text.append("under the model".ljust(self.bar + 7)[: self.bar + 7] + "  ", "blue")
        text.append("after processing\n", "green")
        text.append("  ● chosen  ✗ cut away\n", "dim")
        return text

    def step(self, number: int, step: Step) -> Text:
        """Returns the lines of one step: its choices, counted from `number`, and its drafts, if any."""
        text = Text()
        for place, considered in enumerate(step.considered):
            text.append("\n" if place else "")
            text.append(self.choice(number + place, considered, drafted=place < step.accepted))
        if step.drafts:
            text.append(self._drafts(step))
        return text

    def _drafts(self, step: Step) -> Text:
        text = Text("     drafts:", "dim")
        for place, token in enumerate(step.drafts):
            accepted = place < step.accepted
            text.append(f" {'✓' if accepted else '✗'} ", "green" if accepted else "red")
            text.append(self.tokenizer.token_label(token), "" if accepted else "dim strike")
            if step.draft_sources:
                text.append(f" ({step.draft_sources[place]})", "dim")
        text.append("\n")
        return text

    def choice(self, number: int, considered: Considered, *, drafted: bool = False) -> Text:
        """Returns the lines of one choice: a heading, the weighed tokens, if any, and the candidates."""
        text = Text()
        text.append(f"{number:>3}  ", "dim")
        text.append(self.tokenizer.token_label(considered.token), "bold")
        text.append(f"  {_percent(considered.before)} → {_percent(considered.after)}")
        every = considered.kept == self.tokenizer.vocab_size
        kept = "all kept" if every else f"{considered.kept:,} kept"
        if considered.allowed is not None:
            kept += f", grammar allows {considered.allowed:,}"
        text.append(f"  rank {considered.rank:,}  entropy {considered.entropy:.2f} bits  {kept}", "dim")
        if considered.forced:
            text.append("  forced", "magenta")
        if drafted:
            text.append("  drafted", "green")
        text.append("\n")
        for weighed in considered.weighed:
            label = self.tokenizer.token_label(weighed.token)
            chosen = weighed.token == considered.token
            numbers = f"probability {weighed.probability:.3f}  similarity {weighed.similarity:.3f}"
            line = f"     {label}: {numbers}  score {weighed.score:.3f}\n"
            text.append(line, "bold" if chosen else "dim")
        for candidate in shown_candidates(considered, self.top):
            text.append(self._line(candidate, candidate.token == considered.token))
        return text

    def _line(self, candidate: Candidate, chosen: bool) -> Text:
        cut = candidate.after == 0
        style = "bold" if chosen else "dim" if cut else ""
        label = Text(self.tokenizer.token_label(candidate.token))
        label.truncate(self.label, overflow="ellipsis", pad=True)
        line = Text()
        line.append("● " if chosen else "  ", style)
        line.append(label.plain, style)
        line.append("  " + bar(candidate.before, self.bar), "dim blue" if cut else "blue")
        line.append(f" {_percent(candidate.before):>6}  ", style)
        if cut:
            line.append("✗\n", "red")
        else:
            line.append(bar(candidate.after, self.bar), "green")
            line.append(f" {_percent(candidate.after):>6}\n", style)
        return line


def shown_candidates(considered: Considered, top: int) -> list[Candidate]:
    """Returns the `top` likeliest candidates, then the chosen one if it is not among them."""
    listed = list(considered.candidates[:top])
    if top and all(c.token != considered.token for c in listed):
        listed += [c for c in considered.candidates[top:] if c.token == considered.token]
    return listed


def bar(share: float, width: int) -> str:
    """Returns a bar that fills this share of `width` cells, rounded to an eighth of a cell."""
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
