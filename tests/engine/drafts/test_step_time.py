from __future__ import annotations

import pytest

from decodery.engine.drafts.step_time import MOST, StepTime


def learned(time: StepTime, tokens: int, seconds: float, count: int = 1) -> None:
    for _ in range(count):
        time.learn(tokens, seconds)


def test_sizes_that_were_not_measured_follow_from_those_that_were() -> None:
    time = StepTime()
    assert not time.known
    learned(time, 1, 0.003, 4)
    assert time.times()[1] == pytest.approx(0.003)
    slope = time.times()[3] - time.times()[2]
    assert slope > 0
    assert slope == pytest.approx(time.times()[2] - time.times()[1])
    learned(time, 8, 0.012, 60)
    assert time.times()[8] == pytest.approx(0.012, rel=0.05)
    assert 0.003 < time.times()[4] < 0.012
    assert time.times()[4] - time.times()[3] > 1.2 * slope
    assert len(time.times()) == MOST + 1


def test_a_larger_step_never_seems_shorter() -> None:
    time = StepTime()
    learned(time, 4, 0.010, 9)
    learned(time, 6, 0.002, 9)
    times = time.times()
    assert list(times) == sorted(times)


def test_slow_steps_of_a_size_do_not_keep_it_from_being_run_again() -> None:
    time = StepTime()
    learned(time, 1, 0.003, 9)
    learned(time, 2, 0.030, 5)
    slow = time.times()[2]
    assert slow > 0.004
    for _ in range(3000):
        learned(time, 1, 0.003)
        time.times()
    assert time.times()[2] < 0.0036


def test_all_times_rise_where_the_machine_is_busy() -> None:
    time = StepTime()
    for _ in range(30):
        learned(time, 1, 0.003)
        learned(time, 5, 0.006)
    learned(time, 1, 0.005, 40)
    assert time.times()[5] == pytest.approx(0.010, rel=0.1)


def test_one_slow_step_hardly_moves_the_mean() -> None:
    time = StepTime()
    for _ in range(20):
        time.learn(1, 0.003)
    time.learn(1, 10.0)
    assert time.times()[1] < 0.0035


def test_the_first_step_of_a_size_which_records_it_does_not_count() -> None:
    time = StepTime()
    time.learn(3, 0.050)
    learned(time, 3, 0.004, 4)
    assert time.times()[3] < 0.005


def test_steps_without_time_or_of_other_sizes_are_ignored() -> None:
    time = StepTime()
    time.learn(1, 0.0)
    time.learn(0, 1.0)
    time.learn(MOST + 1, 1.0)
    assert not time.known
