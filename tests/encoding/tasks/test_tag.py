"""Tests the tagging of texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery import LLM, ModelError, ParameterError
from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.tasks.tag import tag
from tests.encoding.folders import encoder_folder
from tests.encoding.tasks.fixed_model import fixed_parts

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
LABELS = {"id2label": {str(place): name for place, name in enumerate(BIO)}}
NAMES = {"angela": 1, "merkel": 2, "seattle": 3, "paris": 3}
Rows = Callable[[str, int], Sequence[float]]


def row(label: int, score: float = 5.0) -> list[float]:
    return [score * (place == label) for place in range(len(BIO))]


def by_word(token: str, place: int) -> list[float]:
    return row(NAMES.get(token.strip("▁Ġ").lower(), 0))


def tagged(parts: EncoderParts, text: Any, **options: Any) -> list[tuple[str, str]]:
    """Returns the label and the words of each span of one text, and checks that they are where they say."""
    (spans,) = tag(parts, [text], **options)
    whole = text if isinstance(text, str) else " ".join(text)
    for span in spans:
        assert whole[span.start : span.end] == span.text
    return [(span.label, span.text) for span in spans]


@pytest.mark.parametrize("kind", ["word pieces", "byte pairs", "unigrams"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Angela Merkel visited Seattle.", [("PER", "Angela Merkel"), ("LOC", "Seattle")]),
        ("  \U0001f600 Angela Merkel, ( Seattle)", [("PER", "Angela Merkel"), ("LOC", "Seattle")]),
        ("Seattle Paris", [("LOC", "Seattle"), ("LOC", "Paris")]),
        ("\U0001f468\u200d\U0001f469 the dog \U0001f600 Paris!", [("LOC", "Paris")]),
        ("Angela Merkel's dog, Seattle\u2019s", [("PER", "Angela Merkel"), ("LOC", "Seattle")]),
        ("the dog", []),
        ("", []),
        (" \n ", []),
    ],
)
def test_the_characters_of_a_span_are_its_words(
    tmp_path: Path, kind: str, text: str, expected: list[tuple[str, str]]
) -> None:
    parts = fixed_parts(tmp_path, "token_classes", by_word, tokenizer=kind, config=LABELS)
    assert tagged(parts, text) == expected


def test_accents_that_the_normaliser_removes_stay_in_the_span(tmp_path: Path) -> None:
    parts = fixed_parts(tmp_path, "token_classes", by_word, config=LABELS)
    assert tagged(parts, "ÁNGELA me\u0301rkel in Paris") == [("PER", "ÁNGELA me\u0301rkel"), ("LOC", "Paris")]


def test_a_word_has_one_label_though_its_tokens_differ(tmp_path: Path) -> None:
    def scores(token: str, place: int) -> list[float]:
        return row({"x": 1, "##y": 0, "##z": 4}.get(token, 0))

    parts = fixed_parts(tmp_path, "token_classes", scores, config=LABELS)
    assert tagged(parts, "the xyz dog") == [("PER", "xyz")]
    assert tagged(parts, "the xyz dog", merge="simple") == [("PER", "x"), ("LOC", "z")]
    assert tagged(parts, "the xyz dog", merge="none") == [("PER", "x"), ("LOC", "z")]
    assert tagged(parts, "the xyz", merge="none", ignore=()) == [
        ("O", "the"),
        ("PER", "x"),
        ("O", "y"),
        ("LOC", "z"),
    ]


def test_words_that_are_given_are_the_words(tmp_path: Path) -> None:
    parts = fixed_parts(tmp_path, "token_classes", by_word, config=LABELS)
    words = ["Angela", "Merkel", "(", "in", "Paris)", "Seattle"]
    assert tagged(parts, words) == [("PER", "Angela Merkel"), ("LOC", "Paris)"), ("LOC", "Seattle")]
    (spans,) = tag(parts, [words])
    assert [span.words for span in spans] == [(0, 2), (4, 5), (5, 6)]
    assert tag(parts, "Paris")[0][0].words is None
    for wrong in (["the", ""], ["the", 3], [3, 4], 5):
        with pytest.raises(ParameterError, match="words"):
            tag(parts, [wrong])


@pytest.mark.parametrize("overlap", [None, 0, 1, 5, 20])
@pytest.mark.parametrize("before", range(40, 75))
def test_a_span_at_the_edge_of_a_window_comes_once_and_whole(
    tmp_path: Path, before: int, overlap: int | None
) -> None:
    parts = fixed_parts(tmp_path, "token_classes", by_word, config=LABELS, context=60)
    text = "dog " * before + "Angela Merkel merkel " + "mat " * 150
    assert tagged(parts, text, overlap=overlap) == [("PER", "Angela Merkel merkel")]
    runner: Any = parts.runner
    assert all(len(read.ids) <= 60 for read in runner.read)
    assert len(runner.read) > 3


def test_of_two_windows_the_better_score_counts(tmp_path: Path) -> None:
    def scores(token: str, place: int) -> list[float]:
        # Surer near the beginning of a window.
        return row(NAMES.get(token, 0), 6.0 - place / 20)

    parts = fixed_parts(tmp_path, "token_classes", scores, config=LABELS, context=52)
    ((span,),) = tag(parts, "dog " * 40 + "paris " + "mat " * 30, overlap=20)
    # The second window begins 20 tokens before the end of the first, at the word 30.
    exponents = np.exp([6.0 - 11 / 20, 0, 0, 0, 0])
    assert span.score == pytest.approx(exponents[0] / exponents.sum(), rel=1e-5)


def test_windows_are_cut_between_words(tmp_path: Path) -> None:
    parts = fixed_parts(tmp_path, "token_classes", by_word, config=LABELS, context=20)
    tag(parts, "xyxyxyx " * 12, overlap=3)
    runner: Any = parts.runner
    for read in runner.read:
        tokens = [parts.tokenizer.token_text(token) for token in read.ids]
        assert tokens[1] == "x"
        assert (len(tokens) - 2) % 7 == 0


def test_a_word_longer_than_a_window_is_labelled_by_its_beginning(tmp_path: Path) -> None:
    def scores(token: str, place: int) -> list[float]:
        return row({"x": 1, "##y": 3}.get(token, 0))

    parts = fixed_parts(tmp_path, "token_classes", scores, config=LABELS, context=12)
    word = "x" + "y" * 40
    assert tagged(parts, f"the dog {word} sat") == [("PER", word)]


def test_errors_say_what_to_give(tmp_path: Path) -> None:
    parts = fixed_parts(tmp_path, "token_classes", by_word, config=LABELS, context=20)
    with pytest.raises(ParameterError, match="merge must be one of first, average, max, simple, none"):
        tag(parts, "dog", merge="best")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"ignore must be a list of labels, such as \['O'\]"):
        tag(parts, "dog", ignore="O")
    with pytest.raises(ParameterError, match="text 0: overlap must be a whole number below 18"):
        tag(parts, ["dog", "cat"], overlap=18)
    with pytest.raises(ModelError, match="id2label"):
        tag(fixed_parts(tmp_path / "b", "token_classes", by_word, config={"id2label": {"0": "O"}}), "dog")
    with pytest.raises(ModelError, match="has no head 'token_classes'; it has classes"):
        tag(fixed_parts(tmp_path / "c", "classes", by_word), "dog")


def test_a_model_tags_as_transformers_does(tmp_path: Path) -> None:
    import transformers

    folder = encoder_folder(
        tmp_path,
        "BertForTokenClassification",
        id2label=dict(enumerate(BIO)),
        label2id={name: place for place, name in enumerate(BIO)},
    )
    llm = LLM(folder)
    texts = ["the dog sat on the mat in paris", "angela merkel visited microsoft", "plays dogs, xyz 12!"]
    for merge in ("first", "average", "max"):
        oracle = transformers.pipeline(
            "token-classification", str(folder), aggregation_strategy=merge, ignore_labels=["O"]
        )
        for text, spans in zip(texts, llm.tag(texts, merge=merge), strict=True):  # type: ignore[arg-type]
            theirs = [(one["entity_group"], one["start"], one["end"]) for one in oracle(text)]
            assert [(span.label, span.start, span.end) for span in spans] == theirs
            scores = [one["score"] for one in oracle(text)]
            np.testing.assert_allclose([span.score for span in spans], scores, rtol=1e-4)


def test_a_text_has_the_same_spans_alone_and_among_others(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path, "BertForTokenClassification", id2label=dict(enumerate(BIO)))
    llm = LLM(folder)
    texts = ["the dog", "angela merkel visited microsoft " * 9, "", "a cat sat " * 70, "paris"]
    assert llm.tag(texts) == [llm.tag(text)[0] for text in texts]


@pytest.mark.slow
def test_a_published_tagger_tags_as_transformers_does() -> None:
    import transformers

    folder = os.environ.get("DECODERY_TEST_TAGGER")
    if folder is None:
        pytest.skip("DECODERY_TEST_TAGGER names no folder of a BERT that tags personal data")
    llm = LLM(folder)
    texts = [
        "Angela Merkel visited Microsoft in Seattle",
        "\U0001f600 José lives at 12 Main Street, Seattle.",
    ]
    spans = llm.tag(texts)
    assert [(span.label, span.text) for span in spans[0]] == [
        ("GIVEN_NAME", "Angela"),
        ("SURNAME", "Merkel"),
        ("CITY", "Seattle"),
    ]
    oracle = transformers.pipeline("token-classification", folder, aggregation_strategy="first")
    for text, found in zip(texts, spans, strict=True):
        theirs = oracle(text)
        assert [(span.label, span.start, span.end) for span in found] == [
            (one["entity_group"], one["start"], one["end"]) for one in theirs
        ]
        np.testing.assert_allclose(
            [span.score for span in found], [one["score"] for one in theirs], rtol=1e-4
        )


def test_threads_may_tag_at_once(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path, "BertForTokenClassification", id2label=dict(enumerate(BIO)))
    llm = LLM(folder)
    texts = [f"angela {'dog ' * number} visited paris" for number in range(24)]
    alone = [llm.tag(text)[0] for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: llm.tag(text)[0], texts * 4)) == alone * 4
