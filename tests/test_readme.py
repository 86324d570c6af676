from __future__ import annotations

import re
from pathlib import Path

import pytest

from decodery.decoding.request.processor_order import DEFAULT_ORDER

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# A part of what each program prints.
PRINTED = ("Paris", '"age"')


@pytest.mark.parametrize(("program", "printed"), list(zip(PROGRAMS, PRINTED, strict=True)))
def test_the_python_of_the_readme_runs(
    default_llm: object, capsys: pytest.CaptureFixture[str], program: str, printed: str
) -> None:
    exec(compile(program, "README.md", "exec"), {})
    assert printed in capsys.readouterr().out


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    for link in links:
        assert (Path(__file__).parent.parent / link).exists(), link


def test_the_written_order_of_the_processors_is_the_true_one() -> None:
    page = (Path(__file__).parent.parent / "docs" / "processors.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| (\w+) \| `", page, re.MULTILINE)) == DEFAULT_ORDER
