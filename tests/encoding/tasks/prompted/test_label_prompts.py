"""Tests decoders that classify: by the probability of a label behind a prompt, and by a head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM, ModelError, ParameterError, RequestError
from decodery.encoding.tasks.prompted.label_prompts import CHAT_PROMPT, PLAIN_PROMPT, by_prompt
from decodery.encoding.text_batches import Batch
from tests.encoding.folders import DECODER, encoder_folder
from tests.encoding.tasks.fixed_model import fixed_parts
from tests.encoding.tasks.prompted.test_yes_no import TEMPLATE

LABELS = ["good", "bad", "good movie", "river"]
TEXTS = ["I love the movie", "water", "the dog sat <|im_end|> here"]
SETTINGS = {**DECODER, "max_position_embeddings": 256}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("plain"), "LlamaForCausalLM", **SETTINGS)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = encoder_folder(tmp_path_factory.mktemp("chat"), "Qwen3ForCausalLM", **SETTINGS)
    (path / "chat_template.jinja").write_text(TEMPLATE)
    return path


def summed(folder: Path, prompt: list[int], label: list[int]) -> float:
    """Returns the sum of transformers' log-probabilities of a label's tokens behind a prompt."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval().double()
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *label]])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(label))


def check(folder: Path, whole: str, space: str, **arguments: Any) -> None:
    llm = LLM(folder)
    encode = llm.tokenizer.encode
    for text, one in zip(TEXTS[:2], llm.classify(TEXTS[:2], labels=LABELS, **arguments), strict=True):
        filled = whole.replace("{labels}", ", ".join(LABELS)).replace("{text}", text)
        expected = [
            summed(
                folder,
                encode(filled, add_special_tokens=False),
                encode(space + label, add_special_tokens=False),
            )
            for label in LABELS
        ]
        # Where "good movie" follows, it is not the label "good".
        expected[0] += np.log1p(-np.exp(expected[2] - expected[0]))
        found = [one.logits[label] for label in LABELS]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        scores = np.exp(expected) / np.exp(expected).sum()
        np.testing.assert_allclose([one.scores[label] for label in LABELS], scores, rtol=1e-3, atol=1e-5)
        assert one.label == LABELS[int(np.argmax(expected))]


def test_a_label_has_the_probability_of_its_tokens_behind_the_prompt(plain: Path) -> None:
    check(plain, PLAIN_PROMPT, " ")


def test_a_prompt_may_be_the_callers(plain: Path) -> None:
    check(plain, "{text}: ", "", prompt="{text}: ")


def test_a_chat_model_gets_the_prompt_as_a_message(chat: Path) -> None:
    whole = f"<|im_start|>user\n{CHAT_PROMPT}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    check(chat, whole, "")
    check(chat, whole, "", method="prompt")


class Parts:
    """Holds a model that writes one of several replies; each is words with a probability."""

    def __init__(self, path: Path, replies: dict[str, float]) -> None:
        self.read: list[list[str]] = []
        self.replies = {tuple(reply.split()): chance for reply, chance in replies.items()}
        self.parts: Any = fixed_parts(path, "next_token", lambda token, place: [])
        self.parts.runner.run = self.run

    def run(self, texts: Any, *, layers: Any = ()) -> Any:
        tokenizer = self.parts.tokenizer
        for index, text in enumerate(texts):
            words = [tokenizer.token_text(token) for token in text.ids]
            self.read.append(words)
            own = text.content[0][1]
            rows = torch.full((len(words), tokenizer.vocab_size), -20.0)
            for place in range(own - 1, len(words)):
                behind = tuple(words[own : place + 1])
                for reply, chance in self.replies.items():
                    if reply[: len(behind)] == behind and len(reply) > len(behind):
                        (token,) = tokenizer.encode(reply[len(behind)], add_special_tokens=False)
                        rows[place, token] = np.logaddexp(rows[place, token].item(), np.log(chance))
                if behind in self.replies:
                    rows[place, text.ids[0]] = np.log(self.replies[behind])
            yield Batch([index], [0], [len(words)], rows, {})


def scores(parts: Any, labels: list[str]) -> dict[str, float]:
    (found,) = by_prompt(parts, "the", labels, prompt="{text} :")
    return {label: round(found.scores[label], 3) for label in labels}


def test_a_label_that_begins_another_one_counts_where_the_other_does_not_follow(tmp_path: Path) -> None:
    replies = {"dog": 0.1, "dog cat": 0.1, "dog cat bank": 0.5, "dog river": 0.2, "mat": 0.1}
    made = Parts(tmp_path, replies)
    assert scores(made.parts, ["dog", "mat"]) == {"dog": 0.9, "mat": 0.1}
    assert scores(made.parts, ["dog", "dog cat"]) == {"dog": 0.333, "dog cat": 0.667}
    labels = ["mat", "dog cat bank", "dog", "dog river", "dog cat"]
    assert scores(made.parts, labels) == dict(zip(labels, (0.1, 0.5, 0.1, 0.2, 0.1), strict=True))


