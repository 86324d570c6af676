from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from decodery.cli.main import run
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from tests.test_layout import INNER, LAYERS, SOURCE
from tests.test_words import PROSE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIFE = (ROOT / "docs" / "life-of-a-request.md").read_text(encoding="utf-8")


PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# A part of what each program prints.
PRINTED = ("Paris", '"age"', "[[0.5")


@pytest.mark.parametrize(("program", "printed"), list(zip(PROGRAMS, PRINTED, strict=True)))
def test_the_python_of_the_readme_runs(
    default_llm: object, capsys: pytest.CaptureFixture[str], program: str, printed: str
) -> None:
    exec(compile(program, "README.md", "exec"), {})
    assert printed in capsys.readouterr().out


def test_the_measurement_of_the_readme_prints_what_is_written(
    native_llm: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (section,) = re.findall(r"### Measure a model\n.*?```console\n(.*?)```", README, re.DOTALL)
    command, _, written = section.partition("\n")
    monkeypatch.chdir(tmp_path)
    assert run(command.removeprefix("$ decodery ").split()) == 0
    printed = capsys.readouterr().out
    number = re.compile(r"\d+\.\d+")
    assert number.sub("", printed) == number.sub("", written)
    # Another processor rounds in another order.
    values = [[float(one) for one in number.findall(text)] for text in (printed, written)]
    assert values[0] == pytest.approx(values[1], abs=0.06)
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.name)
def test_every_link_path_and_module_of_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [
        link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith(("https://", "http://"))
    ]
    assert links or page.name != "README.md"
    for link in links:
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`(\w[\w./-]*)`", text):
        if name.startswith("decodery."):
            resolve_name(name)
        elif name.endswith(".py") or ((SOURCE / name.split("/")[0]).is_dir() and "/" in name):
            assert "NAME" in name or any((base / name).exists() for base in (SOURCE, ROOT)), name


def test_the_written_layers_are_the_true_ones() -> None:
    written: dict[int, set[str]] = {}
    for rank, names in re.findall(r"^\| (\d+) \| ([^|]+) \|", LIFE, re.MULTILINE):
        written.setdefault(int(rank), set()).update(re.findall(r"`(\w+)`", names))
    assert written == {rank: set(names) for rank, names in enumerate(LAYERS, 1)}


def test_the_written_order_within_a_package_is_the_true_one() -> None:
    written = {
        package: re.findall(r"`(\w+)`", order)
        for package, order in re.findall(r"^- `(\w+)`: (.+)\.$", LIFE, re.MULTILINE)
    }
    # The page says in words where the package's other files stand.
    assert written == {package: [name for name in order if name] for package, order in INNER.items()}


def test_the_written_order_of_the_processors_is_the_true_one() -> None:
    page = (ROOT / "docs" / "processors.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| (\w+) \| `", page, re.MULTILINE)) == DEFAULT_ORDER


def test_the_family_in_contributing_is_the_one_in_the_code() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    path, code = re.findall(r"`(src/\S+\.py)`:\n\n```python\n(.*?)```", text, re.DOTALL)[0]
    assert code == (ROOT / path).read_text(encoding="utf-8")
    rows = re.findall(r"^\+    (\"\S+: \(.*)$", text, re.MULTILINE)
    table = (ROOT / "src/decodery/models/architectures.py").read_text(encoding="utf-8")
    assert len(rows) == 2
    assert all(row in table for row in rows)
