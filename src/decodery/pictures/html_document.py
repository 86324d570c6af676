"""Writes an HTML page that needs no other file and no network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

from decodery.pictures.markup import Markup, element


def html_document(
    title: str, body: Sequence[Markup], styles: Sequence[Markup], script: Markup | None = None
) -> str:
    """Returns the whole page, light or dark as the reader's system is.

    Its policy forbids all requests, and all scripts but `script`, which must also be an element of `body`.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", styles),
    )
    return f"<!doctype html>\n{element('html', head, element('body', body), lang='en')}\n"


def _policy(script: Markup | None) -> str:
    scripts = []
    if script is not None:
        digest = b64encode(sha256(script.encode()).digest()).decode()
        scripts = [f"script-src 'sha256-{digest}'"]
    parts = ("default-src 'none'", *scripts, "style-src 'unsafe-inline'")
    return "; ".join((*parts, "base-uri 'none'", "form-action 'none'"))
