"""Checks the laws of a server: whoever else is connected, an answer is the library's, streamed or not."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from decodery import LLM
from tests.kernels.native.fixtures import built
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer, begin_request, serving
from tests.serving.test_load import leave
from tests.serving.twins import Asked, alone, answered, plain_features, random_asked, same, streamed

REQUESTS = 30


def asked_at_random(folder: str, count: int, seed: int) -> list[Asked]:
    source = random.Random(seed)
    listed = plain_features(folder)
    return [random_asked(source, listed) for _ in range(count)]


@pytest.fixture(scope="module")
def free(folder: str) -> Iterator[LiveServer]:
    """Returns a server that knows the second model of the random requests."""
    with serving(open_tiny(folder, second_models={folder: folder})) as found:
        yield found


def test_a_joined_stream_is_the_plain_answer(free: LiveServer, folder: str) -> None:
    for asked in asked_at_random(folder, REQUESTS, seed=1):
        assert streamed(free, asked) == answered(free, asked), asked


@built
def test_requests_together_are_what_each_is_alone(free: LiveServer, library: LLM, folder: str) -> None:
    asked = asked_at_random(folder, REQUESTS, seed=2)
    expected = [alone(library, one) for one in asked]
    assert sum(one != "error" for one in expected) > REQUESTS // 2
    source = random.Random(3)

    def ask(place: int) -> None:
        time.sleep(source.random() * 0.2)
        found = (streamed if place % 2 else answered)(free, asked[place])
        assert same(found, expected[place]), (asked[place], found, expected[place])

    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(ask, place) for place in range(REQUESTS)]:
            done.result()


@built
def test_clients_that_leave_change_nothing_for_those_that_stay(
    free: LiveServer, library: LLM, folder: str
) -> None:
    asked = asked_at_random(folder, REQUESTS, seed=4)
    expected = [alone(library, one) for one in asked]
    source = random.Random(5)

    def come_and_go() -> None:
        for _ in range(10):
            one = source.choice(asked)
            connection = begin_request(free.port, {**one.body, "stream": source.random() < 0.5})
            time.sleep(source.random() ** 3 * 0.1)
            leave(connection)

    with ThreadPoolExecutor(8) as pool:
        going = [pool.submit(come_and_go) for _ in range(4)]
        found = list(pool.map(lambda one: answered(free, one), asked))
        for one in going:
            one.result()
    for one, mine, theirs in zip(asked, found, expected, strict=True):
        assert same(mine, theirs), (one, mine, theirs)
    free.settle()
