"""Checks our encoder in mteb, and our tasks of vectors against mteb's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM, ModelError, ParameterError
from decodery.weights.sources.locate import resolve
from tests.evaluation.vectors.fake_encoder import write_lines

# `make test-harness` has the library; elsewhere it may be missing.
if "DECODERY_TEST_HARNESS" not in os.environ:
    pytest.importorskip("mteb")

from mteb.mocks import mock_tasks
from mteb.mocks.mock_tasks.clustering import MockClusteringTask
from mteb.types import PromptType

from decodery.evaluation.harness.mteb import evaluate, harness_encoder, main_scores, measured
from decodery.evaluation.tasks.vector_tasks import CLASSIFICATION, CLUSTERING, RERANKING, RETRIEVAL, STSB
from decodery.evaluation.vectors.encoder_subject import EncoderSubject

TASKS = (
    mock_tasks.MockSTSTask,
    mock_tasks.MockClassificationTask,
    MockClusteringTask,
    mock_tasks.MockRetrievalTask,
    mock_tasks.MockRerankingTask,
    mock_tasks.MockPairClassificationTask,
)


@pytest.fixture(scope="module")
def minilm() -> LLM:
    try:
        return LLM(resolve("minilm"))
    except ModelError as error:
        pytest.skip(f"the default encoder is not to be had: {error}")


@pytest.mark.parametrize("kind", TASKS)
def test_mteb_runs_its_mocks_on_an_encoder(minilm: LLM, kind: Any) -> None:
    task = kind()
    found = main_scores(measured(harness_encoder(minilm), [task]))
    assert list(found) == [task.metadata.name]
    assert all(-1 <= score <= 1 for scores in found.values() for score in scores.values())


def test_batches_are_put_together_and_queries_are_told_from_documents(minilm: LLM) -> None:
    encoder = harness_encoder(minilm, name="a/b")
    batches = [{"text": ["a river", "a stone"]}, {"text": ["the moon"]}]
    texts = ["a river", "a stone", "the moon"]
    for kind, options in (
        (None, {}),
        (PromptType.query, {"query": True}),
        (PromptType.document, {"document": True}),
    ):
        found = encoder.encode(batches, task_metadata=None, hf_split="test", hf_subset="en", prompt_type=kind)
        assert found.tobytes() == minilm.embed(texts, **options).vectors.tobytes()
    assert encoder.mteb_model_meta.name == "decodery/a_b"


def loaded(kind: Any) -> Any:
    task = kind()
    task.load_data()
    return task


def rows_of(split: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in split]


def test_our_classification_has_mtebs_own_accuracy(minilm: LLM, tmp_path: Path) -> None:
    task = loaded(mock_tasks.MockClassificationTask)
    for split in ("train", "test"):
        write_lines(tmp_path / f"{split}.jsonl", rows_of(task.dataset[split]))
    expected = main_scores(measured(harness_encoder(minilm), [task]))[task.metadata.name]["test"]
    ours = CLASSIFICATION.evaluate(CLASSIFICATION.read(tmp_path), EncoderSubject(minilm).embedder(), seed=0)
    assert ours.results["accuracy"].value == pytest.approx(expected)


def test_our_similarity_has_mtebs_own_correlation(minilm: LLM, tmp_path: Path) -> None:
    task = loaded(mock_tasks.MockSTSTask)
    write_lines(tmp_path / "test.jsonl", rows_of(task.dataset["test"]))
    expected = main_scores(measured(harness_encoder(minilm), [task]))[task.metadata.name]["test"]
    ours = STSB.evaluate(STSB.read(tmp_path), EncoderSubject(minilm).embedder(), seed=0)
    assert ours.results["cosine_spearman"].value == pytest.approx(expected)


def test_our_clustering_has_mtebs_own_v_measure(minilm: LLM, tmp_path: Path) -> None:
    task = loaded(MockClusteringTask)
    write_lines(tmp_path / "test.jsonl", rows_of(task.dataset["test"]))
    expected = main_scores(measured(harness_encoder(minilm), [task]))[task.metadata.name]["test"]
    ours = CLUSTERING.evaluate(CLUSTERING.read(tmp_path), EncoderSubject(minilm).embedder(), seed=0)
    assert ours.results["v_measure"].value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "ours"), [(mock_tasks.MockRetrievalTask, RETRIEVAL), (mock_tasks.MockRerankingTask, RERANKING)]
)
def test_our_rankings_have_mtebs_own_scores(minilm: LLM, tmp_path: Path, kind: Any, ours: Any) -> None:
    task = loaded(kind)
    split = task.dataset["default"]["test"]
    write_lines(tmp_path / "corpus.jsonl", rows_of(split["corpus"]), names={"id": "_id"})
    write_lines(tmp_path / "queries.jsonl", rows_of(split["queries"]), names={"id": "_id"})
    write_lines(
        tmp_path / "qrels" / "test.jsonl",
        [
            {"query-id": query, "corpus-id": document, "score": score}
            for query, grades in split["relevant_docs"].items()
            for document, score in grades.items()
        ],
    )
    if split.get("top_ranked"):
        ranked = [{"query-id": query, "corpus-ids": list(ids)} for query, ids in split["top_ranked"].items()]
        write_lines(tmp_path / "top_ranked.jsonl", ranked)
    (result,) = measured(harness_encoder(minilm), [task]).task_results
    (scores,) = result.scores["test"]
    found = ours.evaluate(ours.read(tmp_path), EncoderSubject(minilm).embedder(), seed=0)
    assert found.results["ndcg@10"].value == pytest.approx(scores["ndcg_at_10"], abs=1e-4)
    assert found.results["map"].value == pytest.approx(scores["map_at_1000"], abs=1e-4)
    assert found.results["recall@10"].value == pytest.approx(scores["recall_at_10"], abs=1e-4)


def test_what_mteb_cannot_run_is_one_error(minilm: LLM, default_llm: LLM) -> None:
    with pytest.raises(ParameterError, match=r"default writes texts, .* give an encoder"):
        harness_encoder(default_llm, name="default")
    with pytest.raises(ParameterError, match="mteb has no task NoSuchTask"):
        evaluate(["NoSuchTask"], minilm)
