"""Finds the names of the files of a model that was split, which are those of llama.cpp's gguf-split.

The second of three files is `NAME-00002-of-00003.gguf`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PART: Final = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.ASCII | re.DOTALL)


def names_of_parts(name: str) -> list[str]:
    """Returns the names of all parts of the model of which a file is a part by its name, the first one first.

    For any other name, returns it alone. A name may be a path.
    """
    found = _PART.fullmatch(name)
    count = int(found["count"]) if found else 0
    if found is None or not 1 <= int(found["number"]) <= count:
        return [name]
    return [f"{found['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def names_of_models(names: Iterable[str]) -> list[str]:
    """Returns the names of files, of a split model the name of its first part only."""
    return list(dict.fromkeys(names_of_parts(name)[0] for name in names))


def paths_of_parts(path: Path) -> list[Path]:
    """Returns the paths of all parts of the model of which a file is a part by its name, else the path."""
    return [path.with_name(name) for name in names_of_parts(path.name)]
