from __future__ import annotations

import pytest
from rich.cells import cell_len

from decodery.cli.commands.compare import distinct
from decodery.cli.flags.comparison_lines import DEFAULT_SET, PRESETS, comparison_lines
from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.decoding.request.strategy_params import BeamSearch
from tests.cli.commands.test_generate import LETTERS
from tests.cli.conftest import Run

FLAGS = ["--seed=1", "--max-tokens=6", "--ignore-eos", *LETTERS]


def test_the_default_set_is_of_presets_that_can_be_built() -> None:
    lines = comparison_lines(GenerationFlags(), None, [])
    assert [line.name for line in lines] == DEFAULT_SET.split(",")
    assert all(line.error is None for line in comparison_lines(GenerationFlags(), ",".join(PRESETS), []))
    by_name = {line.name: line.flags.params for line in lines}
    assert by_name["greedy"].greedy
    assert by_name["beam"].strategy == BeamSearch(4)


def test_flags_hold_for_all_lines_unless_a_line_says_otherwise() -> None:
    shared = GenerationFlags(command_defaults={"max_tokens": 40}).with_texts(
        {"temperature": "0.5", "top_k": "9"}
    )
    sampling, warm = comparison_lines(shared, "sampling", ["warm: top-k=3 max-tokens=5"])
    assert (sampling.flags.params.temperature, sampling.flags.params.top_k) == (0.8, 9)
    assert warm.flags.params.replace(top_k=0) == shared.params.replace(max_tokens=5, top_k=0)
    assert warm.flags.params.top_k == 3


def test_each_line_has_its_text_and_figures_in_80_columns(decodery: Run, model: str) -> None:
    ran = decodery("compare", "ab", "-m", model, "--strategies=greedy,sampling", *FLAGS)
    assert (ran.status, ran.err) == (0, "")
    assert all(cell_len(line) <= 80 for line in ran.out.splitlines())
    greedy = decodery("generate", "ab", "-m", model, "--strategy=greedy", *FLAGS).out.strip()
    assert f"  {greedy}\n" in ran.out
    assert ran.out.splitlines()[2].split()[:2] == ["greedy", "6"]
    assert "12 tokens in" in ran.out


def test_json_has_each_line_with_the_text_that_it_has_alone(decodery: Run, model: str) -> None:
    flags = ["-m", model, *FLAGS]
    found = decodery("compare", "ab", "--json", "--strategies=sampling", "--with=cold: top-k=1", *flags).json
    assert [line["name"] for line in found["lines"]] == ["sampling", "cold"]
    assert found["tokens"] == 12
    alone = decodery("generate", "ab", "--json", "--temperature=0.8", "--top-p=0.95", *flags).json
    (completion,) = found["lines"][0]["completions"]
    assert completion["text"] == alone["completions"][0]["text"]
    assert completion["mean_logprob"] == pytest.approx(sum(t["logprob"] for t in completion["logprobs"]) / 6)
    assert completion["distinct_1"] == len(set(completion["token_ids"])) / 6
    for line in found["lines"]:
        assert 0 < line["seconds"] <= found["seconds"]


def test_a_line_that_fails_shows_its_error_and_stops_no_other(decodery: Run, model: str) -> None:
    lines = ["--strategies=greedy", "--with=bad: stop-token-ids=999", "--with=lost: draft-model=./nowhere"]
    ran = decodery("compare", "ab", "-m", model, *lines, *FLAGS)
    assert ran.status == 0
    assert ran.out.count("failed") == 2
    assert "stop_token_ids names token 999" in " ".join(ran.out.split())
    assert "6 tokens in" in ran.out


def test_a_conflict_with_a_flag_is_shown_in_the_line(decodery: Run, model: str) -> None:
    ran = decodery("compare", "ab", "-m", model, "--strategies=greedy,beam", "--mirostat-mode=2", *FLAGS)
    assert ran.status == 0
    assert "mirostat_mode has no meaning with BeamSearch" in " ".join(ran.out.split())


def test_it_fails_when_every_line_does(decodery: Run, model: str) -> None:
    ran = decodery("compare", "ab", "-m", model, "--strategies=", "--with=bad: stop-token-ids=999", *FLAGS)
    assert (ran.status, ran.err) == (1, "decodery: no strategy could be run\n")
    assert "stop_token_ids names token 999" in " ".join(ran.out.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--strategies=magic"], "strategies names 'magic'; there are greedy, "),
        (["--with=top-k=3"], "with is written as NAME: PARAMETERS, not 'top-k=3'"),
        (["--with=a: top-k"], "parameters are written as NAME=VALUE, not 'top-k'"),
        (["--with=a: top-k=x"], "top_k must be a whole number, not 'x'"),
        (["--strategies="], "there is nothing to compare"),
        (["--num-beams=2"], "No such option"),
    ],
)
def test_a_wrong_line_is_a_usage_error(decodery: Run, flags: list[str], message: str) -> None:
    ran = decodery("compare", "ab", *flags)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"decodery: {message}")


def test_distinct_counts_different_runs() -> None:
    assert distinct([1, 2, 1, 2], 1) == 0.5
    assert distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert distinct([1], 2) is None
