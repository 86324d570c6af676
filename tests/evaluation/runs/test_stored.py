"""Tests of what is made of runs that have ended: reports, comparisons and leaderboards."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from decodery import ParameterError
from decodery.evaluation.contract import Document, Outcome, Sample
from decodery.evaluation.runs.comparison import Comparison, compare
from decodery.evaluation.runs.leaderboard import leaderboard, leaderboard_page, plain_leaderboard
from decodery.evaluation.runs.report_page import interval, report_page, worst_samples
from decodery.evaluation.runs.run_folder import Effort, RunFolder
from decodery.evaluation.runs.stored_run import StoredRun
from decodery.evaluation.tasks.bias import TASK as BIAS
from decodery.metrics.score import Score, mean

# What a page would fetch.
OUTSIDE = re.compile(r"(?:https?:)?//\w|@import|url\(")


def sample(name: str, value: float | None, **more: Any) -> dict[str, Any]:
    """Returns a sample of a question with two options, the first of which is right."""
    logprobs = (-0.1, -2.0) if value else (-3.0, -0.1)
    return {
        "id": name,
        "group": "",
        "cluster": "",
        "prompt": "Which?",
        "requests": [{"text": text, "logprob": p} for text, p in zip("AB", logprobs, strict=True)],
        "values": {"acc": value},
        "gold": [0],
        "predicted": 0 if value else 1,
        "details": {"chance": 0.5},
        **more,
    }


def stored(
    folder: Path, samples: list[dict[str, Any]], score: Score | None = None, **settings: Any
) -> StoredRun:
    """Writes the files of a run with these samples."""
    said = {"task": "t", "version": 1, "data": "d", "model": "m", "shots": 0, "limit": None, **settings}
    groups = {one["group"] for one in samples} - {""}
    with RunFolder.opened(folder, said) as opened:
        assert opened is not None
        with opened.samples() as write:
            for one in samples:
                write(json.dumps(one))
        found = score or mean([one["values"]["acc"] for one in samples])
        inside = {
            name: {"acc": mean([one["values"]["acc"] for one in samples if one["group"] == name])}
            for name in sorted(groups)
        }
        opened.write_results(said, {"acc": found}, inside, {"tie": 1}, Effort(4, 40, 8, 2.0))
    return StoredRun.read(folder)


def two(tmp_path: Path, firsts: list[Any], seconds: list[Any], **more: Any) -> Comparison:
    runs = [
        stored(tmp_path / name, [sample(f"q{i}", value, **more) for i, value in enumerate(values)])
        for name, values in (("one", firsts), ("other", seconds))
    ]
    return compare(*runs)


def test_a_real_difference_and_one_by_chance_are_told_apart(tmp_path: Path) -> None:
    # Ten gained and none lost: 2 / 2**10.
    found = two(tmp_path / "a", [0.0] * 10 + [1.0] * 10, [1.0] * 20).metrics["acc"]
    assert found.verdict == "real"
    assert found.p_value == pytest.approx(2 / 2**10)
    assert found.sampled is not None
    assert found.sampled.value == 0.5
    assert found.sampled.low is not None
    assert found.sampled.low > 0
    # Three gained and two lost.
    found = two(tmp_path / "b", [0.0] * 3 + [1.0] * 17, [1.0] * 3 + [0.0] * 2 + [1.0] * 15).metrics["acc"]
    assert found.verdict == "not told apart"
    assert found.p_value == 1.0


def test_samples_are_paired_by_id_and_those_that_differ_are_listed(tmp_path: Path) -> None:
    one = stored(tmp_path / "one", [sample("a", 1.0), sample("b", 0.0), sample("c", 1.0)])
    other = stored(tmp_path / "other", [sample("c", 0.0), sample("a", 1.0), sample("b", 0.0)])
    (only,) = compare(one, other).differing
    assert (only.id, only.values, only.predicted, only.gold) == ("c", (1.0, 0.0), (0, 1), [0])


def test_shares_of_a_credit_are_compared_by_the_bootstrap_alone(tmp_path: Path) -> None:
    found = two(tmp_path, [0.25, 1.0, 0.0], [0.5, 1.0, 0.0]).metrics["acc"]
    assert found.exact is None
    assert found.sampled is not None


def test_a_difference_within_clusters_is_that_of_the_clusters(tmp_path: Path) -> None:
    # All answers of a cluster are equal: two clusters are no more than two samples.
    apart = two(tmp_path / "a", [0.0] * 12, [1.0] * 6 + [0.0] * 6).metrics["acc"]
    firsts = [sample(f"q{i}", 0.0, cluster="x" if i < 6 else "y") for i in range(12)]
    seconds = [sample(f"q{i}", float(i < 6), cluster="x" if i < 6 else "y") for i in range(12)]
    clustered = compare(stored(tmp_path / "c", firsts), stored(tmp_path / "d", seconds)).metrics["acc"]
    assert apart.verdict == "real"
    assert clustered.exact is None
    assert clustered.verdict == "not told apart"


def test_a_sample_without_a_value_in_one_run_is_no_pair(tmp_path: Path) -> None:
    found = two(tmp_path, [None, 1.0, 0.0], [1.0, 1.0, 1.0]).metrics["acc"]
    assert found.sampled is not None
    assert (found.sampled.counted, found.sampled.undefined) == (2, 1)
    assert found.exact is not None
    assert found.exact.counted == 2


def test_the_difference_of_a_weighted_mean_is_that_of_the_two_results(tmp_path: Path) -> None:
    weights = [1.0, 2.0, 97.0]
    runs = []
    for name, values in (("one", [1.0, 1.0, 0.1]), ("other", [0.5, 0.5, 0.2])):
        rows = [
            sample(f"q{i}", v, weights={"acc": w})
            for i, (v, w) in enumerate(zip(values, weights, strict=True))
        ]
        runs.append(stored(tmp_path / name, rows, mean(values, weights=weights)))
    found = compare(*runs).metrics["acc"]
    assert found.sampled is not None
    # The plain mean over the documents falls.
    # (1.5 + 19.4) / 100 - (3 + 9.7) / 100
    assert found.sampled.value == pytest.approx(0.082)
    assert found.sampled.value == pytest.approx((found.other.value or 0) - (found.one.value or 0))


def test_a_result_that_is_no_mean_of_its_samples_has_no_tested_difference(tmp_path: Path) -> None:
    runs = [
        stored(tmp_path / name, [sample("a", value), sample("b", 0.0)], Score(0.7, None, "fraction", 2))
        for name, value in (("one", 0.0), ("other", 1.0))
    ]
    assert compare(*runs).metrics["acc"].sampled is None


def test_groups_are_compared_too(tmp_path: Path) -> None:
    def rows(values: list[float]) -> list[dict[str, Any]]:
        return [sample(f"q{i}", v, group="xy"[i % 2]) for i, v in enumerate(values)]

    found = compare(
        stored(tmp_path / "a", rows([0.0, 1.0] * 8)), stored(tmp_path / "b", rows([1.0, 1.0] * 8))
    )
    assert found.groups["x"].verdict == "real"
    assert found.groups["y"].p_value == 1.0


@pytest.mark.parametrize(("name", "value"), [("task", "u"), ("version", 2), ("data", "e")])
def test_runs_of_another_task_version_or_data_are_not_compared(
    tmp_path: Path, name: str, value: object
) -> None:
    one = stored(tmp_path / "one", [sample("a", 1.0)])
    other = stored(tmp_path / "other", [sample("a", 1.0)], **{name: value})
    with pytest.raises(
        ParameterError, match=rf"the {name} of .*one and .*other is different: \w+ and {value}"
    ):
        compare(one, other)


def test_runs_of_other_samples_are_not_compared(tmp_path: Path) -> None:
    one = stored(tmp_path / "one", [sample("a", 1.0)])
    with pytest.raises(ParameterError, match="2 are in one of them only, such as a"):
        compare(one, stored(tmp_path / "other", [sample("b", 1.0)]))


def test_what_is_no_finished_run_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="holds no run"):
        StoredRun.read(tmp_path)
    with RunFolder.opened(tmp_path / "begun", {}):
        pass
    with pytest.raises(ParameterError, match="has not ended"):
        StoredRun.read(tmp_path / "begun")
    run = stored(tmp_path / "run", [sample("a", 1.0)])
    for content, message in (("{", "cannot be read"), ("3\n", "line 1 is not a sample"), ("{}\n", "line 1")):
        (tmp_path / "run" / "samples.jsonl").write_text(content)
        with pytest.raises(ParameterError, match=message):
            list(run.samples())
    for content in ("{}", '{"settings": {}, "results": {}, "groups": {}, "counts": {}}', '{"results": 3}'):
        (tmp_path / "run" / "results.json").write_text(content)
        with pytest.raises(ParameterError, match=r"results\.json"):
            StoredRun.read(tmp_path / "run")


def test_a_leaderboard_normalises_by_chance_and_tells_the_mean_of_all_tasks_only(tmp_path: Path) -> None:
    def run(name: str, values: list[float], **settings: Any) -> StoredRun:
        return stored(tmp_path / name, [sample(f"q{i}", v) for i, v in enumerate(values)], **settings)

    runs = [
        run("a", [1.0, 1.0, 1.0, 0.0], task="t", model="good"),
        run("b", [1.0, 1.0, 1.0, 1.0], task="u", model="good"),
        run("c", [0.0, 0.0, 0.0, 1.0], task="t", model="bad"),
        run("d", [1.0, 0.0, 1.0, 0.0], task="u", model="bad"),
        run("e", [1.0, 1.0, 1.0, 1.0], task="u", model="half"),
    ]
    found = leaderboard(runs)
    assert found.tasks == ["t", "u"]
    plain = plain_leaderboard(found)["models"]
    assert [row["model"] for row in plain] == ["good", "bad", "half"]
    good, bad, half = plain
    # (3/4 - 1/2) / (1/2), and its error twice that of the accuracy.
    assert good["tasks"]["t"]["normalised"] == 0.5
    assert good["tasks"]["t"]["value"] == 0.75
    assert good["tasks"]["t"]["chance"] == 0.5
    assert good["mean"] == 0.75
    assert good["error"] == pytest.approx(2 * 0.25 / 2)
    # Below chance is 0.
    assert bad["tasks"]["t"]["normalised"] == 0.0
    assert bad["mean"] == 0.0
    assert half["mean"] is None
    page = leaderboard_page(found)
    assert "0.7500" in page
    assert not OUTSIDE.findall(page)


def test_a_leaderboard_refuses_what_cannot_stand_beside_each_other(tmp_path: Path) -> None:
    one = stored(tmp_path / "one", [sample("a", 1.0)])
    again = stored(tmp_path / "again", [sample("a", 1.0)])
    with pytest.raises(ParameterError, match="again is a second run of m on t"):
        leaderboard([one, again])
    shots = stored(tmp_path / "shots", [sample("a", 1.0)], model="n", shots=5)
    with pytest.raises(ParameterError, match=r"one and .*shots are runs of t with another shots"):
        leaderboard([one, shots])
    with pytest.raises(ParameterError, match="one run or more"):
        leaderboard([])


def test_a_share_of_stereotypes_is_shown_and_not_ranked(tmp_path: Path) -> None:
    outcome = Outcome({"stereotype": 1.0, "difference": 2.0})
    share = BIAS.results([Sample(Document("a", {}), outcome)])["stereotype"]
    rows = [sample("a", 1.0)]
    (row,) = leaderboard(
        [stored(tmp_path / "b", rows, share, task="bias"), stored(tmp_path / "t", rows)]
    ).rows
    assert (row.entries["bias"].score.value, row.entries["bias"].normalised) == (1.0, None)
    assert row.mean == row.entries["t"].normalised
    assert leaderboard([StoredRun.read(tmp_path / "b")]).rows[0].mean is None


def test_two_models_of_one_name_are_two_rows(tmp_path: Path) -> None:
    runs = [
        stored(tmp_path / name, [sample("a", 1.0)], identity={"files": name, "context": "8"})
        for name in ("one", "other")
    ]
    assert [row.model[:3] for row in leaderboard(runs).rows] == ["m (", "m ("]


def test_an_interval_is_the_value_with_two_errors_and_missing_where_all_are_equal() -> None:
    assert interval(mean([1.0, 0.0, 1.0, 1.0])) == pytest.approx(
        (0.75 - 0.25 * 1.959964, 0.75 + 0.25 * 1.959964)
    )
    for values in ([1.0], [1.0, 1.0, 1.0]):
        assert interval(mean(values)) is None
    assert interval(Score(math.inf, None, "perplexity", 3)) is None


class Texts(HTMLParser):
    """Collects the texts of a page, and the attributes of its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_report_tells_results_counts_speed_and_settings_and_needs_nothing_from_outside(
    tmp_path: Path,
) -> None:
    samples = [sample(f"q{i}", float(i % 2), group="xy"[i % 2]) for i in range(8)]
    page = report_page(stored(tmp_path / "run", samples))
    parser = Texts()
    parser.feed(page)
    text = "\n".join(parser.texts)
    for expected in ("0.5000", "95% interval", "0.1890", "tie", "shots", "20.0", "2.0 seconds", "y"):
        assert expected in text
    assert not OUTSIDE.findall(page)
    assert "script" not in parser.names
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_a_report_shows_texts_as_they_are(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script><img src=x onerror=y>&amp; \"'\x00"
    wrong = sample(bad, 0.0, group=bad, prompt=bad, why=bad, predicted=bad, gold=bad)
    wrong["requests"][0] |= {"text": bad, "finish_reason": bad}
    run = stored(tmp_path / "run", [wrong, sample("b", 1.0)], model=bad, template={bad: bad})
    parser = Texts()
    page = report_page(run)
    parser.feed(page)
    assert "script" not in parser.names
    assert "img" not in parser.names
    assert bad.replace("\x00", "\u2400") in "".join(parser.texts)


def test_the_worst_samples_are_the_wrong_ones_with_the_largest_loss(tmp_path: Path) -> None:
    def wrong(name: str, right: float, other: float) -> dict[str, Any]:
        found = sample(name, 0.0)
        found["requests"] = [{"text": "A", "logprob": right}, {"text": "B", "logprob": other}]
        return found

    samples = [wrong("a", -2.0, -1.0), sample("right", 1.0), wrong("b", -9.0, -1.0), wrong("c", -1e4, -1.0)]
    unjudged = [sample("none", None), sample("no right one", 0.0, gold=None)]
    worst = worst_samples(stored(tmp_path / "run", [*samples, *unjudged]))
    assert [one.sample["id"] for one in worst] == ["c", "b", "a"]
    assert [one.loss for one in worst] == [
        math.inf,
        pytest.approx(8.0, abs=1e-3),
        pytest.approx(1.3133, abs=1e-3),
    ]
    assert len(worst_samples(stored(tmp_path / "many", [wrong(str(i), -2.0, -1.0) for i in range(50)]))) == 20


def test_a_run_without_right_and_wrong_has_a_report_too(tmp_path: Path) -> None:
    score = Score(12.5, 0.5, "token perplexity", 2)
    page = report_page(stored(tmp_path / "run", [sample("a", 1.0), sample("b", 0.0)], score))
    assert "12.5000" in page
    assert "worst" not in page.split("<main")[1]
