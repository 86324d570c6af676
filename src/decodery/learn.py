"""Lists and reads the learner's pages: each explains one way to decode. Needs no torch.

In a checkout they are in `docs/learn`; the build puts them into the package. `README.md` beside them is the
index: a line for each page, in the order in which to read them.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decodery.errors import ParameterError

_PACKAGED = Path(__file__).parent / "learn_pages"
_SOURCES = Path(__file__).parents[2] / "docs" / "learn"
_ENTRY = re.compile(r"^- \[(?P<title>[^\]]+)\]\((?P<name>[\w-]+)\.md\): (?P<summary>.+)$", re.MULTILINE)
_TRY = re.compile(r"\A<!-- try: (\{.*\}) -->\n+")


@dataclass(frozen=True)
class LearnPage:
    """Holds a learner's page: its Markdown, without the comment that names the run to try.

    `run` is that run: `prompt` and `params` in plain form, a `text` to divide into tokens, or a text whose
    last token is looked at in the `layers`. `picture` is the path of the SVG file that the Markdown shows.
    """

    name: str
    title: str
    summary: str
    text: str
    run: Mapping[str, Any]
    picture: Path


def pages_folder() -> Path:
    """Returns the folder with the pages and pictures."""
    return _PACKAGED if _PACKAGED.is_dir() else _SOURCES


def learn_pages() -> list[LearnPage]:
    """Returns all pages in the order of the index."""
    folder = pages_folder()
    index = (folder / "README.md").read_text(encoding="utf-8")
    return [_page(folder, found) for found in _ENTRY.finditer(index)]


def learn_page(name: str) -> LearnPage:
    """Returns the page of a method; raises `ParameterError`, which names the nearest one, if there is none.

    Capitals, and spaces or underscores in place of hyphens, make no difference.
    """
    pages = {page.name: page for page in learn_pages()}
    wanted = re.sub(r"[\s_]+", "-", name.strip().lower())
    if wanted in pages:
        return pages[wanted]
    near = difflib.get_close_matches(wanted, pages, 1, cutoff=0.4)
    advice = f"did you mean {near[0]}?" if near else f"the pages are {', '.join(pages)}"
    raise ParameterError(f"there is no page {name!r}: {advice}")


def _page(folder: Path, entry: re.Match[str]) -> LearnPage:
    text = (folder / f"{entry['name']}.md").read_text(encoding="utf-8")
    run = _TRY.match(text)
    return LearnPage(
        **entry.groupdict(),
        text=_TRY.sub("", text),
        run=json.loads(run[1]) if run else {},
        picture=folder / f"{entry['name']}.svg",
    )
