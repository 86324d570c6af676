from __future__ import annotations

from decodery.engine.drafts.step_time import MOST, StepTime


def test_sizes_that_were_not_measured_follow_from_the_nearest() -> None:
    time = StepTime()
    assert not time.known
    time.learn(1, 0.003)
    times = time.times()
    assert times[1] == times[2] == 0.003
    assert times[4] > times[3] > times[2]
    for _ in range(3):
        time.learn(8, 0.012)
    assert time.times()[8] == 0.012
    assert 0.003 <= time.times()[4] <= 0.012
    assert len(time.times()) == MOST + 1


def test_a_larger_step_never_seems_shorter() -> None:
    time = StepTime()
    time.learn(4, 0.010)
    time.learn(6, 0.002)
    times = time.times()
    assert times == sorted(times)


def test_one_slow_step_hardly_moves_the_mean() -> None:
    time = StepTime()
    for _ in range(20):
        time.learn(1, 0.003)
    time.learn(1, 10.0)
    assert time.times()[1] < 0.0035


def test_the_first_step_of_a_size_which_records_it_counts_less() -> None:
    time = StepTime()
    time.learn(3, 0.050)
    for _ in range(4):
        time.learn(3, 0.004)
    assert time.times()[3] < 0.005


def test_steps_without_time_or_of_other_sizes_are_ignored() -> None:
    time = StepTime()
    time.learn(1, 0.0)
    time.learn(0, 1.0)
    time.learn(MOST + 1, 1.0)
    assert not time.known
