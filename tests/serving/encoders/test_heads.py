"""Tests the routes of heads, classes and ranks, against what the library computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from tests.encoding.folders import encoder_folder
from tests.serving.live import NAME, LiveServer, serving

QUERY = "who sat on the mat"
DOCUMENTS = ["the dog sat on the mat", "paris is the capital of france", "a cat", ""]
TEXTS = ["a great movie", "not good, bad", "the bank of the river"]
LONG = "dog cat " * 100
LABELS = {0: "bad", 1: "good", 2: "neither"}


@pytest.fixture(scope="module")
def ranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a random cross-encoder."""
    folder = tmp_path_factory.mktemp("ranker")
    return encoder_folder(folder, "BertForSequenceClassification", num_labels=1)


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a random classifier of three classes."""
    folder = tmp_path_factory.mktemp("classifier")
    return encoder_folder(folder, "BertForSequenceClassification", id2label=LABELS)


@pytest.fixture(scope="module")
def ranker(ranker_folder: Path) -> LLM:
    return LLM(ranker_folder)


@pytest.fixture(scope="module")
def classifier(classifier_folder: Path) -> LLM:
    return LLM(classifier_folder)


@pytest.fixture(scope="module")
def ranking(ranker_folder: Path) -> Iterator[LiveServer]:
    """Returns a server of the cross-encoder."""
    with serving(LLM(ranker_folder)) as found:
        yield found


@pytest.fixture(scope="module")
def classes(classifier_folder: Path) -> Iterator[LiveServer]:
    """Returns a server of the classifier."""
    with serving(LLM(classifier_folder)) as found:
        yield found


def asked(server: LiveServer, path: str, **body: Any) -> Any:
    answer = server.post(path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(server: LiveServer, path: str, **body: Any) -> dict[str, Any]:
    answer = server.post(path, body)
    assert answer.status_code == 400, answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_documents_are_ranked_as_in_the_library(ranking: LiveServer, ranker: LLM, path: str) -> None:
    expected = ranker.rerank(QUERY, DOCUMENTS)
    found = asked(ranking, path, model=NAME, query=QUERY, documents=DOCUMENTS)
    results = found["results"]
    assert [r["index"] for r in results] == [r.index for r in expected]
    assert [r["relevance_score"] for r in results] == [r.score for r in expected]
    assert [r["document"]["text"] for r in results] == [r.document for r in expected]
    assert found["model"] == NAME
    pairs = [ranker.tokenizer.encode(text, add_special_tokens=False) for text in DOCUMENTS]
    query = len(ranker.tokenizer.encode(QUERY, add_special_tokens=False))
    assert found["usage"]["total_tokens"] == sum(len(ids) + query + 3 for ids in pairs)


def test_documents_may_be_objects_and_few_or_none_may_be_shown(ranking: LiveServer, ranker: LLM) -> None:
    objects = [{"text": text} for text in DOCUMENTS]
    best = ranker.rerank(QUERY, DOCUMENTS, top_n=2)
    found = asked(ranking, "/v1/rerank", query=QUERY, documents=objects, top_n=2, return_documents=False)[
        "results"
    ]
    assert found == [{"index": r.index, "relevance_score": r.score} for r in best]


def test_the_form_of_text_embeddings_inference_is_told_by_its_fields(
    ranking: LiveServer, ranker: LLM
) -> None:
    expected = ranker.rerank(QUERY, DOCUMENTS)
    found = asked(ranking, "/rerank", query=QUERY, texts=DOCUMENTS)
    assert found == [{"index": r.index, "score": r.score} for r in expected]
    found = asked(ranking, "/rerank", query=QUERY, texts=DOCUMENTS, raw_scores=True, return_text=True)
    assert found == [{"index": r.index, "score": r.logit, "text": r.document} for r in expected]
    cut = ranker.rerank(QUERY, [LONG, "a"], long="cut")
    assert asked(ranking, "/rerank", query=QUERY, texts=[LONG, "a"], truncate=True) == [
        {"index": r.index, "score": r.score} for r in cut
    ]


def test_one_text_is_scored_with_many_and_pairs_are_scored(ranking: LiveServer, ranker: LLM) -> None:
    def scores(**body: Any) -> list[float]:
        data = asked(ranking, "/v1/score", **body)["data"]
        assert [entry["index"] for entry in data] == list(range(len(data)))
        return [entry["score"] for entry in data]

    expected = {r.index: r.score for r in ranker.rerank(QUERY, DOCUMENTS)}
    in_order = [expected[index] for index in range(len(DOCUMENTS))]
    assert scores(text_1=QUERY, text_2=DOCUMENTS) == in_order
    assert scores(text_1=[QUERY], text_2=DOCUMENTS) == in_order
    assert scores(text_1=QUERY, text_2=DOCUMENTS[0]) == in_order[:1]
    swapped = [ranker.rerank(d, [QUERY])[0].score for d in DOCUMENTS]
    assert scores(text_1=DOCUMENTS, text_2=[QUERY] * 4) == swapped
    error = refused(ranking, "/v1/score", text_1=["a", "b"], text_2=["a", "b", "c"])
    assert "2 texts" in error["message"]
    assert refused(ranking, "/v1/score", text_1=["a", "b"], text_2="c")["param"] == "text_2"


def test_a_document_that_is_too_long_is_an_error_or_is_cut(ranking: LiveServer, ranker: LLM) -> None:
    error = refused(ranking, "/v1/rerank", query=QUERY, documents=["a", LONG])
    assert error["param"] == "documents[1]"
    assert error["code"] == "context_length_exceeded"
    assert "200 tokens" in error["message"]
    assert refused(ranking, "/rerank", query=QUERY, texts=["a", LONG])["param"] == "texts[1]"
    assert refused(ranking, "/v1/score", text_1=QUERY, text_2=LONG)["param"] == "text_2"
    assert refused(ranking, "/v1/score", text_1=QUERY, text_2=["a", LONG])["param"] == "text_2[1]"
    body = {"query": QUERY, "documents": ["a", LONG], "truncate_prompt_tokens": -1}
    answer = ranking.post("/v1/rerank", body)
    expected = ranker.rerank(QUERY, ["a", LONG], long="cut")
    assert [r["relevance_score"] for r in answer.json()["results"]] == [r.score for r in expected]
    lost = sum(r.lost for r in expected)
    assert answer.headers["x-decodery-warning"] == f"texts were cut: {lost} tokens were left out"
    error = refused(ranking, "/v1/rerank", **{**body, "truncate_prompt_tokens": 10})
    assert error["param"] == "truncate_prompt_tokens"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"documents": ["a"]}, "query"),
        ("/v1/rerank", {"query": ["a"], "documents": ["a"]}, "query"),
        ("/v1/rerank", {"query": "a"}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": "b"}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["b", 3]}, "documents[1]"),
        ("/v1/rerank", {"query": "a", "documents": [{"title": "b"}]}, "documents[0].title"),
        ("/v1/rerank", {"query": "a", "documents": [{}]}, "documents[0]"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_k": 1}, "top_k"),
        ("/rerank", {"query": "a", "texts": ["b", 3]}, "texts[1]"),
        ("/rerank", {"query": "a", "texts": ["b"], "documents": ["b"]}, "documents"),
        ("/rerank", {"query": "a", "texts": ["b"] * 2049}, "texts"),
        ("/v1/score", {"text_1": "a"}, "text_2"),
        ("/v1/score", {"text_1": "a", "text_2": [3]}, "text_2[0]"),
    ],
)
def test_what_a_ranking_lacks_is_named(
    ranking: LiveServer, path: str, body: dict[str, Any], param: str
) -> None:
    assert refused(ranking, path, **body)["param"] == param


def test_a_model_without_the_head_is_a_400_that_names_the_model_and_no_path(
    server: LiveServer, classes: LiveServer, classifier_folder: Path, embedder_folder: Path
) -> None:
    for found in (
        refused(server, "/v1/rerank", query="a", documents=["b"]),
        refused(server, "/v1/classify", input="a"),
        refused(classes, "/v1/rerank", query="a", documents=["b"]),
        refused(classes, "/v1/score", text_1="a", text_2="b"),
    ):
        assert NAME in found["message"]
        assert found["param"] == "model"
        assert str(classifier_folder) not in found["message"]
        assert str(embedder_folder) not in found["message"]


def test_classes_are_those_of_the_library_in_the_order_of_the_head(
    classes: LiveServer, classifier: LLM
) -> None:
    expected = classifier.classify(TEXTS)
    found = asked(classes, "/v1/classify", model=NAME, input=TEXTS)
    for place, (entry, one) in enumerate(zip(found["data"], expected, strict=True)):
        assert entry == {
            "index": place,
            "label": one.label,
            "probs": [one.scores[label] for label in LABELS.values()],
            "num_classes": 3,
        }
    (single,) = asked(classes, "/v1/classify", input=TEXTS[0])["data"]
    assert single == found["data"][0]
    (raw,) = asked(classes, "/v1/classify", input=TEXTS[0], use_activation=False)["data"]
    assert raw["probs"] == [expected[0].logits[label] for label in LABELS.values()]
    assert refused(classes, "/v1/classify", input=LONG)["param"] == "input"
    assert refused(classes, "/v1/classify", input=["a", LONG])["param"] == "input[1]"
    assert found["usage"]["prompt_tokens"] == sum(len(classifier.tokenizer.encode(t)) for t in TEXTS)


def test_predictions_of_a_text_a_pair_and_a_batch(classes: LiveServer, classifier: LLM) -> None:
    def expected(*inputs: Any, raw: bool = False) -> list[list[dict[str, Any]]]:
        found = classifier.classify(list(inputs))
        return [
            [{"score": s, "label": label} for label, s in (c.logits if raw else c.scores).items()]
            for c in found
        ]

    first, second = TEXTS[:2]
    assert asked(classes, "/predict", inputs=first) == expected(first)[0]
    assert asked(classes, "/predict", inputs=[first]) == expected(first)[0]
    pair = asked(classes, "/predict", inputs=[first, second])
    assert pair == expected((first, second))[0]
    assert pair != expected(first)[0]
    assert [one["score"] for one in pair] == sorted((one["score"] for one in pair), reverse=True)
    batch = asked(classes, "/predict", inputs=[[first], [first, second], [second]])
    assert batch == expected(first, (first, second), second)
    raw = asked(classes, "/predict", inputs=first, raw_scores=True)
    assert raw == expected(first, raw=True)[0]
    assert refused(classes, "/predict", inputs=LONG)["param"] == "inputs"
    assert refused(classes, "/predict", inputs=[[first], [LONG, "a"]])["param"] == "inputs[1]"
    assert asked(classes, "/predict", inputs=LONG, truncate=True)
    for wrong, param in (
        ([first, second, first], "inputs"),
        ([[first], [first, second, first]], "inputs[1]"),
        ([[first], "a"], "inputs[1]"),
        ([], "inputs"),
        (None, "inputs"),
        ([[3]], "inputs[0]"),
    ):
        assert refused(classes, "/predict", inputs=wrong)["param"] == param


def test_the_routes_that_a_model_answers_are_listed(ranking: LiveServer, classes: LiveServer) -> None:
    def routes(server: LiveServer) -> list[str]:
        (card,) = server.client.get("/v1/models").json()["data"]
        found: list[str] = card["routes"]
        return found

    shared = ["/v1/embeddings", "/embed", "/embed_all", "/v1/classify", "/predict"]
    assert routes(classes) == shared
    assert routes(ranking) == [*shared, "/v1/rerank", "/rerank", "/v1/score"]
