"""Checks that few-shots depend on the seed, the task and the document alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decodery.errors import ParameterError
from decodery.evaluation import run
from decodery.evaluation.contract import Document
from decodery.evaluation.shots import draw_shots, seed_of
from tests.evaluation.tiny import characters
from tests.kernels.native.fixtures import built

POOL = tuple(Document(str(i), {"text": f"t{i}"}) for i in range(50))


def drawn(document: Document, count: int = 3, seed: int = 0, task: str = "t") -> list[str]:
    return [one.id for one in draw_shots(POOL, document, count, task=task, seed=seed)]


def test_shots_of_a_document_do_not_depend_on_what_was_drawn_before() -> None:
    alone = drawn(POOL[3])
    for other in POOL:
        drawn(other)
    assert drawn(POOL[3]) == alone
    assert len(set(alone)) == 3


def test_seed_task_and_document_each_reach_the_draw() -> None:
    draws = [
        drawn(POOL[3], 10),
        drawn(POOL[3], 10, seed=1),
        drawn(POOL[3], 10, task="u"),
        drawn(POOL[4], 10),
    ]
    assert len(set(map(tuple, draws))) == 4


def test_more_shots_begin_with_the_fewer_ones() -> None:
    assert drawn(POOL[3], 10)[:3] == drawn(POOL[3], 3)


@pytest.mark.parametrize("first", [False, True])
def test_neither_the_document_nor_one_equal_to_it_is_a_shot(first: bool) -> None:
    document = POOL[0]
    pool = (document, Document("copy", document.fields), *POOL[1:4], Document("other copy", POOL[1].fields))
    found = draw_shots(pool, document, 3, task="t", seed=5, first=first)
    assert {one.fields["text"] for one in found} == {"t1", "t2", "t3"}
    if first:
        assert [one.id for one in found] == ["1", "2", "3"]


def test_all_shots_of_a_pool_can_be_asked_for_and_no_more() -> None:
    assert sorted(map(int, drawn(POOL[3], 49))) == [i for i in range(50) if i != 3]
    with pytest.raises(ParameterError, match="49 documents for shots beside document 3, and shots is 50"):
        drawn(POOL[3], 50)
    with pytest.raises(ParameterError, match="0 documents"):
        draw_shots((), POOL[0], 1, task="t", seed=0)


def test_parts_of_a_seed_are_told_apart() -> None:
    assert seed_of("a", "bc") != seed_of("ab", "c")
    assert seed_of(1, 23) != seed_of(12, 3)
    assert seed_of("a", 1) == seed_of("a", 1)


@built
def test_a_limit_a_resumed_run_and_workers_change_no_shots(tmp_path: Path) -> None:
    llm = characters(tmp_path / "model", "abcdefghijklmnopqrstuvwxyzAQ0123456789: \n?.", context=128)
    rows = [
        {"id": str(i), "question": f"q{i}", "choices": {"text": ["a", "b"], "label": ["A", "B"]}}
        for i in range(8)
    ]
    lines = [json.dumps({**row, "answerKey": "AB"[place % 2]}) for place, row in enumerate(rows)]
    data = tmp_path / "arc.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def samples(out: str, limit: int | None = None, workers: int = 1) -> list[str]:
        run("arc", llm, data=data, out=tmp_path / out, limit=limit, shots=2, workers=workers)
        return (tmp_path / out / "samples.jsonl").read_text(encoding="utf-8").splitlines()

    whole = samples("whole")
    assert len({tuple(json.loads(line)["shots"]) for line in whole}) > 2
    assert samples("limited", limit=4) == whole[:4]
    assert samples("workers", workers=2) == whole
    assert samples("whole") == whole
