"""Tests ROUGE, its words, its sentences and longest common subsequences."""

from __future__ import annotations

import builtins
import random
from typing import Any

import pytest

from decodery.errors import ParameterError
from decodery.metrics import Overlap, rouge, rouge_scores
from decodery.metrics.subsequences import common_length, common_places
from decodery.metrics.word_splitting import latin_words, sentences, words

KILLED, ALONE = "police killed the gunman.", "the gunman was alone."


def values(prediction: str, reference: str | list[str], **options: Any) -> dict[str, float | None]:
    """Returns the value of each kind of ROUGE for one prediction."""
    return {kind: score.value for kind, score in rouge([prediction], [reference], **options).items()}


@pytest.mark.parametrize("between", ["\n", " "])
def test_swapped_sentences_lower_rouge_l_and_not_the_sum_over_sentences(between: str) -> None:
    found = values(f"{ALONE}{between}{KILLED}", f"{KILLED}{between}{ALONE}")
    assert (found["rouge1"], found["rougeL"], found["rougeLsum"]) == (1.0, 0.5, 1.0)


def test_lines_alone_divide_as_in_rouge_score() -> None:
    found = values(f"{ALONE} {KILLED}", f"{KILLED} {ALONE}", split="lines")
    assert found["rougeLsum"] == found["rougeL"] == 0.5
    assert values(f"{ALONE}\n{KILLED}", f"{KILLED}\n{ALONE}", split="lines")["rougeLsum"] == 1.0


def test_recall_is_of_the_reference_and_precision_of_the_prediction() -> None:
    found = rouge_scores("the cat sat on the mat", "the cat")
    assert found["rouge1"] == Overlap(1 / 3, 1.0, 0.5)
    assert found["rouge2"] == Overlap(1 / 5, 1.0, 1 / 3)
    assert rouge_scores("the cat", "the cat sat on the mat")["rouge1"] == Overlap(1.0, 1 / 3, 0.5)


@pytest.mark.parametrize(
    "text", ["我喜欢猫", "Кошка сидит", "café", "नमस्ते दुनिया", "ฉันรักแมว", "고양이", "قطة صغيرة", "ネコが好き"]
)
def test_a_text_of_any_script_equals_itself_and_not_another(text: str) -> None:
    same = values(text, text)
    assert same["rouge1"] == same["rougeL"] == same["rougeLsum"] == 1.0
    assert values(text, "ένα δύο")["rouge1"] == 0.0
    if not text.isascii() and text != "café":
        assert rouge([text], [text], tokenizer="rouge-score")["rouge1"].value is None


def test_scripts_without_spaces_are_compared_by_letters() -> None:
    assert values("我喜欢狗", "我喜欢猫")["rouge1"] == 0.75
    assert values("ฉันรักแมว", "ฉันรักหมา")["rouge1"] != 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 3.5% of Café!", ["it", "s", "3", "5", "of", "café"]),
        ("Cafe\u0301 CAFÉ", ["café", "café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("我喜欢 AI模型", ["我", "喜", "欢", "ai", "模", "型"]),
        ("หมู่", ["ห", "มู่"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("snake_case", ["snake", "case"]),
        ("straße Ærø", ["straße", "ærø"]),
        ("\u0301 ! _", []),
    ],
)
def test_words_keep_letters_and_marks_of_every_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_latin_words_drop_all_but_a_to_z_and_digits() -> None:
    assert latin_words("Café, 3.5% 猫 x_y") == ["caf", "3", "5", "x", "y"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("3.5 of v1.2.3", ["3.5 of v1.2.3"]),
        ("a\n\nb", ["a", "b"]),
        ("好。不好！真的？", ["好。", "不好！", "真的？"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_end_at_lines_and_at_marks_before_a_space(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_of_several_references_the_best_counts_for_each_kind() -> None:
    found = values("a b c d", ["d c b a", "a b"])
    assert found["rouge1"] == 1.0
    assert found["rouge2"] == pytest.approx(2 * 1 / (3 + 1))
    score = rouge(["a b"], [["a", "b"]])["rouge1"]
    assert score.settings == "rouge1, F1, tokenizer unicode, no stems, best of several references"


def test_settings_say_what_the_number_depends_on() -> None:
    scores = rouge(["a"], ["a"], tokenizer="rouge-score", split="lines")
    assert scores["rougeLsum"].settings == "rougeLsum, F1, tokenizer rouge-score, no stems, split into lines"
    assert list(scores) == ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    assert list(rouge(["a"], ["a"], kinds=["rougeL"])) == ["rougeL"]


def test_a_reference_without_units_is_undefined_and_an_empty_prediction_is_0() -> None:
    scores = rouge(["a b", "", "a"], ["", "a b", "a"])
    one, two = scores["rouge1"], scores["rouge2"]
    assert (one.value, one.counted, one.undefined) == (0.5, 2, 1)
    assert (two.value, two.counted, two.undefined) == (0.0, 1, 2)
    assert scores["rougeLsum"].undefined == scores["rougeL"].undefined == 1
    assert rouge_scores("", "a b")["rouge1"] == Overlap(None, 0.0, 0.0)
    assert values("a", ["", "a"])["rouge1"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["rouge3"]}, "kinds must be one of rouge1, rouge2, rougeL, rougeLsum"),
        ({"kinds": []}, "kinds is empty"),
        ({"kinds": "rouge1"}, "kinds must be a list"),
        ({"tokenizer": "nltk"}, "tokenizer must be one of unicode, rouge-score"),
        ({"split": "nltk"}, "split must be one of sentences, lines"),
        ({"references": [[]]}, r"references\[0\] is empty"),
        ({"references": [["a", 1]]}, r"references\[0\]\[1\] must be a text"),
        ({"references": [None]}, r"references\[0\] must be a list"),
        ({"predictions": [None]}, r"predictions\[0\] must be a text"),
    ],
)
def test_options_and_texts_without_meaning_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}"):
        rouge(**{"predictions": ["a"], "references": ["a"], **options})


def test_without_nltk_stems_are_an_error_that_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def absent(name: str, *arguments: Any) -> Any:
        if name.startswith("nltk"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return load(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ParameterError, match=r"^stemmer needs nltk: run pip install nltk"):
        rouge(["a"], ["a"], stemmer=True)


def test_common_subsequences_equal_the_table_of_lengths() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        one, other = ([draw.choice("abcd") for _ in range(draw.randint(0, 70))] for _ in range(2))
        table = [[0] * (len(other) + 1)]
        for word in one:
            row = [0]
            for place, twin in enumerate(other):
                row.append(table[-1][place] + 1 if word == twin else max(row[-1], table[-1][place + 1]))
            table.append(row)
        assert common_length(one, other) == table[-1][-1]
        places = sorted(common_places(one, other))
        assert len(places) == table[-1][-1]
        rest = iter(other)
        assert all(any(one[place] == twin for twin in rest) for place in places)
