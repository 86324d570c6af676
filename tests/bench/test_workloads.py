from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from bench.contenders.batching import serve_in_batches
from bench.contenders.contender import Arrival, Prompt, Stamps, Timing
from bench.workloads import DEFAULT, beam, decode, load, mixed, percentile, prefill


class FixedTimes:
    """Claims a second for each prompt and half a second for each further step."""

    serving = ""

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        return Timing(1.0, 1.0 + 0.5 * (tokens - 1), len(prompts) * (tokens - 1))

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        return 0.5 * tokens

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        return [[a.at + 1.0 + 0.5 * i for i in range(a.tokens)] for a in arrivals]


@pytest.mark.parametrize(
    ("workload", "figure"), [(prefill(512), 512.0), (decode(8, 32), 16.0), (beam(4, 32), 2.0)]
)
def test_a_figure_counts_what_its_name_says_and_nothing_else(workload: object, figure: float) -> None:
    assert list(workload.measure(FixedTimes(), 0).values()) == [figure]  # type: ignore[attr-defined]


def test_a_mixed_load_measures_throughput_and_waits() -> None:
    figures = list(mixed(16).measure(FixedTimes(), 3).values())
    arrivals = load(16, 3)
    end = max(a.at + 1.0 + 0.5 * (a.tokens - 1) for a in arrivals)
    assert figures[0] == pytest.approx(sum(a.tokens for a in arrivals) / end)
    assert figures[1:] == pytest.approx([1.0, 1.0, 0.5, 0.5])


def test_loads_are_the_same_for_each_contender_and_differ_between_rounds() -> None:
    assert load(8, 1) == load(8, 1) != load(8, 2)
    times = [a.at for a in load(8, 1)]
    assert times == sorted(times)


def test_names_of_workloads_differ() -> None:
    names = [w.name for w in DEFAULT]
    assert len(set(names)) == len(names)


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([5.0, 1.0, 3.0, 2.0, 4.0], 50) == 3.0
    assert percentile([5.0, 1.0, 3.0, 2.0, 4.0], 99) == 5.0


def test_streams_that_start_apart_are_counted_from_when_all_have_a_token() -> None:
    stamps = Stamps(2)
    stamps.times[:] = [[1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0]]
    assert stamps.timing() == Timing(3.0, 5.0, 3)


def test_a_static_batch_takes_waiting_requests_and_runs_until_the_longest_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr("time.sleep", sleep)
    batches: list[tuple[list[Prompt], int]] = []

    def run(prompts: Sequence[Prompt], tokens: int, step: Callable[[], None]) -> None:
        batches.append((list(prompts), tokens))
        for _ in range(tokens):
            sleep(1.0)
            step()

    # While the first runs three come; the oldest of them runs with the one whose prompt is as long.
    arrivals = [
        Arrival(0.0, [1], 2),
        Arrival(1.5, [2, 2, 2], 1),
        Arrival(1.0, [3], 3),
        Arrival(1.6, [4], 1),
        Arrival(20.0, [5], 1),
    ]
    times = serve_in_batches(arrivals, run, largest=2)
    assert batches == [([[1]], 2), ([[3], [4]], 3), ([[2, 2, 2]], 1), ([[5]], 1)]
    assert times == [[1.0, 2.0], [6.0], [3.0, 4.0, 5.0], [3.0], [21.0]]
