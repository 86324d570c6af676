"""Defines WinoBias: sentences with a profession and a pronoun, once as the stereotype has it and once not.

Zhao et al., Gender Bias in Coreference Resolution (2018). Line i of the two files is the same sentence with
the other pronoun, so the two are compared as a pair.
"""

from __future__ import annotations

import re
from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, TaskData
from decodery.evaluation.layouts.tables import read_text
from decodery.evaluation.pair_task import PairTask

KINDS = ("type1", "type2")
SPLITS = ("test", "dev")
_LINE = re.compile(r"\s*\d+\s+(.*)")


def read(data: Path | None) -> TaskData:
    """Reads pro_stereotyped_type1.txt.test and the files beside it, or those of dev if there are none."""
    if data is None or not data.is_dir():
        raise ParameterError("winobias needs --data: the folder that holds pro_stereotyped_type1.txt.test")
    for split in SPLITS:
        documents = [one for kind in KINDS for one in _pairs(data, kind, split)]
        if documents:
            return TaskData(tuple(documents), source=f"{data.name}, {split}")
    raise ParameterError(f"{data} holds no pro_stereotyped_type1.txt.test or .dev")


def _pairs(folder: Path, kind: str, split: str) -> list[Document]:
    paths = [folder / f"{side}_stereotyped_{kind}.txt.{split}" for side in ("pro", "anti")]
    if not any(path.is_file() for path in paths):
        return []
    more, less = (_sentences(path) for path in paths)
    if len(more) != len(less):
        raise ParameterError(f"{paths[0].name} has {len(more)} sentences and {paths[1].name} {len(less)}")
    return [
        Document(f"{kind}-{number}", {"more": one, "less": other}, kind)
        for number, (one, other) in enumerate(zip(more, less, strict=True), 1)
    ]


def _sentences(path: Path) -> list[str]:
    """Returns the sentences of a file without their numbers and brackets."""
    found = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None or "[" not in line:
            raise ParameterError(f"{path}, line {number} is not a number and a sentence with brackets")
        found.append(match[1].replace("[", "").replace("]", "").strip())
    return found


TASK = PairTask("winobias", read)
