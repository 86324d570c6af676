"""Checks Parquet files as the Hugging Face hub has them. `make test-metrics` installs pyarrow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from decodery.errors import ParameterError
from decodery.evaluation.layouts.tables import read_rows
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.variant import Variant, varied
from tests.evaluation.tasks.test_choices_in_files import ROWS

NEEDS = "pyarrow is not installed: make test-metrics has it"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason=NEEDS)
    parquet = pytest.importorskip("pyarrow.parquet", reason=NEEDS)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_without_pyarrow_an_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ParameterError, match=r'needs pyarrow: pip install "decodery\[parquet\]"'):
        find_task("arc").read(tmp_path)


def test_the_splits_of_a_task_are_read_from_numbered_files(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"test-0000{number}-of-00002.parquet", [{**ROWS["arc"], "id": f"q{number}"}])
    documents = find_task("arc").read(tmp_path).documents
    assert [document.fields["gold"] for document in documents] == [0, 0]


def test_nested_columns_lists_and_missing_values_are_those_of_json(tmp_path: Path) -> None:
    rows = [
        {"translation": {"en": "a", "de": "ä"}, "many": ["x", "y"], "number": 1, "none": None},
        {"translation": {"en": "b", "de": "b"}, "many": [], "number": 2, "none": "there"},
    ]
    assert read_rows(write(tmp_path / "rows.parquet", rows)) == rows
    with pytest.raises(ParameterError, match=r"rows.parquet, row 1: none is null"):
        read_rows(tmp_path / "rows.parquet", ("none",))


def test_a_translation_is_read_as_it_is_published(tmp_path: Path) -> None:
    task = varied(find_task("translation"), Variant(source_language="en", target_language="de"))  # type: ignore[arg-type]
    path = write(
        tmp_path / "test-00000-of-00001.parquet", [{"translation": {"en": "a cat", "de": "eine Katze"}}]
    )
    (document,) = task.read(path).documents
    assert document.fields == {"text": "a cat", "known": ["eine Katze"]}


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 and no footer", b"rows\n"])
def test_a_damaged_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow", reason=NEEDS)
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(ParameterError, match=r"rows\.parquet cannot be read"):
        read_rows(tmp_path / "rows.parquet")


def test_a_file_without_rows_is_an_error(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason=NEEDS)
    parquet = pytest.importorskip("pyarrow.parquet", reason=NEEDS)
    parquet.write_table(
        pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "rows.parquet"
    )
    with pytest.raises(ParameterError, match="has no rows"):
        read_rows(tmp_path / "rows.parquet")
