"""Keeps the SHA-256 of large files, which commands need at each start."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

from decodery.errors import ModelError
from decodery.weights.sources.model_cache import cache_folder

KEPT_FROM = 8 << 20
"""The bytes from which on a file's digest is kept."""
SETTLED_NS = 2 * 10**9
"""The age of a file's last change below which another one could have the same time."""


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits.

    That of a large file is taken from our cache if the file has the size and the times of change that it had
    then, so a content that changed under the same size counts too. A cache that cannot be read or written
    does not matter. Raises OSError if the file cannot be read.
    """
    found = path.stat()
    if found.st_size < KEPT_FROM:
        return _computed(path)
    state = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    place = _place(path)
    kept = None if place is None else _read(place, state)
    if kept is not None:
        return kept
    digest = _computed(path)
    changed = max(found.st_mtime_ns, found.st_ctime_ns)
    if place is not None and time.time_ns() - changed > SETTLED_NS:
        _write(place, json.dumps({"state": state, "sha256": digest}))
    return digest


def _computed(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _place(path: Path) -> Path | None:
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]
    try:
        return cache_folder() / "digests" / f"{name}.json"
    except ModelError:
        return None


def _read(place: Path, state: list[int]) -> str | None:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        kept = found["sha256"] if found["state"] == state else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return kept if isinstance(kept, str) and len(kept) == 64 else None


def _write(place: Path, text: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, prefix=".", delete=False) as file:
            file.write(text)
        # Another process may read it meanwhile: it sees the whole file or none.
        os.replace(file.name, place)
    except OSError:
        pass
