"""Tests the vectors that need no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery.errors import ParameterError, RequestError
from decodery.search.baselines import BaselineVectors, baseline_hits, file_chunks, in_words, learn_baseline

pytest.importorskip("sklearn")
TEXTS = [
    "The cat sat on the mat.",
    "A dog sat on a mat!",
    "The river is wide; the water is deep.",
    "Deep water, wide river.",
    "...",
]


def test_bag_of_words_is_the_counts_of_words_with_the_length_one() -> None:
    made = BaselineVectors("bow", TEXTS)
    (found,) = made.vectors(["the cat and the dog"])
    # The word "and" is in none of the texts.
    assert sorted(found[found > 0].tolist()) == pytest.approx([6**-0.5, 6**-0.5, 2 * 6**-0.5])


def test_tfidf_is_the_formula_of_scikit_learn() -> None:
    made = BaselineVectors("tfidf", TEXTS)
    (found,) = made.vectors(["the the cat"])
    # log((1 + texts) / (1 + texts with the word)) + 1
    the, cat = 2 * (np.log(6 / 3) + 1), np.log(6 / 2) + 1
    expected = np.array([cat, the]) / np.hypot(the, cat)
    np.testing.assert_allclose(sorted(found[found > 0]), sorted(expected), rtol=1e-5)


def test_words_with_the_same_neighbours_have_close_vectors() -> None:
    texts = [
        f"the {animal} eats {food} at {time}"
        for animal in ("cat", "dog")
        for food in ("meat", "fish")
        for time in ("noon", "night")
    ]
    texts += [
        f"my {tool} cuts {thing} for {who}"
        for tool in ("saw", "knife")
        for thing in ("wood", "bread")
        for who in ("me", "us")
    ]
    made = BaselineVectors("ppmi", texts)
    cat, dog, saw = made.vectors(["cat", "dog", "saw"])
    assert cat @ dog > 0.8
    assert cat @ saw < 0.2
    # Of counts alone they are as far from each other as any other two.
    cat, dog, saw = BaselineVectors("bow", texts).vectors(["cat", "dog", "saw"])
    assert cat @ dog == cat @ saw == 0


@pytest.mark.parametrize("kind", ["bow", "tfidf", "ppmi"])
def test_vectors_are_the_same_each_time_and_zeros_without_a_known_word(kind: Any) -> None:
    first, second = (BaselineVectors(kind, TEXTS).vectors(TEXTS) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(np.linalg.norm(first[:4], axis=1), 1, rtol=1e-5)
    assert not first[4].any()
    assert not BaselineVectors(kind, TEXTS).vectors(["unknown"])[0].any()


def test_one_word_has_a_vector_too() -> None:
    assert BaselineVectors("ppmi", ["word"]).vectors(["word"]).tolist() == [[1.0]]


def test_wrong_kinds_and_texts_without_words_are_errors() -> None:
    wrong: Any = "word2vec"
    with pytest.raises(ParameterError, match="with must be one of bow, tfidf, ppmi, not 'word2vec'"):
        BaselineVectors(wrong, TEXTS)
    with pytest.raises(RequestError, match="no word"):
        BaselineVectors("bow", ["...", ""])


def test_a_search_finds_the_part_of_a_file_with_the_words_of_the_query(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Animals\nThe cat sat on the mat.\n# Nature\nThe river is wide.\n")
    (tmp_path / "other.txt").write_text("A dog.\n\nDeep water.\n")
    assert [chunk.heading for chunk in file_chunks([page], in_words(None))] == ["Animals", "Nature"]
    hits = baseline_hits("wide river", [tmp_path], "tfidf", top=2)
    assert (hits[0].file, hits[0].line, hits[0].text) == (page, 4, "The river is wide.")
    assert hits[0].score == hits[0].similarity
    hits = baseline_hits("the river", [page], "tfidf", top=2)
    assert [hit.line for hit in hits] == [4, 2]
    assert hits[0].score > hits[1].score
    assert len(baseline_hits("the deep animals", [tmp_path], "bow", by="lines", top=50)) == 4
    (tmp_path / "empty.txt").write_text("")
    assert baseline_hits("water", [tmp_path / "empty.txt"], "bow") == []


@pytest.mark.parametrize("kind", ["bow", "tfidf", "ppmi"])
def test_parts_without_a_word_of_the_query_are_no_hits(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("The cat sat on the mat.\n\nDeep water, wide river.\n\n...\n")
    hits = baseline_hits("a wide xyzzy", [tmp_path], kind, by="lines")
    assert hits[0].text == "Deep water, wide river."
    assert all(hit.score != 0 for hit in hits)
    with pytest.raises(RequestError, match="no word of the query is in the files"):
        baseline_hits("xyzzy feline", [tmp_path], kind)


@pytest.mark.parametrize("kind", ["bow", "tfidf", "ppmi"])
def test_labels_are_learned_and_their_accuracy_is_of_unseen_words(kind: Any) -> None:
    examples = [(f"the {a} is good and fine", "praise") for a in ("book", "film", "song", "play", "show")]
    examples += [(f"the {a} is bad and dull", "complaint") for a in ("book", "film", "song", "play", "show")]
    made, learned = learn_baseline(kind, examples)
    found = learned.classify(made.vectors(["a good and fine meal", "a dull and bad meal"]))
    assert [one.label for one in found] == ["praise", "complaint"]
    assert learned.accuracy == 1.0
    assert learned.folds == 5
    # The labels have nothing to do with the words that other examples share.
    odd = [(f"word{n}", "yes" if n % 2 else "no") for n in range(20)]
    accuracy = learn_baseline(kind, odd)[1].accuracy
    assert accuracy is not None
    assert accuracy <= 0.6
    assert learn_baseline(kind, [("a b", "x"), ("c d", "y")])[1].accuracy is None
