"""Checks tasks on the default model, which answers easy questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decodery.evaluation import Subject, run
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.variant import Variant, varied
from tests.evaluation.tasks.test_choices_in_files import write_lines

QUESTIONS = (
    ("What do plants need to grow?", ("sunlight", "plastic", "noise", "glass"), "A"),
    ("Which animal can fly?", ("dog", "bird", "fish", "cow"), "B"),
    ("What is frozen water?", ("steam", "sand", "ice", "wood"), "C"),
    ("Which is a planet?", ("the Moon", "a comet", "a star", "Mars"), "D"),
    ("What do people breathe?", ("air", "stone", "metal", "sand"), "A"),
    ("Which one is hot?", ("ice", "fire", "snow", "frost"), "B"),
)


def test_easy_questions_are_answered_in_texts_and_conversations(native_llm: Any, tmp_path: Path) -> None:
    rows = [
        {
            "id": str(i),
            "question": text,
            "choices": {"text": options, "label": list("ABCD")},
            "answerKey": key,
        }
        for i, (text, options, key) in enumerate(QUESTIONS)
    ]
    file = write_lines(tmp_path / "arc.jsonl", rows)
    for chat in (False, True):
        found = run("arc", Subject(native_llm, chat=chat), data=file, shots=2)
        assert (found.results["acc_norm"].value or 0) > 0.8
        assert found.counts["encoded apart"] == 0
    letters = run(varied(find_task("arc"), Variant(options="letters")), native_llm, data=file, shots=2)
    assert (letters.results["mass"].value or 0) > 0.8
