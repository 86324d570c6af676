"""Tests the files in deploy/: they parse, and name what exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from decodery.serving.gate import OPEN_PATHS
from decodery.serving.settings import ServerSettings
from tests.serving.test_serving_docs import metric_names

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def lines(name: str) -> list[str]:
    """Returns the lines of a file that are no comments."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    named = {name for expression in expressions() for name in re.findall(r"\bdecodery_\w+", expression)}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} == metric_names()


def test_each_expression_has_the_model_of_the_dashboard_and_closed_brackets() -> None:
    for expression in expressions():
        assert expression.count("(") == expression.count(")")
        assert len(re.findall(r"\bdecodery_\w+", expression)) == expression.count('{model_name=~"$model"}')


def test_the_panels_lie_beside_each_other() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {panel["id"] for panel in DASHBOARD["panels"]} == set(range(1, len(DASHBOARD["panels"]) + 1))


def test_every_file_that_compose_mounts_exists() -> None:
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]
        for secret in service.get("secrets", ()):
            assert secret in compose["secrets"]
    for name in ("prometheus.yaml", "grafana-provisioning.yaml", "grafana-dashboards.yaml"):
        assert yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    build = compose["services"]["decodery"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_the_image_runs_without_root_and_asks_an_open_path_for_its_health() -> None:
    text = "\n".join(lines("Dockerfile"))
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    (path,) = re.findall(r"http://127\.0\.0\.1:8000(/\w+)", text)
    assert path == "/ready"
    assert path in OPEN_PATHS


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "decodery.service"])
def test_each_flag_is_one_of_the_command(name: str) -> None:
    page = (DEPLOY.parent / "docs" / "serving.md").read_text(encoding="utf-8")
    served = [line for line in lines(name) if "serve" in line or "command:" in line]
    flags = {flag for line in served for flag in re.findall(r'(?<=[\s"])--[a-z-]+', line)}
    assert flags
    for flag in flags:
        assert f"| `{flag}` |" in page


@pytest.mark.parametrize(
    ("name", "pattern"), [("compose.yaml", r"period: (\d+)s"), ("decodery.service", r"StopSec=(\d+)")]
)
def test_a_supervisor_waits_longer_than_the_server_drains(name: str, pattern: str) -> None:
    (seconds,) = re.findall(pattern, "\n".join(lines(name)))
    assert int(seconds) > ServerSettings().drain_seconds


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "decodery.service").read_text(encoding="utf-8")
    unit = tmp_path / "decodery.service"
    unit.write_text(text.replace("/opt/decodery/bin/decodery", "/bin/true"), encoding="utf-8")
    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
