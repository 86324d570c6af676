from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from decodery.cli.tables.beam_table import BeamTable
from decodery.cli.tables.choice_table import ChoiceTable, bar, shown_candidates
from decodery.decoding.trace import Candidate, Considered
from decodery.llm import LLM
from tests.cli.conftest import Run
from tests.pictures.traces import beam_trace, sampled_trace

FLAGS = ["--seed=1", "--max-tokens=3", "--top-p=0.3", "--ignore-eos"]


def test_json_has_the_choice_of_each_step(decodery: Run, model: str) -> None:
    found = decodery("explain", "abc", "-m", model, "--json", "--top=4", *FLAGS).json
    (completion,) = found["completions"]
    steps = completion["steps"]
    assert [step["token_id"] for step in steps] == completion["token_ids"]
    for step in steps:
        listed = step["candidates"]
        before = [candidate["before"] for candidate in listed[:4]]
        assert before == sorted(before, reverse=True)
        assert step["token_id"] in [candidate["token_id"] for candidate in listed]
        assert len(listed) - 4 == (step["rank"] > 4)
        assert 0 < step["before"] < step["after"]
        assert step["entropy_bits"] > 0
        assert step["kept"] < 259


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_table_fits_its_width_and_marks_what_was_chosen_and_cut(
    decodery: Run, model: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = LLM(model).tokenizer
    candidates = (Candidate(67, 0.5, 0.9), Candidate(68, 0.3, 0.1), Candidate(69, 0.2, 0.0))
    considered = Considered(67, 0.5, 0.9, 1, 1.2, 2, candidates)
    heading, *lines = ChoiceTable(tokenizer, width, 3).choice(1, considered).plain.splitlines()
    assert all(cell_len(line) <= width for line in lines)
    assert "50.0% → 90.0%" in heading
    assert "rank 1  entropy 1.20 bits  2 kept" in heading
    chosen, other, cut = lines
    assert chosen.startswith("● ")
    assert not other.startswith("● ")
    assert "✗" in cut
    assert "✗" not in chosen + other
    assert chosen.count("█") > other.count("█")


def test_a_pipe_gets_no_colour_and_no_line_too_wide(decodery: Run, model: str) -> None:
    ran = decodery("explain", "abc", "-m", model, "--top=3", *FLAGS)
    assert ran.status == 0
    assert "\x1b" not in ran.out
    assert all(cell_len(line) <= 80 for line in ran.out.splitlines())
    assert ran.out.count("● ") == 3 + 1  # One for each token, and the legend's.
    assert "ended by length, seed 1" in ran.out


def test_top_0_shows_the_choices_alone(decodery: Run, model: str) -> None:
    ran = decodery("explain", "abc", "-m", model, "--top=0", *FLAGS)
    assert ran.out.count("●") == 1
    assert ran.out.count("rank") == 3
    assert decodery("explain", "abc", "--top=-1").status == 2


def test_several_completions_come_one_after_the_other(decodery: Run, model: str) -> None:
    out = decodery("explain", "abc", "-m", model, "--top=1", "--n=2", *FLAGS).out
    first, second = out.index("completion 1 of 2"), out.index("completion 2 of 2")
    assert out[first:second].count("rank") == out[second:].count("rank") == 3


def test_the_chosen_token_is_shown_though_it_is_unlikely() -> None:
    candidates = tuple(Candidate(token, 0.3 - token / 100, 0.1) for token in range(10))
    unlikely = Considered(8, 0.2, 0.1, 9, 1.0, 10, candidates)
    assert [c.token for c in shown_candidates(unlikely, 2)] == [0, 1, 8]
    likely = Considered(1, 0.2, 0.1, 2, 1.0, 10, candidates)
    assert [c.token for c in shown_candidates(likely, 2)] == [0, 1]


@pytest.mark.parametrize(
    ("share", "expected"), [(0, "    "), (0.5, "██  "), (1, "████"), (0.28, "█▏  "), (0.9999, "████")]
)
def test_a_bar_fills_its_share(share: float, expected: str) -> None:
    assert bar(share, 4) == expected


def test_the_table_shows_drafts_forced_tokens_and_grammars() -> None:
    trace = sampled_trace(drafts=True, grammar=True)
    table = ChoiceTable(trace.tokenizer, 80, 3)
    step = next(s for s in trace.steps[0] if len(s.drafts) > s.accepted > 0)
    printed = table.step(1, step).plain
    assert printed.count("  drafted") == step.accepted
    assert printed.count("✓") == step.accepted
    assert printed.count("  forced") == sum(c.forced for c in step.considered)
    assert "grammar allows" in printed
    assert printed.splitlines()[-1].startswith("     drafts: ✓")


def test_the_table_shows_where_each_draft_comes_from() -> None:
    trace = sampled_trace(drafts=True)
    step = next(s for s in trace.steps[0] if len(s.drafts) > s.accepted > 0)
    sources = tuple(("text", "earlier texts", "successors")[k % 3] for k in range(len(step.drafts)))
    printed = ChoiceTable(trace.tokenizer, 80, 3).step(1, replace(step, draft_sources=sources)).plain
    drafts = printed.splitlines()[-1]
    assert re.findall(r"\((text|earlier texts|successors)\)", drafts) == list(sources)
    assert "(text)" not in ChoiceTable(trace.tokenizer, 80, 3).step(1, step).plain


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_beam_table_shows_each_step_in_its_width(width: int) -> None:
    trace = beam_trace(steps=6, width=3)
    table = BeamTable(trace.tokenizer, width, 3)
    for number, candidates in enumerate(trace.beams, 1):
        lines = table.step(number, candidates).plain.splitlines()
        assert all(cell_len(line) <= width for line in lines)
        alive = [c for c in candidates if c.fate != "pruned"]
        assert sum("←" in line for line in lines) == len(alive)
        assert sum("■" in line for line in lines) == sum(c.fate == "finished" for c in candidates)
        if len(alive) < len(candidates):
            assert lines[-1].startswith("  ✗")


def test_a_page_and_a_picture_are_written(decodery: Run, model: str, tmp_path: Path) -> None:
    files = [tmp_path / "a.html", tmp_path / "a.svg"]
    ran = decodery("explain", "<abc>", "-m", model, f"--html={files[0]}", f"--svg={files[1]}", *FLAGS)
    assert (ran.status, ran.out) == (0, "")
    assert ran.err == "".join(f"decodery: wrote {file}\n" for file in files)
    source = files[0].read_text(encoding="utf-8")
    assert source.count('href="#c0t') == 3
    assert "&lt;abc&gt;" in source
    assert f"<b>{Path(model).name}</b>" in source
    assert "<b>0.3</b>" in source
    assert files[1].read_text(encoding="utf-8").startswith("<svg")


def test_a_page_and_json_show_the_same_choices(decodery: Run, model: str, tmp_path: Path) -> None:
    file = tmp_path / "a.html"
    found = decodery("explain", "abc", "-m", model, "--json", f"--html={file}", *FLAGS).json
    (completion,) = found["completions"]
    source = file.read_text(encoding="utf-8")
    for step in completion["steps"]:
        assert f"rank {step['rank']:,} · entropy {step['entropy_bits']:.2f} bits" in source


def test_a_file_that_cannot_be_written_is_one_line(decodery: Run, model: str, tmp_path: Path) -> None:
    ran = decodery("explain", "abc", "-m", model, "--html=/no/such/folder/a.html", *FLAGS)
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "there is no folder /no/such/folder" in ran.err
    ran = decodery("explain", "abc", "-m", model, f"--html={tmp_path}", *FLAGS)
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "cannot be written" in ran.err
    ran = decodery("explain", "abc", "-m", model, "--html=a", "--svg=./a", *FLAGS)
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "name the same file" in ran.err


BEAMS = ["--num-beams=3", "--num-return-sequences=2", "--max-tokens=4", "--ignore-eos", "--seed=1"]


def test_beams_are_printed_step_by_step(decodery: Run, model: str) -> None:
    ran = decodery("explain", "abc", "-m", model, "--top=2", *BEAMS)
    assert (ran.status, ran.err) == (0, "")
    assert all(cell_len(line) <= 80 for line in ran.out.splitlines())
    assert ran.out.count(" candidates\n") == 4
    assert ran.out.count("beam 4 continues beam 2") == 1
    assert ran.out.index("completion 1 of 2") < ran.out.index("completion 2 of 2")
    assert ran.out.count(", score -") == 2


def test_beams_in_json_lead_to_the_completions(decodery: Run, model: str) -> None:
    found = decodery("explain", "abc", "-m", model, "--json", *BEAMS).json
    paths: dict[int, list[int]] = {0: []}
    ends = []
    for step in found["beams"]:
        grown = {c["beam"]: [*paths[c["parent"]], c["token_id"]] for c in step if c["fate"] == "kept"}
        ends += [[*paths[c["parent"]], c["token_id"]] for c in step if c["fate"] == "finished"]
        paths = grown
    returned = [completion["token_ids"] for completion in found["completions"]]
    assert all(tokens in [*ends, *paths.values()] for tokens in returned)
    scores = [completion["score"] for completion in found["completions"]]
    assert scores == sorted(scores, reverse=True)


def test_the_tree_of_real_beams_marks_each_completion(decodery: Run, model: str, tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    assert decodery("explain", "abc", "-m", model, f"--svg={file}", *BEAMS).status == 0
    drawn = file.read_text(encoding="utf-8")
    assert "returned as completion 1" in drawn
    assert "returned as completion 2" in drawn


def test_the_best_of_several_keep_their_own_steps(decodery: Run, model: str) -> None:
    flags = ["--best-of=3", "--n=2", "--json", *FLAGS]
    found = decodery("explain", "abc", "-m", model, *flags).json
    assert len(found["completions"]) == 2
    for completion in found["completions"]:
        assert [step["token_id"] for step in completion["steps"]] == completion["token_ids"]
