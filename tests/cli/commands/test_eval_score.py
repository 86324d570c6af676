from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decodery.cli.commands.evaluation import bertscore_baseline
from decodery.metrics import bleu, read_baseline, rouge
from decodery.metrics.unrelated_texts import with_pairs
from tests.cli.conftest import Run
from tests.encoding.folders import encoder_folder

TEXTS = ["the cat sat", "a dog ran away"]
KNOWN = ["the cat sat on the mat", "the dog ran away"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(encoder_folder(tmp_path_factory.mktemp("bert")))


def lines(path: Path, texts: list[str]) -> str:
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return str(path)


def test_lines_are_scored_against_lines(decodery: Run, tmp_path: Path) -> None:
    texts, known = lines(tmp_path / "texts.txt", TEXTS), lines(tmp_path / "known.txt", KNOWN)
    out = tmp_path / "scores.jsonl"
    arguments = (texts, "--references", known, "--kind", "translation", "--out", str(out))
    ran = decodery("eval", "score", *arguments)
    assert (ran.status, ran.err) == (0, "")
    value = bleu(TEXTS, [[text] for text in KNOWN])
    assert f"bleu  {value.value:.4f}" in " ".join(ran.out.split("\n"))
    assert "nrefs:1|case:mixed" in ran.out
    found = decodery("eval", "score", *arguments, "--json").json
    assert found["texts"] == 2
    assert found["scores"]["bleu"]["value"] == value.value
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prediction"] for row in rows] == TEXTS
    assert rows[0]["references"] == KNOWN[:1]
    assert set(rows[0]) == {"prediction", "references", "bleu", "chrf"}


def test_rows_have_texts_and_references_together(decodery: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"summary": text, "highlights": [one, text]} for text, one in zip(TEXTS, KNOWN, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = ("--prediction-field", "summary", "--reference-field", "highlights")
    found = decodery("eval", "score", str(path), *fields, "--kind", "summary", "--json").json
    assert found["scores"]["rougeL"]["value"] == 1
    assert list(found["scores"]) == ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def test_several_files_are_several_references_and_others_are_compared(decodery: Run, tmp_path: Path) -> None:
    texts, known = lines(tmp_path / "texts.txt", TEXTS), lines(tmp_path / "known.txt", KNOWN)
    again = lines(tmp_path / "again.txt", TEXTS)
    arguments = ("--references", known, "--references", again, "--metrics", "rouge1, bleu")
    found = decodery("eval", "score", texts, *arguments, "--compare", known, "--json").json
    assert found["scores"]["rouge1"]["value"] == 1
    assert found["differences"]["rouge1"]["value"] == 0
    ran = decodery("eval", "score", texts, *arguments, "--compare", known)
    assert f"{known} minus {texts}" in ran.out
    assert "not told apart" in ran.out


def test_scores_of_vectors_are_rescaled_by_a_baseline_that_was_measured(
    decodery: Run, encoder: str, tmp_path: Path
) -> None:
    texts, known = lines(tmp_path / "texts.txt", TEXTS), lines(tmp_path / "known.txt", KNOWN)
    baseline = tmp_path / "baseline.tsv"
    ran = decodery("eval", "bertscore-baseline", known, "-m", encoder, "--out", str(baseline))
    assert ran.status == 0
    header, *rows = baseline.read_text().splitlines()
    assert header == "LAYER,P,R,F"
    assert [row.split(",")[0] for row in rows] == ["0", "1", "2"]
    arguments = ("--references", known, "--metrics", "bertscore", "--encoder", encoder, "--json")
    plain = decodery("eval", "score", texts, *arguments).json["scores"]["bertscore"]
    given = (*arguments, "--baseline", str(baseline))
    rescaled = decodery("eval", "score", texts, *given).json["scores"]["bertscore"]
    base = read_baseline(baseline, 2)[2]
    assert plain["settings"].endswith("layer 2, not rescaled")
    assert rescaled["settings"].endswith(f"rescaled by {base}")
    assert rescaled["value"] < plain["value"]


def baseline_command(tmp_path: Path, encoder: str, *more: str) -> tuple[str, ...]:
    words = ("river", "plays", "of", "a", "cat", "dog")
    texts = lines(tmp_path / "sentences.txt", [f"the bank {word}" for word in words])
    out = str(tmp_path / "baseline.tsv")
    return ("eval", "bertscore-baseline", texts, "-m", encoder, "--out", out, *more)


def test_a_baseline_that_was_stopped_goes_on(
    decodery: Run, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bertscore_baseline, "BLOCK", 2)
    command = baseline_command(tmp_path, encoder)
    assert decodery(*command).status == 0
    whole = (tmp_path / "baseline.tsv").read_bytes()
    (tmp_path / "baseline.tsv").unlink()
    blocks: list[int] = []

    def stops(totals: Any, pairs: Any, embed: Any) -> Any:
        blocks.append(len(pairs))
        if len(blocks) == 2:
            raise KeyboardInterrupt
        return with_pairs(totals, pairs, embed)

    with monkeypatch.context() as patched:
        patched.setattr(bertscore_baseline, "with_pairs", stops)
        assert decodery(*command).status != 0
    assert not (tmp_path / "baseline.tsv").exists()
    other = decodery(*command, "--seed", "1")
    assert "was begun with other texts or settings" in other.err
    ran = decodery(*command)
    assert "2 of 3 pairs are measured already" in ran.err
    assert (tmp_path / "baseline.tsv").read_bytes() == whole
    assert [path.name for path in tmp_path.glob("baseline*")] == ["baseline.tsv"]


def test_chosen_layers_are_measured_and_told_with_their_errors(
    decodery: Run, encoder: str, tmp_path: Path
) -> None:
    ran = decodery(*baseline_command(tmp_path, encoder, "--layers", "2,0"))
    rows = (tmp_path / "baseline.tsv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["LAYER", "0", "2"]
    assert f"{float(rows[2].split(',')[3]):.4f} ± " in ran.out
    assert ran.out.splitlines()[2].split()[-2:] == ["3", "0"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--layers", "7"), "layers must be from 0 to 2"),
        (("--layers", "-1"), "layers must be all, or numbers from 0 such as 5,6, not '-1'"),
        (("--layers", "last"), "layers must be all, or numbers"),
        (("--limit", "1"), "limit must be 2 or more"),
    ],
)
def test_a_baseline_that_cannot_be_measured_is_one_error(
    decodery: Run, encoder: str, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    ran = decodery(*baseline_command(tmp_path, encoder, *more))
    assert ran.status != 0
    assert message in ran.err


def test_a_damaged_state_of_a_baseline_is_an_error(decodery: Run, encoder: str, tmp_path: Path) -> None:
    (tmp_path / "baseline.tsv.part.json").write_text('{"settings": 1}')
    ran = decodery(*baseline_command(tmp_path, encoder))
    assert "baseline.tsv.part.json is damaged: remove it to begin again" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metrics", ",", "--references", "KNOWN"), "metrics is empty: leave it out, or name some"),
        (("--sources", "MORE", "--references", "KNOWN"), "2 texts and 3 sources: number 3 has no partner"),
        (("--references", "BLANK"), "BLANK: reference 2 is empty"),
        (("--references", "KNOWN", "--references", "BLANK"), "BLANK: reference 2 is empty"),
        (("--references", "KNOWN", "--compare", "MORE"), "3 texts and 2 references: number 3"),
        (
            ("--kind", "poem", "--references", "KNOWN"),
            "kind must be summary, translation, answer, not 'poem'",
        ),
        (("--kind", "summary"), "--references is missing"),
        (("--kind", "summary", "--references", "MORE"), "2 texts and 3 references: number 3 has no partner"),
        (("--kind", "summary", "--references", "missing.txt"), "cannot be read"),
        (("--kind", "summary", "--references", "LATIN"), "is not UTF-8"),
        (("--kind", "summary", "--references", "EMPTY"), "has no lines"),
        (("--kind", "summary", "--references", "ROWS"), "row 1 has no reference; it has text"),
        (
            ("--kind", "summary", "--references", "KNOWN", "--references", "MORE"),
            "3: number 3 has no partner",
        ),
        (("--metrics", "rouge9", "--references", "KNOWN"), "'rouge9', which is none of"),
    ],
)
def test_what_cannot_be_scored_is_one_error(
    decodery: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    texts = lines(tmp_path / "texts.txt", TEXTS)
    lines(tmp_path / "KNOWN", KNOWN)
    lines(tmp_path / "MORE", [*KNOWN, "one more"])
    lines(tmp_path / "BLANK", ["the cat", " "])
    (tmp_path / "LATIN").write_bytes("é\n".encode("latin-1"))
    (tmp_path / "EMPTY").write_bytes(b"")
    (tmp_path / "ROWS.jsonl").write_text('{"text": "a"}\n')
    paths = {name: str(tmp_path / name) for name in ("KNOWN", "MORE", "BLANK", "LATIN", "EMPTY")}
    paths["ROWS"] = str(tmp_path / "ROWS.jsonl")
    ran = decodery("eval", "score", texts, *(paths.get(one, one) for one in arguments))
    assert ran.status != 0
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


def test_an_empty_line_is_an_empty_text(decodery: Run, tmp_path: Path) -> None:
    texts, known = lines(tmp_path / "texts.txt", ["", TEXTS[1]]), lines(tmp_path / "known.txt", KNOWN)
    found = decodery("eval", "score", texts, "--references", known, "--kind", "summary", "--json").json
    expected = rouge(["", TEXTS[1]], KNOWN)["rouge1"]
    assert found["scores"]["rouge1"]["value"] == expected.value


def test_without_a_kind_rouge_bleu_and_chrf_are_told_and_their_errors_named(
    decodery: Run, tmp_path: Path
) -> None:
    texts, known = lines(tmp_path / "texts.txt", TEXTS), lines(tmp_path / "known.txt", KNOWN)
    ran = decodery("eval", "score", texts, "--references", known)
    assert [line.split()[0] for line in ran.out.splitlines()[1:-1]] == [
        *("rouge1", "rouge2", "rougeL", "rougeLsum"),
        *("bleu", "chrf"),
    ]
    last = (
        "± is the standard error: that of the mean over texts, the jackknife's over texts for bleu and chrf"
    )
    assert ran.out.splitlines()[-1] == last
    named = decodery(
        "eval", "score", texts, "--references", known, "--metrics", "rouge,rouge1,chrf", "--json"
    )
    assert list(named.json["scores"]) == ["rouge1", "rouge2", "rougeL", "rougeLsum", "chrf"]


def test_sources_and_differences_stand_in_the_lines_and_the_page(decodery: Run, tmp_path: Path) -> None:
    texts, known = lines(tmp_path / "texts.txt", TEXTS), lines(tmp_path / "known.txt", KNOWN)
    sources = lines(tmp_path / "sources.txt", ["<b>le chat", "un chien"])
    out, page = tmp_path / "scores.jsonl", tmp_path / "page.html"
    more = ("--sources", sources, "--compare", known, "--metrics", "rouge1,bleu")
    ran = decodery(
        *("eval", "score", texts, "--references", known, *more, "--out", str(out), "--report", str(page))
    )
    assert ran.status == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["source"] for row in rows] == ["<b>le chat", "un chien"]
    html = page.read_text()
    # The worse text comes first: 3 of 6 words against 3 of 4.
    assert 0 < html.index("Text 1") < html.index("Text 2")
    for part in ("&lt;b&gt;le chat", "other minus these", "nrefs:1|case:mixed", f"{rows[0]['rouge1']:.4f}"):
        assert part in html
    assert "<b>le chat" not in html


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return lines(tmp_path / "texts.txt", TEXTS), lines(tmp_path / "known.txt", KNOWN)


@pytest.mark.parametrize("layer", ["-4", "-7", "3"])
def test_a_layer_that_is_not_there_is_an_error(
    decodery: Run, encoder: str, files: tuple[str, str], layer: str
) -> None:
    arguments = ("--references", files[1], "--metrics", "bertscore", "--encoder", encoder, "--layer", layer)
    ran = decodery("eval", "score", files[0], *arguments)
    assert ran.status != 0
    assert "layer must be from -3 to 2" in ran.err


def test_the_prompt_of_a_folder_is_not_part_of_a_score(
    decodery: Run, encoder: str, files: tuple[str, str], tmp_path: Path
) -> None:
    prompted = encoder_folder(tmp_path / "prompted")
    settings = {"prompts": {"query": "the cat sat on "}, "default_prompt_name": "query"}
    (prompted / "config_sentence_transformers.json").write_text(json.dumps(settings))
    values = [
        decodery(
            *("eval", "score", files[0], "--references", files[1], "--metrics", "bertscore", "--json"),
            *("--encoder", folder),
        ).json["scores"]["bertscore"]["value"]
        for folder in (encoder, str(prompted))
    ]
    assert values[0] == values[1]


def test_a_text_that_is_too_long_is_an_error_or_is_cut_and_said(
    decodery: Run, encoder: str, files: tuple[str, str], tmp_path: Path
) -> None:
    long = lines(tmp_path / "long.txt", [" ".join(["the"] * 90), TEXTS[1]])
    arguments = ("--references", files[1], "--metrics", "bertscore", "--encoder", encoder)
    ran = decodery("eval", "score", long, *arguments)
    assert ran.status != 0
    assert "tokens" in ran.err
    ran = decodery("eval", "score", long, *arguments, "--long", "cut")
    assert ran.status == 0
    assert "bertscore: 1 texts are cut, by 28 tokens together" in ran.err
    assert "layer 2, long texts cut" in ran.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--layer", "1"), "--layer says how bertscore is computed"),
        (("--baseline", "no.tsv"), "--baseline says how bertscore is computed"),
        (("--tokenize", "zh"), "--tokenize says how bleu is computed"),
        (("--word-order", "2"), "--word-order says how chrf is computed"),
        (("--metrics", "chrf", "--word-order", "99999999"), "word_order must be at most 9"),
        (("--metrics", "bleu", "--stemmer"), "--stemmer says how rouge is computed"),
    ],
)
def test_flags_that_would_do_nothing_or_without_end_are_errors(
    decodery: Run, files: tuple[str, str], flags: tuple[str, ...], message: str
) -> None:
    kind = () if "--metrics" in flags else ("--kind", "summary")
    ran = decodery("eval", "score", files[0], "--references", files[1], *kind, *flags)
    assert ran.status != 0
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--out", "--report"])
def test_no_input_is_written_over(decodery: Run, files: tuple[str, str], flag: str) -> None:
    for name in files:
        before = Path(name).read_bytes()
        ran = decodery("eval", "score", files[0], "--references", files[1], "--kind", "summary", flag, name)
        assert ran.status != 0
        assert "is read or written already" in ran.err
        assert Path(name).read_bytes() == before


@pytest.mark.parametrize("name", ["rows.ndjson", "rows.JSONL"])
def test_rows_are_rows_however_their_file_is_spelled(decodery: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(json.dumps({"prediction": "the cat", "reference": "the cat"}) + "\n")
    found = decodery("eval", "score", str(path), "--metrics", "rouge1", "--json").json
    assert found["scores"]["rouge1"]["value"] == 1
