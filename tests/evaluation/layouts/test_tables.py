from __future__ import annotations

from pathlib import Path

import pytest

from decodery.errors import ParameterError
from decodery.evaluation.layouts.tables import read_rows


def test_a_row_without_a_column_or_with_null_there_is_an_error_that_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n\n{"texts": "b", "n": 1}\n')
    with pytest.raises(ParameterError, match=r"rows\.jsonl, row 3 has no text; it has texts, n$"):
        read_rows(file, ("text",))
    file.write_text('{"text": "a"}\n\n{"text": null, "n": 1}\n')
    with pytest.raises(ParameterError, match=r"rows\.jsonl, row 3: text is null$"):
        read_rows(file, ("text",))
    assert len(read_rows(file, ())) == 2
