"""Tests classes of texts by a model's own heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery import LLM, ModelError, ParameterError, RequestError
from decodery.encoding.tasks.classify import by_head, choose, classification, next_sentence
from decodery.encoding.tasks.labels import label_names, scoring
from tests.encoding.folders import encoder_folder
from tests.encoding.tasks.fixed_model import fixed_parts

NAMES = {"0": "bad", "1": "good", "2": "so so"}


def fixed(path: Path, logits: list[float], **config: Any) -> Any:
    return fixed_parts(path, "classes", lambda token, place: logits, config=config, context=20)


def test_classes_that_exclude_each_other_are_a_softmax(tmp_path: Path) -> None:
    (found,) = by_head(fixed(tmp_path, [0.0, 2.0, 1.0], id2label=NAMES), "the dog")
    total = 1 + np.e**2 + np.e
    assert found.label == "good"
    assert found.score == pytest.approx(np.e**2 / total)
    assert list(found.scores) == ["good", "so so", "bad"]
    assert dict(found.logits) == {"good": 2.0, "so so": 1.0, "bad": 0.0}
    (best,) = by_head(fixed(tmp_path, [0.0, 2.0, 1.0], id2label=NAMES), "the dog", top_k=1)
    assert list(best.scores) == ["good"]


def test_several_labels_are_sigmoids_if_the_folder_or_the_caller_says_so(tmp_path: Path) -> None:
    logits = [0.0, 2.0, 1.0]
    folder = fixed(tmp_path, logits, id2label=NAMES, problem_type="multi_label_classification")
    asked = fixed(tmp_path / "b", logits, id2label=NAMES)
    for found in (by_head(folder, "dog"), by_head(asked, "dog", multi_label=True)):
        assert dict(found[0].scores) == pytest.approx(
            {"good": 1 / (1 + np.exp(-2)), "so so": 1 / (1 + np.exp(-1)), "bad": 0.5}
        )
    assert sum(by_head(folder, "dog", multi_label=False)[0].scores.values()) == pytest.approx(1)


SCORINGS: list[tuple[dict[str, Any], int, str]] = [
    ({}, 2, "softmax"),
    ({}, 1, "sigmoid"),
    ({"problem_type": "regression"}, 1, "identity"),
    ({"problem_type": "regression"}, 3, "identity"),
    ({"problem_type": "single_label_classification"}, 3, "softmax"),
    ({"problem_type": "multi_label_classification"}, 3, "sigmoid"),
    ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, 1, "identity"),
    ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, 1, "sigmoid"),
    ({"sentence_transformers": {"version": "5.0"}}, 1, "sigmoid"),
    ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, 1, "identity"),
    ({"sbert_ce_default_activation_function": None}, 1, "sigmoid"),
    # Of several classes one wants probabilities; the logits are told besides.
    ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, 3, "softmax"),
]


@pytest.mark.parametrize(("config", "count", "expected"), SCORINGS)
def test_config_says_how_logits_become_scores(config: dict[str, Any], count: int, expected: str) -> None:
    assert scoring(config, count) == expected


def test_an_activation_that_is_unknown_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"names the activation 'my\.Tanh'"):
        scoring({"sbert_ce_default_activation_function": "my.Tanh"}, 1)


def test_the_order_is_that_of_the_logits_where_scores_are_equal() -> None:
    found = classification(["a", "b", "c"], np.array([50.0, 60.0, 60.0]), np.array([1.0, 1.0, 1.0]))
    assert list(found.scores) == ["b", "c", "a"]


def test_labels_have_the_names_of_the_folder(tmp_path: Path) -> None:
    assert label_names(fixed(tmp_path, []), 2) == ("LABEL_0", "LABEL_1")
    backwards = fixed(
        tmp_path, [], id2label={"10": "k", **{str(n): chr(97 + n) for n in reversed(range(10))}}
    )
    assert label_names(backwards, 11) == tuple("abcdefghijk")
    for wrong in ({"0": "a", "2": "b"}, {"0": "a"}, ["a", "b"]):
        with pytest.raises(ModelError, match=r"id2label in config\.json must name the classes 0 to 1"):
            label_names(fixed(tmp_path, [], id2label=wrong), 2)
    with pytest.raises(ModelError, match="names two classes 'a'"):
        by_head(fixed(tmp_path, [1.0, 2.0], id2label={"0": "a", "1": "a"}), "dog")


def test_texts_pairs_and_token_ids(tmp_path: Path) -> None:
    parts = fixed(tmp_path, [0.0, 1.0])
    runner: Any = parts.runner
    encode = parts.tokenizer.encode
    for given, count in [
        ("the dog", 1),
        (["the dog", "a cat"], 2),
        (("the dog", "a cat"), 1),
        ([("the dog", "a cat"), ["who", "what"], "the"], 3),
        ([3, 4, 5], 1),
        ([[3, 4], "the"], 2),
        (np.array([3, 4]), 1),
        ([], 0),
    ]:
        runner.read.clear()
        assert len(by_head(parts, given)) == len(runner.read) == count
    by_head(parts, ("the dog", "a cat"))
    sep = encode("")[1:]
    assert list(runner.read[-1].ids) == [*encode("the dog"), *encode("a cat")[1:-1], *sep]
    assert runner.read[-1].segments == (0, 0, 0, 0, 1, 1, 1)
    for wrong in ([3.5, {}], [("a", "b", "c")], [None], [b"dog"]):
        with pytest.raises(ParameterError):
            by_head(parts, wrong)


def test_a_text_that_is_too_long_is_an_error_or_cut(tmp_path: Path) -> None:
    parts = fixed(tmp_path, [0.0, 1.0])
    with pytest.raises(RequestError, match=r"text 1: the text has 30 tokens, and 18 fit"):
        by_head(parts, ["dog", "dog " * 30])
    assert [one.lost for one in by_head(parts, ["dog", "dog " * 30], long="cut")] == [0, 12]
    (pair,) = by_head(parts, ("cat " * 5, "dog " * 30), long="cut")
    runner: Any = parts.runner
    assert pair.lost == 18
    assert [parts.tokenizer.token_text(t) for t in runner.read[-1].ids] == [
        *("[CLS]", *["cat"] * 5, "[SEP]", *["dog"] * 12, "[SEP]")
    ]
    with pytest.raises(RequestError, match="the first text of the pair has 30 tokens"):
        by_head(parts, ("cat " * 30, "dog"), long="cut")


def test_options_of_a_prompt_are_a_softmax(tmp_path: Path) -> None:
    parts = fixed_parts(tmp_path, "choices", lambda token, place: [0.0])
    runner: Any = parts.runner
    logits = iter([1.0, 3.0, 2.0, *[1.0, 3.0] * 2])

    def of_text(token: str, place: int) -> list[float]:
        return [next(logits) if place == 0 else 0.0]

    runner.scores = of_text
    found = choose(parts, "the dog", ["sat", "plays", "is"])
    assert list(found.scores) == ["plays", "is", "sat"]
    assert found.score == pytest.approx(np.e**3 / (np.e + np.e**2 + np.e**3))
    given: Any
    for given in (("sat", "plays"), iter(["sat", "plays"])):
        assert list(choose(parts, "the dog", given).scores) == ["plays", "sat"]
    for wrong in ([], ["one"], ["one", "one"], [("a", "b"), "c"], 3):
        with pytest.raises(ParameterError, match="option"):
            choose(parts, "the dog", wrong)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="option 1: the text has 600 tokens"):
        choose(parts, "the", ["dog", "dog " * 600])


def test_the_probability_of_the_next_sentence_is_that_of_class_0(tmp_path: Path) -> None:
    parts = fixed_parts(tmp_path, "next_sentence", lambda token, place: [2.0, 0.0])
    assert next_sentence(parts, "the dog", "it sat") == pytest.approx(np.e**2 / (1 + np.e**2))
    with pytest.raises(ModelError, match="has no head 'choices'; it has next_sentence"):
        choose(parts, "the", ["a", "b"])


def test_without_a_head_the_error_says_what_would_fit(tmp_path: Path) -> None:
    llm = LLM(encoder_folder(tmp_path))
    with pytest.raises(ModelError, match=r"has no head of classes: give labels= or examples="):
        llm.classify("the dog")
    for method in ("head", "entailment"):
        with pytest.raises(ModelError, match="has no head 'classes'"):
            llm.classify("the dog", method=method, labels=["a"] if method == "entailment" else None)  # type: ignore[arg-type]


def test_arguments_that_a_method_does_not_read_are_errors(tmp_path: Path) -> None:
    llm = LLM(encoder_folder(tmp_path))
    with pytest.raises(ParameterError, match='multi_label has no meaning with method="similarity"'):
        llm.classify("dog", labels=["a", "b"], multi_label=True)
    with pytest.raises(ParameterError, match='labels has no meaning with method="examples"'):
        llm.classify("dog", labels=["a", "b"], examples=[("a", "b")])
    with pytest.raises(ParameterError, match="method must be one of head, similarity"):
        llm.classify("dog", method="best")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="long must be error or cut"):
        LLM(encoder_folder(tmp_path / "b", "BertForSequenceClassification")).classify("dog", long="windows")


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_classes_are_those_of_transformers(tmp_path: Path, problem: str | None) -> None:
    import transformers

    folder = encoder_folder(
        tmp_path, "BertForSequenceClassification", id2label=dict(enumerate("abc")), problem_type=problem
    )
    llm = LLM(folder)
    oracle = transformers.pipeline("text-classification", str(folder), top_k=None)
    texts = ["the dog sat", "a long text about money and water", ""]
    for text, found in zip(texts, llm.classify(texts), strict=True):
        theirs = oracle([text])[0]
        assert list(found.scores) == [one["label"] for one in theirs]
        assert list(found.scores.values()) == pytest.approx([one["score"] for one in theirs], rel=1e-3)
    assert llm.classify(texts) == [llm.classify(text)[0] for text in texts]


def test_heads_of_pairs_are_those_of_transformers(tmp_path: Path) -> None:
    import torch
    import transformers

    options = ["sat on the mat", "plays", "visited paris"]
    folder = encoder_folder(tmp_path / "choices", "BertForMultipleChoice")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForMultipleChoice.from_pretrained(folder).eval()
    logits = []
    for option in options:
        # The tiny tokenizer's class drops segments.
        inputs = tokenizer(["the dog"], [option], return_tensors="pt")
        count = len(tokenizer(option)["input_ids"]) - 1
        segments = torch.tensor([[0] * (inputs["input_ids"].shape[1] - count) + [1] * count])
        with torch.no_grad():
            logits.append(model(inputs["input_ids"][None], token_type_ids=segments[None]).logits.item())
    found = LLM(folder).choose("the dog", options)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [found.scores[option] for option in options] == pytest.approx(expected.tolist(), rel=1e-3)

    folder = encoder_folder(tmp_path / "next", "BertForNextSentencePrediction")
    next_model: Any = transformers.AutoModelForNextSentencePrediction.from_pretrained(folder).eval()
    with torch.no_grad():
        row = next_model(inputs["input_ids"], token_type_ids=segments).logits.softmax(-1)
    assert LLM(folder).next_sentence("the dog", options[-1]) == pytest.approx(row[0, 0].item(), rel=1e-3)


@pytest.mark.parametrize("method", ["head", "entailment", "similarity", "examples"])
def test_every_method_tells_how_many_tokens_of_a_text_were_cut(tmp_path: Path, method: Any) -> None:
    llm = LLM(
        encoder_folder(
            tmp_path, "BertForSequenceClassification", num_labels=2, id2label={0: "entailment", 1: "other"}
        )
    )
    given: dict[str, Any] = {}
    if method == "examples":
        pytest.importorskip("sklearn")
        given = {"examples": [("the dog", "animal"), ("paris", "city")]}
    elif method != "head":
        given = {"labels": ["a", "b"], **({"hypothesis": "{}"} if method == "entailment" else {})}
    found = llm.classify(["dog", "dog " * 70], method=method, long="cut", **given)
    around = 4 if method == "entailment" else 2
    assert [one.lost for one in found] == [0, 70 - (64 - around)]


def test_the_default_prompt_of_the_folder_is_before_a_text_and_the_first_of_a_pair(tmp_path: Path) -> None:
    plain, prompted = (
        LLM(encoder_folder(tmp_path / name, "BertForSequenceClassification", num_labels=2)) for name in "ab"
    )
    settings = {"prompts": {"q": "the bank "}, "default_prompt_name": "q"}
    (tmp_path / "b" / "config_sentence_transformers.json").write_text(json.dumps(settings))
    expected = plain.classify(["the bank a dog", ("the bank a dog", "a cat")])
    assert prompted.classify(["a dog", ("a dog", "a cat")]) == expected
    assert prompted.classify([[5, 6]]) == plain.classify([[5, 6]])
    named: Any = {"labels": ["cat", "river"], "entailment": 0, "contradiction": 1}
    assert prompted.classify("a dog", **named) == plain.classify("the bank a dog", **named)
