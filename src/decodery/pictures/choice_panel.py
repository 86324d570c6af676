"""Draws the panel of one choice: how each processor changed the probabilities of its candidates."""

from __future__ import annotations

from decodery.decoding.trace import Candidate, Considered
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.markup import Markup, element, percent


def choice_panel(
    trace: GenerationTrace, name: str, number: int, considered: Considered, *, drafted: bool, first: bool
) -> Markup:
    """Returns the panel that the link `#name` opens; the `first` one is open when the page loads."""
    size = trace.tokenizer.vocab_size
    facts = [
        f"rank {considered.rank:,}",
        f"entropy {considered.entropy:.2f} bits",
        f"{considered.kept:,} of {size:,} tokens kept",
    ]
    if considered.allowed is not None:
        facts.append(f"grammar allows {considered.allowed:,} ({percent(considered.allowed / size)})")
    if considered.forced:
        facts.append("forced by the grammar")
    if drafted:
        facts.append("drafted and accepted")
    facts += [
        f"{trace.label(w.token)}: probability {w.probability:.3f}, similarity {w.similarity:.3f},"
        f" score {w.score:.3f}"
        for w in considered.weighed
    ]
    title = element(
        "h3",
        element("span", str(number), class_="number"),
        element("bdi", trace.label(considered.token), class_="label"),
        element("span", f"{percent(considered.before)} → {percent(considered.after)}", class_="change"),
    )
    return element(
        "article",
        title,
        element("p", " · ".join(facts), class_="note"),
        element("div", _table(trace, considered), class_="scroll", tabindex=-1),
        class_="panel open" if first else "panel",
        id=name,
    )


def _table(trace: GenerationTrace, considered: Considered) -> Markup:
    """Returns a table: a row for each candidate, a column for each processor that changed something."""
    columns = [("model", "", [c.before for c in considered.candidates])]
    columns += [
        (stage.name.replace("_", " "), f"{stage.kept:,} kept", list(stage.probabilities))
        for stage in considered.stages
    ]
    after = [c.after for c in considered.candidates]
    if len(columns) == 1 or not _same(columns[-1][2], after):
        columns.append(
            ("processed" if considered.weighed else "chosen from", f"{considered.kept:,} kept", after)
        )
    last = len(columns) - 1
    head = element(
        "tr",
        element("th", "token"),
        [
            element("th", name, element("small", kept or f"{trace.tokenizer.vocab_size:,} tokens"))
            for name, kept, _ in columns
        ],
    )
    rows = [
        element(
            "tr",
            element("th", element("bdi", trace.label(candidate.token))),
            [
                _cell(shares[place], kind="before" if k == 0 else "after" if k == last else "between")
                for k, (_, _, shares) in enumerate(columns)
            ],
            class_=_row_kind(candidate, considered),
        )
        for place, candidate in enumerate(considered.candidates)
    ]
    return element("table", element("thead", head), element("tbody", rows))


def _same(first: list[float], second: list[float]) -> bool:
    return all(abs(a - b) < 1e-6 for a, b in zip(first, second, strict=True))


def _row_kind(candidate: Candidate, considered: Considered) -> str | None:
    if candidate.token == considered.token:
        return "taken"
    return "cut" if candidate.after == 0 else None


def _cell(share: float, *, kind: str) -> Markup:
    if share == 0:
        return element("td", element("span", "✕", class_="cross", title="cut away"), class_=kind)
    bar = element("i", style=f"width:{share:.2%}")
    return element("td", element("span", bar, class_="bar"), element("span", percent(share)), class_=kind)
