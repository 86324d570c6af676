"""Tests the chat page at /: its files, and the headers that keep foreign scripts out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from html.parser import HTMLParser

import httpx
import pytest

from decodery.serving.app import create_app
from decodery.serving.page.page_files import FILES, FOLDER
from decodery.serving.service import Service
from decodery.serving.settings import ServerSettings

HTML = (FOLDER / "index.html").read_text(encoding="utf-8")
SCRIPT = (FOLDER / "chat.js").read_text(encoding="utf-8")


def get(path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Returns the answer of a server with keys; without headers to a browser that has none."""

    async def ask() -> httpx.Response:
        settings = ServerSettings(keys=("secret",))
        transport = httpx.ASGITransport(create_app(Service(settings, [])))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


class Tags(HTMLParser):
    """Collects the tags of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(HTML)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_page_opens_without_a_key_under_a_strict_policy(path: str, method: str) -> None:
    answer = get(path, method)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == FILES[path][1]
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    own = dict.fromkeys(("script-src", "style-src", "connect-src"), "'self'")
    none = dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'")
    assert policy == own | none
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path", ["/assets/", "/assets/index.html", "/assets/../chat.js", "/assets/page_files.py"]
)
def test_nothing_else_of_the_folder_is_served(path: str) -> None:
    assert get(path).status_code in (401, 404)


def test_every_file_of_the_page_is_served() -> None:
    files = {path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"}
    assert files == {name for name, _ in FILES.values()}


def test_the_page_has_no_inline_script_or_style_and_loads_its_own_files_alone() -> None:
    for tag, attributes in Tags().tags:
        assert tag != "style"
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if tag == "script":
            assert attributes["src"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', HTML)
    # Relative paths, so that a proxy may serve the page below a path of its own.
    assert {f"/{path}" for path in loaded} == FILES.keys() - {"/"}


def test_the_script_writes_text_alone_and_keeps_the_key_in_the_session() -> None:
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
        "import(",
    ):
        assert way not in SCRIPT
    for way in ("localStorage", "document.cookie", "location", "history."):
        assert way not in SCRIPT


def test_each_field_has_a_label_and_the_page_its_landmarks() -> None:
    tags = Tags().tags
    labelled = {attributes["for"] for tag, attributes in tags if tag == "label"}
    fields = {a["id"] for tag, a in tags if tag in ("input", "select", "textarea")}
    assert fields == labelled
    assert {"header", "main", "footer"} <= {tag for tag, _ in tags}
    roles = {attributes.get("role") for _, attributes in tags}
    assert {"log", "status", "alert"} <= roles


def test_each_element_that_the_script_looks_for_is_in_the_page() -> None:
    ids = {attributes.get("id") for _, attributes in Tags().tags}
    assert set(re.findall(r'find\("([^"]+)"\)', SCRIPT)) <= ids


@pytest.mark.parametrize(
    ("path", "methods"), [("/health", {"GET", "HEAD"}), ("/v1/responses/x", {"GET", "HEAD", "DELETE"})]
)
def test_a_method_that_a_path_does_not_take_is_answered_with_those_that_it_takes(
    path: str, methods: set[str]
) -> None:
    answer = get(path, "PATCH", {"x-api-key": "secret"})
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == methods
