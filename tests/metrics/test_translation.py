"""Tests BLEU and chrF against sacrebleu, and the shapes of references that it would take silently."""

from __future__ import annotations

import builtins
import random
from collections.abc import Iterator
from typing import Any

import pytest
import sacrebleu

from decodery.errors import ParameterError
from decodery.metrics import bleu, chrf, sentence_bleu

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "park", "red"]
# Two texts, the first with two references.
PREDICTIONS = ["the cat sat on the red mat", "a dog ran in the park today"]
REFERENCES = [["the cat sat on a red mat", "a cat is on the mat"], ["the dog ran in the park today"]]


def drawn() -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yields 200 corpora with one to three references for each text."""
    for seed in range(200):
        draw = random.Random(seed)

        def text(draw: random.Random = draw) -> str:
            return " ".join(draw.choices(WORDS, k=draw.randint(1, 12)))

        texts = [text() for _ in range(draw.randint(1, 8))]
        yield texts, [[text() for _ in range(draw.randint(1, 3))] for _ in texts]


def streams(references: list[list[str]]) -> list[list[str | None]]:
    """Returns references in the shape of sacrebleu, with None where a text has fewer."""
    most = max(map(len, references))
    return [[one[at] if at < len(one) else None for one in references] for at in range(most)]


def test_corpora_equal_the_library() -> None:
    for predictions, references in drawn():
        theirs = streams(references)
        assert bleu(predictions, references).value == pytest.approx(
            min(100, sacrebleu.BLEU().corpus_score(predictions, theirs).score)
        )
        for order in (0, 2):
            assert chrf(predictions, references, word_order=order).value == pytest.approx(
                min(100, sacrebleu.CHRF(word_order=order).corpus_score(predictions, theirs).score)
            )


def test_references_are_a_list_for_each_text_of_any_length() -> None:
    score = bleu(PREDICTIONS, REFERENCES)
    expected = sacrebleu.BLEU().corpus_score(
        PREDICTIONS, [[REFERENCES[0][0], REFERENCES[1][0]], [REFERENCES[0][1], None]]
    )
    assert score.value == pytest.approx(expected.score)
    assert "nrefs:var" in score.settings
    # No reference is dropped.
    assert bleu(PREDICTIONS, [REFERENCES[0][:1], REFERENCES[1]]).value != score.value
    worse = [[REFERENCES[0][1]], REFERENCES[1]]
    assert bleu(PREDICTIONS, worse).value < score.value  # type: ignore[operator]


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (["the cat", "the dog"], r"references\[0\] is a text: give a list of references for each prediction"),
        ([["the cat", "the dog"]], r"references has 1 entries and predictions 2"),
        ([["a"], ["b"], ["c"]], r"references has 3 entries and predictions 2"),
        ([["a"], []], r"references\[1\] is empty"),
        ([["a"], [None]], r"references\[1\]\[0\] must be a text"),
        ([["a"], "b"], r"references\[1\] is a text"),
    ],
)
@pytest.mark.parametrize("measure", [bleu, chrf])
def test_other_shapes_of_references_are_errors(measure: Any, references: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}"):
        measure(["the cat", "the dog"], references)


def test_a_short_text_equals_itself_by_sentence_and_has_no_bleu_of_four_words() -> None:
    assert sentence_bleu("the cat", ["the cat"]).value == 100.0
    assert bleu(["the cat"], [["the cat"]]).value == 0.0
    assert bleu(["the cat"], [["the cat"]], effective_order=True).value == 100.0


def test_no_value_is_above_100() -> None:
    texts = [one for one, _ in drawn() for one in one]
    assert max(bleu([one], [[one]], effective_order=True).value or 0 for one in texts) == 100.0
    assert max(chrf([one], [[one]]).value or 0 for one in texts) == 100.0


def test_a_corpus_is_not_the_mean_of_its_sentences() -> None:
    corpus = bleu(PREDICTIONS, REFERENCES).value
    sentences = [sentence_bleu(*pair).value for pair in zip(PREDICTIONS, REFERENCES, strict=True)]
    assert corpus is not None
    assert abs(corpus - sum(one or 0 for one in sentences) / 2) > 0.1


@pytest.mark.parametrize(("tokenize", "expected"), [("13a", 44.12), ("intl", 100), ("none", 0)])
def test_the_tokenizer_changes_the_number_and_stands_in_the_signature(tokenize: Any, expected: float) -> None:
    score = bleu(["Hello, world! It's 3.5%."], [["Hello , world ! It 's 3.5 % ."]], tokenize=tokenize)
    assert score.value == pytest.approx(expected, abs=0.01)
    assert f"tok:{tokenize}" in score.settings
    assert f"version:{sacrebleu.__version__}" in score.settings
    assert score.unit == "score 0-100"


def test_chinese_needs_its_tokenizer() -> None:
    ours, theirs = ["我喜欢吃苹果和香蕉"], [["我喜欢吃苹果和梨子"]]
    assert bleu(ours, theirs).value == 0.0
    assert bleu(ours, theirs, tokenize="zh").value > 50  # type: ignore[operator]


def test_options_stand_in_the_signature() -> None:
    assert "case:lc" in bleu(["A"], [["a"]], lowercase=True, effective_order=True).settings
    assert "eff:yes" in sentence_bleu("a", ["a"]).settings
    assert "nw:2" in chrf(["a"], [["a"]], word_order=2).settings
    with pytest.raises(ParameterError, match=r"^tokenize must be one of 13a, intl, zh, char, none"):
        bleu(["a"], [["a"]], tokenize="flores200")  # type: ignore[arg-type]


@pytest.mark.parametrize("measure", [bleu, chrf])
def test_empty_references_alone_are_undefined_and_an_empty_prediction_is_0(measure: Any) -> None:
    score = measure(["a", "b"], [[""], [" "]])
    assert (score.value, score.error, score.undefined) == (None, None, 2)
    assert measure([""], [["a b c d"]]).value == 0.0


@pytest.mark.parametrize("measure", [bleu, chrf])
def test_the_error_is_the_jackknife_of_the_library_over_texts_and_groups(measure: Any) -> None:
    predictions, references = list(drawn())[3]
    library = sacrebleu.BLEU() if measure is bleu else sacrebleu.CHRF()

    def error(groups: list[int]) -> float:
        names = sorted(set(groups))
        without = []
        for name in names:
            kept = [i for i, group in enumerate(groups) if group != name]
            ours, theirs = [predictions[i] for i in kept], streams([references[i] for i in kept])
            without.append(library.corpus_score(ours, theirs).score)
        centre = sum(without) / len(without)
        share = (len(names) - 1) / len(names)
        return float((share * sum((one - centre) ** 2 for one in without)) ** 0.5)

    each = list(range(len(predictions)))
    halves = [index % 3 for index in each]
    assert measure(predictions, references).error == pytest.approx(error(each))
    assert measure(predictions, references, groups=halves).error == pytest.approx(error(halves))
    assert measure(predictions[:1], references[:1]).error is None


@pytest.mark.parametrize("measure", [bleu, chrf])
def test_without_sacrebleu_the_error_names_the_command(measure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def absent(name: str, *arguments: Any) -> Any:
        if name.startswith("sacrebleu"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return load(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ParameterError, match=r'run pip install "decodery\[evaluation\]"'):
        measure(["a"], [["a"]])
