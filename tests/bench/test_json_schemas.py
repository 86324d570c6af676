from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import json_schemas


def test_a_folder_of_schemas_is_measured_in_both_modes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unique = {"type": "array", "items": {"type": "number"}, "uniqueItems": True}
    tests = [{"valid": True, "data": [1, 2]}, {"valid": False, "data": [1, 1]}, {"valid": False, "data": "x"}]
    (tmp_path / "a.json").write_text(json.dumps({"schema": unique, "tests": tests}))
    (tmp_path / "b.json").write_text(json.dumps({"schema": {"const": 1}, "tests": []}))
    monkeypatch.setattr(sys, "argv", ["json_schemas", str(tmp_path)])
    json_schemas.main()
    exact, loose = capsys.readouterr().out.split('unsupported="approximate"')
    assert "50.00% refused" in exact
    assert "0.00% refused" in loose
    assert "invalid, told by the check: 1\n" in loose
    assert "invalid, accepted: 0\n" in loose


def test_no_wrong_text_of_the_own_set_is_accepted() -> None:
    cases = list(json_schemas.own_set(30))
    assert all(len(case["tests"]) == 10 for case in cases)
    assert cases == list(json_schemas.own_set(30))
