"""Draws the steps of a beam search as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from decodery.decoding.trace import BeamCandidate
from decodery.text.streaming.token_texts import TokenTexts


class BeamTable:
    """Draws the candidates of each step, `width` cells wide, and at most `top` of the pruned ones.

    A line shows a beam's number, the number of the beam that it continues, its token, the token's
    log-probability, the sum, and a bar: the beam's probability divided by that of the step's best.
    """

    def __init__(self, tokenizer: TokenTexts, width: int, top: int) -> None:
        self.tokenizer = tokenizer
        self.width = width
        self.top = top
        # The beams' numbers take 11 cells, the two scores and their gaps 21, the bar at least 3.
        self.label = max(min(width // 4, width - 35, 24), 1)
        self.bar = max(width - self.label - 32, 1)

    def legend(self) -> Text:
        """Returns the lines that explain the columns and marks."""
        text = Text("     beam  " + "token".ljust(self.label), "dim")
        text.append(f"{'logprob':>9} {'sum':>9}  likely beside the best\n", "dim")
        text.append("  4←2 beam 4 continues beam 2  ■ ended  ✗ pruned\n", "dim")
        return text

    def step(self, number: int, candidates: Sequence[BeamCandidate]) -> Text:
        """Returns the lines of one step, the likeliest candidate first; the last line is of pruned ones."""
        ranked = sorted(candidates, key=lambda c: -c.score)
        best = ranked[0].score
        text = Text()
        kept, ended = (sum(c.fate == fate for c in ranked) for fate in ("kept", "finished"))
        counts = f"{kept} kept" + (f", {ended} ended" if ended else "")
        text.append(f"{number:>3}  {counts} of {len(ranked)} candidates\n", "dim")
        for candidate in ranked:
            if candidate.fate != "pruned":
                text.append(self._line(candidate, math.exp(max(candidate.score - best, -700.0))))
        text.append(self._pruned([c for c in ranked if c.fate == "pruned"]))
        return text

    def _line(self, candidate: BeamCandidate, share: float) -> Text:
        ended = candidate.fate == "finished"
        here = "■" if ended else str((candidate.beam or 0) + 1)
        label = Text(self.tokenizer.token_label(candidate.token))
        label.truncate(self.label, overflow="ellipsis", pad=True)
        line = Text(f"  {here:>3}←{candidate.parent + 1:<3}  ", "green" if ended else "")
        line.append(label.plain, "bold green" if ended else "bold")
        line.append(f"{candidate.logprob:>9.3f} {candidate.score:>9.3f}  ")
        line.append("█" * max(round(share * self.bar), 1) + "\n", "green" if ended else "blue")
        return line

    def _pruned(self, candidates: Sequence[BeamCandidate]) -> Text:
        text = Text()
        free = self.width - 4
        for candidate in candidates[: self.top]:
            part = f"  {self.tokenizer.token_label(candidate.token)} {candidate.score:.2f}"
            if cell_len(part) > free:
                break
            text.append(part, "dim")
            free -= cell_len(part)
        return Text("  ✗", "red").append(text).append("\n") if text else text
