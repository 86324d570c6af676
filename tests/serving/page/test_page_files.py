"""Tests the page's files: how they are served, and what they may not contain."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from decodery.serving.app import create_app
from decodery.serving.page.page_files import ASSETS, CONTENT_TYPES, FOLDER, files
from decodery.serving.service import Service
from decodery.serving.settings import ServerSettings

HTML = (FOLDER / "index.html").read_text(encoding="utf-8")
FILES = files()
SCRIPTS = sorted(ASSETS.rglob("*.js"))
LONGEST_SCRIPT = 400
# Ways to make markup or code of a text, and to keep data beyond the tab.
FORBIDDEN = (
    *("innerHTML", "outerHTML", "insertAdjacent", "document.write", "setHTML", "DOMParser", "srcdoc"),
    *(
        "createContextualFragment",
        "eval(",
        "Function(",
        "document.cookie",
        "new EventSource",
        "new WebSocket",
    ),
)


def get(path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Returns the answer of a server with keys; without headers to a browser that has none."""

    async def ask() -> httpx.Response:
        settings = ServerSettings(keys=("secret",))
        transport = httpx.ASGITransport(create_app(Service(settings, [])))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers)

    # The loop of the browser may be running in this thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()


class Tags(HTMLParser):
    """Collects the tags of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(HTML)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("path", FILES)
def test_the_page_opens_without_a_key_under_a_strict_policy(path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = get(path, method)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == CONTENT_TYPES[FILES[path].suffix]
        told = answer.headers["content-security-policy"]
        policy = dict(part.strip().split(" ", 1) for part in told.split(";"))
        own = dict.fromkeys(("script-src", "style-src", "connect-src"), "'self'")
        none = dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'")
        assert policy == own | none | {"img-src": "'self' data: blob:"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_browser_that_has_a_file_is_told_so() -> None:
    tag = get("/assets/core/app.js").headers["etag"]
    answer = get("/assets/core/app.js", headers={"if-none-match": tag})
    assert (answer.status_code, answer.content) == (304, b"")
    assert get("/assets/core/app.js", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/assets/", "/assets/core", "/assets/index.html", "/assets/../page_files.py", "/assets/page_files.py"],
)
def test_nothing_else_of_the_folder_is_served(path: str) -> None:
    assert get(path).status_code in (401, 404)


def test_every_file_of_the_page_is_served() -> None:
    assert set(FILES.values()) == {FOLDER / "index.html", *(p for p in ASSETS.rglob("*") if p.is_file())}


def test_the_page_has_no_inline_script_or_style_and_loads_its_own_files_alone() -> None:
    for tag, attributes in Tags().tags:
        assert tag != "style"
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if tag == "script":
            assert attributes["src"]
    # Relative paths, so that a proxy may serve the page below a path of its own.
    loaded = [path for path in re.findall(r'(?:src|href)="([^"]+)"', HTML) if not path.startswith("#")]
    assert {f"/{path}" for path in loaded} <= FILES.keys()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(ASSETS)))
def test_scripts_make_no_markup_or_code_of_texts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for way in FORBIDDEN:
        assert way not in text
    # Modules are named in the source, so that no text decides what is loaded.
    assert len(re.findall(r"(?<![\w#.])import\(", text)) == len(re.findall(r'import\("\.\.?/', text))
    if path.name not in ("settings.js", "kept_votes.js"):
        assert "localStorage" not in text
    assert len(text.splitlines()) <= LONGEST_SCRIPT


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(ASSETS)))
def test_scripts_import_files_of_the_page(path: Path) -> None:
    found = re.findall(r'(?:from |import\(|import )"([^"]+)"', path.read_text(encoding="utf-8"))
    for name in found:
        assert name.startswith(("./", "../"))
        assert (path.parent / name).resolve().is_file()


def test_no_two_style_sheets_style_the_same_class() -> None:
    found: dict[str, list[str]] = {}
    for path in sorted(ASSETS.rglob("*.css")):
        for name in set(re.findall(r"^\.([\w-]+) \{", path.read_text(encoding="utf-8"), re.MULTILINE)):
            found.setdefault(name, []).append(path.name)
    assert {name: names for name, names in found.items() if len(names) > 1} == {}


def test_each_field_has_a_label_and_the_page_its_landmarks() -> None:
    tags = Tags().tags
    labelled = {attributes["for"] for tag, attributes in tags if tag == "label"}
    fields = {a["id"] for tag, a in tags if tag in ("input", "select", "textarea")}
    assert fields == labelled
    assert {"header", "main", "nav"} <= {tag for tag, _ in tags}
    assert "status" in {attributes.get("role") for _, attributes in tags}


@pytest.mark.parametrize(
    ("path", "methods"), [("/health", {"GET", "HEAD"}), ("/v1/responses/x", {"GET", "HEAD", "DELETE"})]
)
def test_a_method_that_a_path_does_not_take_is_answered_with_those_that_it_takes(
    path: str, methods: set[str]
) -> None:
    answer = get(path, "PATCH", {"x-api-key": "secret"})
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == methods


def test_the_form_groups_each_parameter_once_and_says_what_each_is_for() -> None:
    form = get("/assets/parameters.json").json()
    grouped = [name for names in form["panels"].values() for name in names]
    assert sorted(grouped) == sorted(form["parameters"])
    assert all(schema["description"] for schema in form["parameters"].values())
    for kinds in form["objects"].values():
        for schema in kinds.values():
            fields = {name: field for name, field in schema["properties"].items() if name != "type"}
            assert all(field["description"] for field in fields.values()), fields
