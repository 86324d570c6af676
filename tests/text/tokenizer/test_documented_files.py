from __future__ import annotations

import re
from pathlib import Path

from decodery.text.tokenizer.gguf_models import MODELS
from decodery.text.tokenizer.pretokenizers import SCHEMES
from decodery.text.tokenizer.slow_files import FILES

PAGE = (Path(__file__).parents[3] / "docs" / "tokenizers.md").read_text(encoding="utf-8")


def first_column(title: str) -> list[str]:
    """Returns the names in the first column of the table under a title."""
    part = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| ")][1:]
    return [name for row in rows for name in re.findall("`([^`]+)`", row)]


def test_the_page_lists_the_files_in_the_order_in_which_they_are_looked_for() -> None:
    assert first_column("Folders") == ["tokenizer.json", *FILES]


def test_the_page_lists_the_kinds_of_gguf_vocabularies() -> None:
    assert sorted(first_column("GGUF")) == sorted(MODELS)
    assert f"All {len(SCHEMES)} names" in PAGE
