from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery import LLM, ParameterError
from decodery.evaluation import RunSettings, Subject, run
from decodery.evaluation.tasks.arc import TASK as ARC
from decodery.evaluation.tasks.vector_tasks import CLASSIFICATION, RETRIEVAL, STSB
from decodery.evaluation.vectors.encoder_subject import EncoderSubject
from tests.cli.conftest import write_model
from tests.encoding.folders import encoder_folder, sentence_folder
from tests.evaluation.vectors.fake_encoder import write_lines

WORDS = ("dog", "cat", "bank", "river", "mat", "seattle", "paris")
FILES = ("samples.jsonl", "results.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return LLM(folder)


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return LLM(write_model(tmp_path_factory.mktemp("llama")), dtype="float32", kv_memory="16MB")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = random.Random(0)
    rows = [
        {
            "sentence1": " ".join(rng.choices(WORDS, k=rng.randint(1, 6))),
            "sentence2": " ".join(rng.choices(WORDS, k=rng.randint(1, 80))),
            "score": rng.randint(0, 5),
        }
        for _ in range(40)
    ]
    return write_lines(tmp_path / "test.jsonl", rows)


def written(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in FILES]


def test_a_run_writes_its_samples_and_results_and_tells_what_was_cut(
    llm: LLM, data: Path, tmp_path: Path
) -> None:
    found = run(STSB, llm, data=data, out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == len(found.samples) == 40
    assert lines[0]["values"] == found.samples[0].outcome.values
    assert lines[0]["prompt"].count("\n") == 1
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["results"]["cosine_spearman"]["value"] == found.results["cosine_spearman"].value
    long = sum(len(line["prompt"].split("\n")[1].split()) > 62 for line in lines)
    assert found.counts == {"cut": long}
    assert long > 0
    texts = {text for line in lines for text in line["prompt"].split("\n")}
    assert found.asked == len(texts)


@pytest.mark.parametrize("length", [0, 5, 8, 9, 500, 4000])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    llm: LLM, data: Path, tmp_path: Path, length: int
) -> None:
    whole = tmp_path / "whole"
    asked = run(STSB, llm, data=data, out=whole).asked
    killed = tmp_path / "killed"
    run(STSB, llm, data=data, out=killed)
    for name in FILES:
        (killed / name).unlink()
    vectors = killed / "vectors.bin"
    vectors.write_bytes(vectors.read_bytes()[:length])
    again = run(STSB, llm, data=data, out=killed)
    assert written(killed) == written(whole)
    assert again.asked == asked - max(length - 8, 0) // (16 + 4 + 24 * 4)
    assert run(STSB, llm, data=data, out=killed).asked == 0
    assert written(killed) == written(whole)


def test_a_folder_with_other_settings_or_another_encoder_is_an_error(
    llm: LLM, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run(STSB, llm, data=data, out=out, limit=5)
    with pytest.raises(ParameterError, match=r"holds a run with another .*limit"):
        run(STSB, llm, data=data, out=out)
    with pytest.raises(ParameterError, match=r"holds a run with another .*seed"):
        run(STSB, llm, data=data, out=out, settings=RunSettings(limit=5, seed=1))
    other = LLM(encoder_folder(tmp_path / "other", seed=1))
    with pytest.raises(ParameterError, match=r"holds a run with another .*identity"):
        run(STSB, other, data=data, out=out, limit=5)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[2]["score"] = 2.5
    with pytest.raises(ParameterError, match=r"holds a run with another .*data"):
        run(STSB, llm, data=write_lines(tmp_path / "more" / "test.jsonl", rows), out=out, limit=5)


def test_what_stands_beside_the_documents_is_part_of_the_settings(llm: LLM, tmp_path: Path) -> None:
    rows = [{"text": f"{WORDS[i % 2]} {i}", "label": i % 2} for i in range(40)]
    data = write_lines(tmp_path / "data" / "train.jsonl", rows).parent
    write_lines(data / "test.jsonl", rows[:6])
    run(CLASSIFICATION, llm, data=data, out=tmp_path / "run")
    write_lines(data / "train.jsonl", rows[::-1])
    with pytest.raises(ParameterError, match=r"holds a run with another .*data"):
        run(CLASSIFICATION, llm, data=data, out=tmp_path / "run")


def test_a_limit_takes_the_first_documents(llm: LLM, data: Path) -> None:
    some, whole = run(STSB, llm, data=data, limit=7), run(STSB, llm, data=data)
    assert list(some.samples) == list(whole.samples)[:7]


def test_a_task_by_its_name_runs_on_an_encoder(llm: LLM, data: Path) -> None:
    assert run("stsb", llm, data=data, limit=3).task == "stsb"


def test_an_encoder_and_a_model_that_writes_are_told_apart(llm: LLM, writing: LLM, data: Path) -> None:
    for model in (writing, Subject(writing)):
        with pytest.raises(ParameterError, match="stsb compares vectors, and this model writes texts"):
            run(STSB, model, data=data)
    with pytest.raises(ParameterError, match="default is an encoder, and a model is asked to write"):
        run(ARC, llm, data=data)
    with pytest.raises(ParameterError, match="arc asks a model to write, and encoder is an encoder"):
        run(ARC, EncoderSubject(llm), data=data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 2}, "stsb compares vectors: shots means nothing to it"),
        ({"settings": RunSettings(repeats=2)}, "stsb compares vectors: repeats means nothing to it"),
        ({"cache": "folder"}, "leave cache out"),
    ],
)
def test_what_means_nothing_to_vectors_is_an_error(
    llm: LLM, data: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        run(STSB, llm, data=data, **options)


def test_queries_and_documents_get_the_prompts_of_the_folder(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "bank ", "document": "river "}}
    llm = LLM(sentence_folder(tmp_path / "sentence", settings=prompts))
    embed = EncoderSubject(llm).embedder()
    for role, options in (("query", {"query": True}), ("document", {"document": True}), ("text", {})):
        found = embed(["dog cat", "mat"], role).vectors  # type: ignore[arg-type]
        assert np.array_equal(found, llm.embed(["dog cat", "mat"], **options).vectors)
    assert not np.array_equal(embed(["dog"], "query").vectors, embed(["dog"], "document").vectors)


def test_vectors_of_queries_and_documents_are_kept_apart(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "bank ", "document": "river "}}
    llm = LLM(sentence_folder(tmp_path / "sentence", settings=prompts))
    data = tmp_path / "data"
    write_lines(data / "corpus.jsonl", [{"_id": word, "text": word} for word in WORDS])
    write_lines(data / "queries.jsonl", [{"_id": word, "text": word} for word in WORDS])
    grades = [{"query-id": word, "corpus-id": word, "score": 1} for word in WORDS]
    write_lines(data / "qrels" / "test.jsonl", grades)
    kept = run(RETRIEVAL, llm, data=data, out=tmp_path / "run")
    assert kept.asked == 2 * len(WORDS)
    assert list(kept.samples) == list(run(RETRIEVAL, llm, data=data).samples)
