"""Tests `decodery playground`: its address with a key, the browser, and its end."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
import pytest

from decodery.cli.commands import playground as command
from decodery.serving.settings import ServerSettings
from tests.cli.conftest import Run
from tests.encoding.folders import MEAN, sentence_folder

SOURCE = Path(__file__).parents[3] / "src"
ADDRESS = re.compile(r"(http://127\.0\.0\.1:(\d+))/#key=(\S+)")
ADDRESS_OPENED = re.compile(r'url=([^"]+)"')


class Began:
    """Holds what the command asked to be served, the opened addresses, and what their files were."""

    def __init__(self) -> None:
        self.settings: list[ServerSettings] = []
        self.told: list[dict[str, Any]] = []
        self.opened: list[str] = []
        self.contents: list[str] = []
        self.modes: list[tuple[int, int]] = []
        self.browser = threading.Event()
        self.opens = True


def path_of(address: str) -> Path:
    """Returns the path of a file's address."""
    parts = urlsplit(address)
    assert parts.scheme == "file"
    return Path(url2pathname(parts.path))


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> Began:
    """Serves nothing: the server says at once where it is, and ends."""
    found = Began()

    def run(settings: ServerSettings, sources: Any, announce: Callable[[str], None]) -> None:
        found.settings.append(settings)
        found.told += [source.arguments for source in sources]
        announce("http://127.0.0.1:1234")
        if found.opens:
            assert found.browser.wait(5)

    def open_page(address: str) -> bool:
        found.opened.append(address)
        file = path_of(address)
        found.contents.append(file.read_text())
        found.modes.append((stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)))
        found.browser.set()
        return True

    monkeypatch.setattr("decodery.serving.run.run", run)
    monkeypatch.setattr("decodery.serving.logs.log_to", lambda *_, **__: None)
    monkeypatch.setattr("webbrowser.open", open_page)
    return found


def test_the_browser_opens_a_file_that_leads_to_the_address_with_a_new_key_in_its_fragment(
    decodery: Run, began: Began, model: str
) -> None:
    for _ in range(2):
        began.browser.clear()
        ran = decodery("playground", "-m", model)
        assert began.browser.wait(5)
        assert ran.status == 0
        assert ran.out == ""
        assert ADDRESS_OPENED.findall(began.contents[-1])[0] in ran.err
    keys = [settings.keys for settings in began.settings]
    assert keys[0] != keys[1]
    for (key,), address, content in zip(keys, began.opened, began.contents, strict=True):
        assert len(key) >= 40
        assert ADDRESS_OPENED.findall(content) == [f"http://127.0.0.1:1234/#key={key}"]
        # Other users see what a browser is told to open in the list of processes.
        assert key not in address
        assert not path_of(address).parent.exists()
    assert {settings.host for settings in began.settings} == {"127.0.0.1"}
    if os.name == "posix":
        assert set(began.modes) == {(0o600, 0o700)}
    # The person who started it may know where the model is.
    assert began.told[0]["model"] == model


def test_without_open_the_address_is_printed_alone(decodery: Run, began: Began, model: str) -> None:
    began.opens = False
    ran = decodery("playground", "-m", model, "--no-open")
    assert began.opened == []
    assert ADDRESS.search(ran.err)


def test_encoders_alone_are_refused_before_anything_is_served(
    decodery: Run, began: Began, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began.opens = False
    folder = str(sentence_folder(tmp_path, (MEAN,)))
    capsys.readouterr()
    for models in (["minilm"], [folder], ["minilm", f"other={folder}"]):
        ran = decodery("playground", "--no-open", *(f"--model={one}" for one in models))
        assert ran.status == 2
        assert "decodery embed" in ran.err
        assert len(ran.err.splitlines()) == 1
    assert began.settings == []
    assert decodery("playground", "--no-open", f"--model={model}", "--model=minilm").status == 0


def test_the_port_is_the_usual_one_or_a_free_one_where_that_is_taken(
    decodery: Run, began: Began, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began.opens = False
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(command, "USUAL_PORT", port)
        decodery("playground", "-m", model, "--no-open")
    decodery("playground", "-m", model, "--no-open")
    decodery("playground", "-m", model, "--no-open", "--port", "4321")
    assert [settings.port for settings in began.settings] == [0, port, 4321]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
def test_it_serves_who_has_the_key_and_control_c_ends_it(model: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "decodery", "playground", "--no-open", "-m", model, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "DECODERY_API_KEY": "another"},
    )
    try:
        assert process.stderr is not None
        found = ADDRESS.search(process.stderr.readline())
        assert found is not None
        url, _, key = found.groups()
        assert httpx.get(url).status_code == 200
        assert httpx.get(f"{url}/trace").status_code == 401
        assert httpx.get(f"{url}/trace", headers={"x-api-key": "another"}).status_code == 401
        answer = httpx.get(f"{url}/trace", headers={"authorization": f"Bearer {key}"})
        assert answer.json()["arguments"] == {"model": model}
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read().splitlines() == ["Control+C ends it."]
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
