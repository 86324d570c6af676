from __future__ import annotations

import html
import re

import numpy as np
import pytest

from decodery.errors import ParameterError
from decodery.search.group_page import group_page
from decodery.search.groups import TextGroup, group_names, map_places, text_groups

pytest.importorskip("sklearn")

TOPICS = {
    "cats": ["the cat purrs", "a cat and a kitten", "kitten purrs"],
    "ships": ["the ship sails", "a ship and a harbour", "harbour of the sailor", "the sailor sails"],
    "soup": ["soup with noodles", "hot soup"],
}
TEXTS = [text for texts in TOPICS.values() for text in texts]


def vectors(width: int = 8) -> np.ndarray:
    """Returns vectors of the texts, close to one direction for each topic."""
    drawn = np.random.default_rng(4)
    centres = np.eye(width, dtype=np.float32)[: len(TOPICS)]
    rows = [centre for centre, texts in zip(centres, TOPICS.values(), strict=True) for _ in texts]
    return np.stack(rows) + 0.1 * drawn.standard_normal((len(TEXTS), width)).astype(np.float32)


@pytest.mark.parametrize("count", [None, 3])
def test_groups_are_the_topics_the_largest_first(count: int | None) -> None:
    groups = text_groups(TEXTS, vectors(), count=count)
    assert [sorted(group.members) for group in groups] == [[3, 4, 5, 6], [0, 1, 2], [7, 8]]
    assert groups == text_groups(TEXTS, vectors(), count=count)


def test_the_first_member_is_the_nearest_to_the_centre() -> None:
    rows = vectors()
    for group in text_groups(TEXTS, rows, count=3):
        centre = rows[list(group.members)].mean(axis=0)
        distances = [float(np.linalg.norm(rows[place] - centre)) for place in group.members]
        assert distances == sorted(distances)


def test_names_are_by_the_formula_of_c_tf_idf() -> None:
    first, second = group_names([["cat cat dog", "the 12 x"], ["dog fish"]])
    # Words that count: cat, cat, dog and dog, fish; a mean group has 2.5.
    weights = {"cat": 2 / 3 * np.log1p(2.5 / 2), "dog": 1 / 3 * np.log1p(2.5 / 2)}
    assert first == tuple(sorted(weights, key=lambda word: -weights[word]))
    assert second == ("fish", "dog")


@pytest.mark.parametrize("count", [0, 10])
def test_a_count_out_of_range_is_an_error(count: int) -> None:
    with pytest.raises(ParameterError, match=f"groups must be from 1 to 9, .* not {count}"):
        text_groups(TEXTS, vectors(), count=count)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_few_or_equal_texts_have_groups_and_places(number: int) -> None:
    rows = vectors()[:number]
    assert sum(len(group.members) for group in text_groups(TEXTS[:number], rows)) == number
    assert map_places(rows).shape == (number, 2)
    equal = np.repeat(vectors()[:1], number, axis=0)
    assert len(text_groups(["same"] * number, equal)) == min(number, 1)
    assert np.isfinite(map_places(equal)).all()


def test_a_map_is_within_its_frame_and_the_same_for_a_seed() -> None:
    places = map_places(vectors(), seed=3)
    assert places.min() == 0
    assert places.max() == 1
    assert np.array_equal(places, map_places(vectors(), seed=3))


def test_the_page_shows_each_text_where_it_is_pointed_at_and_runs_nothing() -> None:
    groups = [TextGroup(("a&b",), (1,)), TextGroup((), (0, 2))]
    texts = ["<script>alert(1)</script>", "two", 'th"ree']
    page = group_page(groups, texts, ["x.md:1", "x.md:2", "x.md:3"], np.array([[0, 0], [0.5, 1], [1, 0.2]]))
    titles = [
        html.unescape(found) for found in re.findall(r"<circle[^>]*><title>(.*?)</title>", page, re.DOTALL)
    ]
    assert titles == ["x.md:2\ntwo", "x.md:1\n<script>alert(1)</script>", 'x.md:3\nth"ree']
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert "<b>a&amp;b</b> 1" in page
