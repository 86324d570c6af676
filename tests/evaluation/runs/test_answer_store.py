from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from decodery import DecoderyError
from decodery.evaluation.contract import (
    Answer,
    ContinuationAnswer,
    GenerationAnswer,
    Outcome,
    WholeTextAnswer,
)
from decodery.evaluation.runs.answer_store import AnswerStore, cache_files

PROMPT = (5, 6)
ANSWERS: list[Answer] = [
    ContinuationAnswer(PROMPT, (1, 2), (-0.1, -1 / 3), greedy=True),
    ContinuationAnswer(PROMPT, (1,), (float("-inf"),), greedy=False, joined=False, cut=3),
    GenerationAnswer(PROMPT, (7,), 'é\n"\\ \ud800', "stop", "END", reasoning="so", cut=1),
    WholeTextAnswer((1, 2, 3), (-0.5, -1e-300, -0.25), windows=2),
]


def stored(path: Path, answers: list[Answer] = ANSWERS) -> Path:
    store = AnswerStore(path)
    for number, answer in enumerate(answers):
        store.put(f"key{number}", answer)
    store.close()
    return path


def found(path: Path) -> list[Answer | None]:
    store = AnswerStore(path)
    answers = [store.get(f"key{number}", PROMPT) for number in range(len(ANSWERS))]
    store.close()
    return answers


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert found(stored(tmp_path / "a")) == ANSWERS


def test_outcomes_are_read_as_they_were_written(tmp_path: Path) -> None:
    details = {"programs": ["é\n", "\ud800"], "outcomes": [["passed", ""], ["error", "in line 1"]]}
    outcome = Outcome({"pass@1": 0.5, "pass@10": None}, 2, 1, "error", {"error": 1}, details, kept=True)
    for written in (True, False):
        store = AnswerStore(tmp_path / "a")
        if written:
            store.put("judged", outcome)
        assert store.outcome("judged") == outcome
        assert store.outcome("other") is None
        store.close()


def test_a_file_cut_anywhere_gives_the_whole_lines_and_takes_the_others_again(tmp_path: Path) -> None:
    content = stored(tmp_path / "a").read_bytes()
    for length in range(len(content)):
        path = tmp_path / "cut"
        path.write_bytes(content[:length])
        whole = content[:length].count(b"\n")
        assert found(path) == [*ANSWERS[:whole], *[None] * (len(ANSWERS) - whole)]
        assert stored(path).read_bytes() == content


@pytest.mark.parametrize("place", [2, 5, 20, 30, 60, 100])
def test_a_damaged_line_is_never_an_answer_and_is_asked_again(tmp_path: Path, place: int) -> None:
    path = stored(tmp_path / "a")
    content = bytearray(path.read_bytes())
    end = content.index(b"\n")
    # Also a digit that is another digit, which JSON would not notice.
    content[place % end] = ord("7") if content[place % end] != ord("7") else ord("8")
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="1 damaged lines"):
        assert found(path) == [None, *ANSWERS[1:]]
    with pytest.warns(UserWarning, match="damaged"):
        stored(path)
    with pytest.warns(UserWarning, match="damaged"):
        assert found(path) == ANSWERS


def test_answers_of_other_files_are_known_and_not_written_again(tmp_path: Path) -> None:
    other = stored(tmp_path / "other", ANSWERS[:2])
    store = AnswerStore(tmp_path / "own", [other])
    assert "key0" in store
    assert "key2" not in store
    store.put("key0", ANSWERS[0])
    store.put("key2", ANSWERS[2])
    assert [store.get(key, PROMPT) for key in ("key1", "key2")] == [ANSWERS[1], ANSWERS[2]]
    store.close()
    assert (tmp_path / "own").read_bytes().count(b"\n") == 1


def test_a_full_disk_is_one_error_and_loses_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AnswerStore(tmp_path / "a")
    store.put("key0", ANSWERS[0])
    file: Any = store._file

    class Full:
        name = file.name

        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

        def write(self, content: bytes) -> int:
            if len(content) > 20:
                return int(file.write(content[:20]))
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_file", Full())
    # The first part is written; the rest is short enough to fail.
    with pytest.raises(DecoderyError, match="No space left on device"):
        store.put("key1", ANSWERS[1])
    store.close()
    assert found(tmp_path / "a") == [ANSWERS[0], None, None, None]


def test_a_file_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DecoderyError, match="answers cannot be kept"):
        AnswerStore(tmp_path)


def test_a_cache_has_a_folder_for_each_model_and_a_file_for_each_process(tmp_path: Path) -> None:
    with cache_files(tmp_path, "a" * 64) as (first, others):
        assert not others
        stored(first)
        with cache_files(tmp_path, "a" * 64) as (second, others):
            assert second != first
            assert others == [first]
        with cache_files(tmp_path, "b" * 64) as (_, others):
            assert not others
    with cache_files(tmp_path, "a" * 64) as (again, _):
        assert again == first