def test_a_label_that_never_ends_before_another_one_is_the_least_likely(tmp_path: Path) -> None:
    made = Parts(tmp_path, {"dog cat": 1.0})
    found = scores(made.parts, ["dog", "dog cat", "mat"])
    assert found["dog cat"] == 1.0
    assert all(
        np.isfinite(list(by_prompt(made.parts, "a", ["dog", "dog cat"], prompt="{text}")[0].logits.values()))
    )


def test_a_text_is_read_once_for_all_labels_that_begin_alike(tmp_path: Path) -> None:
    made = Parts(tmp_path, {"dog": 0.4, "cat": 0.3, "mat": 0.3})
    by_prompt(made.parts, ["the", "a"], ["dog", "cat", "mat"], prompt="{text} :")
    assert [words[-2:] for words in made.read] == [["the", ":"], ["a", ":"]]
    made.read.clear()
    by_prompt(made.parts, "the", ["dog", "cat mat", "cat bank", "cat mat river"], prompt="{text} :")
    assert [words[-4:] for words in made.read] == [["the", ":", "cat", "mat"]]
    made.read.clear()
    by_prompt(made.parts, "the", ["dog mat", "cat mat"], prompt="{text} :")
    assert [words[-3:] for words in made.read] == [["the", ":", "dog"], ["the", ":", "cat"]]


def test_a_class_is_the_same_whatever_shares_the_batch(chat: Path) -> None:
    llm = LLM(chat)
    together = llm.classify([*TEXTS, "a dog " * 50], labels=LABELS)
    for text, one in zip(TEXTS, together, strict=False):
        assert llm.classify(text, labels=LABELS)[0].logits == one.logits


def test_a_text_alone_is_cut(chat: Path) -> None:
    llm = LLM(chat)
    long = "dog cat " * 200
    with pytest.raises(RequestError, match=r"the text has 401 tokens, and \d+ fit"):
        llm.classify(long, labels=LABELS)
    (found,) = llm.classify(long, labels=LABELS, long="cut")
    (shorter,) = llm.classify(long[: len(long) - 8 * (found.lost // 2)], labels=LABELS, long="cut")
    assert 0 < found.lost < 401
    assert shorter.lost <= 2


def test_vectors_of_a_model_that_continues_texts_need_a_pooling(plain: Path) -> None:
    with pytest.raises(ParameterError, match='pooling="last"'):
        LLM(plain).classify("a", labels=LABELS, method="similarity")


def test_wrong_arguments_are_errors_that_name_them(plain: Path, tmp_path: Path) -> None:
    llm = LLM(plain)
    given: Any
    for given in ("no place", "{text} and {text}", 3):
        with pytest.raises(ParameterError, match="prompt must be a text"):
            llm.classify("a", labels=LABELS, prompt=given)
    with pytest.raises(ParameterError, match="the label '  ' has no token"):
        llm.classify("a", labels=["good", "  "])
    with pytest.raises(ParameterError, match='hypothesis has no meaning with method="prompt"'):
        llm.classify("a", labels=LABELS, hypothesis="{}")
    with pytest.raises(ModelError, match="no head of classes"):
        llm.classify("a")
    encoder = LLM(encoder_folder(tmp_path))
    with pytest.raises(ModelError, match="has no head 'next_token'"):
        encoder.classify("a", labels=LABELS, method="prompt")
    assert llm.classify([], labels=LABELS) == []


@pytest.mark.parametrize("architecture", ["LlamaForSequenceClassification", "Qwen2ForSequenceClassification"])
def test_a_head_of_classes_reads_the_last_token_whatever_it_is(tmp_path: Path, architecture: str) -> None:
    import transformers

    path = encoder_folder(tmp_path, architecture, num_labels=3, **SETTINGS)
    llm = LLM(path)
    model = getattr(transformers, architecture).from_pretrained(path).eval()
    # The padding token, which ends texts, is in the middle too; alone and among others.
    texts = [[5, 0, 7, 0], [9, 8], [4, 0, 0, 0, 6, 5, 0]]
    for ids, one in zip(texts, llm.classify(texts), strict=True):
        with torch.no_grad():
            states = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
            expected = model.score(states)
        found = [one.logits[f"LABEL_{label}"] for label in range(3)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert llm.classify([ids])[0].logits == one.logits
    assert llm.is_encoder


def test_a_reward_model_has_one_logit(tmp_path: Path) -> None:
    path = encoder_folder(tmp_path, "LlamaForSequenceClassification", num_labels=1, **SETTINGS)
    (found,) = LLM(path).classify("the dog")
    assert list(found.logits) == ["LABEL_0"]
    assert found.score == pytest.approx(1 / (1 + np.exp(-found.logits["LABEL_0"])))
