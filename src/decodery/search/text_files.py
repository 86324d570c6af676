"""Finds the text files below the paths that a user names, and reads them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from decodery.errors import RequestError

# A file with one of these bytes in its beginning is no text.
BINARY = b"\x00"
LOOKED_AT = 8192
# Ends of files that are text for programs alone.
PROGRAMS_ONLY = (".css", ".ipynb", ".json", ".jsonl", ".lock", ".map", ".min.js", ".svg", ".xml")


@dataclass(frozen=True)
class TextFile:
    """Holds the content of a file, with its size and the time of the last change when it was opened."""

    path: Path
    text: str
    size: int
    mtime_ns: int
    sha256: str


def absolute_path(name: str | Path) -> Path:
    """Returns the absolute path of a file, without ".." and with links as they are."""
    return Path(os.path.abspath(Path(name).expanduser()))


def text_paths(given: Iterable[str | Path]) -> dict[Path, bool]:
    """Returns the absolute paths of the files given and of those in given folders, in order.

    The value is True for a file that was itself given, not its folder. Files and folders whose name begins
    with a dot are found only if they are given, as are pictures and data, such as SVG and JSON. Raises
    `RequestError` for a path that is not there or has a name that is not UTF-8.
    """
    found: dict[Path, bool] = {}
    for name in given:
        path = absolute_path(name)
        if path.is_dir():
            for place, folders, files in os.walk(path):
                folders[:] = [folder for folder in folders if not folder.startswith(".")]
                for file in files:
                    below = Path(place, file)
                    hidden = file.startswith(".") or file.lower().endswith(PROGRAMS_ONLY)
                    if not hidden and below.is_file():
                        found.setdefault(below, False)
        elif path.exists():
            found[path] = True
        else:
            raise RequestError(f"there is no file or folder {name}")
    for path in found:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise RequestError(f"the name of {str(path)!r} is not UTF-8: rename the file") from None
    return dict(sorted(found.items()))


def read_text_file(path: Path, *, given: bool) -> TextFile | None:
    """Returns a file's content as UTF-8, without a byte order mark; None if it was not given and is no text.

    Raises `RequestError` for a given file that is no text, and for one that cannot be read.
    """
    try:
        with path.open("rb") as content:
            stat = os.fstat(content.fileno())
            data = content.read(LOOKED_AT)
            if BINARY not in data:
                data += content.read()
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        if BINARY in data:
            raise RequestError(f"{path} is not a text file")
        text = data.decode("utf-8-sig")
    except (UnicodeDecodeError, RequestError) as error:
        if not given:
            return None
        why = "is not a text file" if isinstance(error, RequestError) else _not_utf8(error)
        raise RequestError(f"{path} {why}: convert it to UTF-8 text first") from None
    return TextFile(path, text, stat.st_size, stat.st_mtime_ns, hashlib.sha256(data).hexdigest())


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"is not UTF-8 text (byte 0x{error.object[error.start]:02x} at offset {error.start})"
