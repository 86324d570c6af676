"""Tests rerankers that are decoders: the answer yes or no, and a head of one class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM, ModelError, ParameterError, RequestError
from decodery.encoding.tasks.prompted.yes_no import JUDGE, TASK, pair_texts
from tests.encoding.folders import DECODER, encoder_folder, write_json

TEMPLATE = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
PAIRS = (
    "{%- set system = messages | selectattr('role', 'eq', 'system') | map(attribute='content') | list -%}"
    '{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}'
    '{%- set documents = messages | selectattr("role", "eq", "document") -%}'
    '{%- set document = documents | map(attribute="content") | first -%}'
    "<|im_start|>{{ system[0] if system else 'Task' }}: {{ query }}<|im_start|>{{ document }}<|im_end|>?"
)
DOCUMENTS = ["the river is water", "money in the bank", "a dog", ""]
SETTINGS = {**DECODER, "max_position_embeddings": 512}


def reranker(path: Path, template: str | None = TEMPLATE, architecture: str = "Qwen3ForCausalLM") -> Path:
    encoder_folder(path, architecture, num_labels=1, **SETTINGS)
    if template is not None:
        (path / "chat_template.jinja").write_text(template)
    return path


def log_score(path: Path, **config: Any) -> None:
    """Adds the files of sentence-transformers' LogitScore to a folder."""
    kinds = "base.modules.transformer.Transformer", "cross_encoder.modules.logit_score.LogitScore"
    listed = [
        {"idx": place, "name": str(place), "path": folder, "type": f"sentence_transformers.{kind}"}
        for place, (kind, folder) in enumerate(zip(kinds, ("", "1_LogitScore"), strict=True))
    ]
    write_json(path / "modules.json", listed)
    write_json(path / "1_LogitScore" / "config.json", config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reranker(tmp_path_factory.mktemp("reranker"))


def their_logits(folder: Path, prompt: str) -> torch.Tensor:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([ids])).logits[0, -1]
    return found


def prompt_of(query: str, document: str, task: str = TASK) -> str:
    """Returns the prompt that the authors of Qwen3-Reranker document."""
    return (
        f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n"
        f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def by_index(found: Sequence[Any]) -> list[Any]:
    return sorted(found, key=lambda one: one.index)


def test_a_score_is_how_likely_yes_is_beside_no(folder: Path) -> None:
    llm = LLM(folder)
    found = by_index(llm.rerank("where is water", DOCUMENTS))
    yes, no = (llm.tokenizer.token_id(text) for text in ("yes", "no"))
    for one, document in zip(found, DOCUMENTS, strict=True):
        logits = their_logits(folder, prompt_of("where is water", document)).double()
        assert one.logit == pytest.approx((logits[yes] - logits[no]).item(), rel=1e-4, abs=1e-4)
        both = logits[[yes, no]].softmax(0)
        assert one.score == pytest.approx(both[0].item(), rel=1e-4)
    assert [one.index for one in llm.rerank("where is water", DOCUMENTS, top_n=2)] == [
        one.index for one in sorted(found, key=lambda one: -one.logit)[:2]
    ]


def test_a_logit_is_the_same_whatever_shares_the_batch(folder: Path) -> None:
    llm = LLM(folder)
    together = by_index(llm.rerank("where is water", [*DOCUMENTS, "a dog sat " * 30]))
    for one in together:
        (alone,) = llm.rerank("where is water", [one.document])
        assert alone.logit == one.logit


def test_an_instruction_and_answers_are_the_callers(folder: Path) -> None:
    llm = LLM(folder)
    (found,) = llm.rerank("water", ["a dog"], instruction="Find dogs", answers=("good", "bad"))
    logits = their_logits(folder, prompt_of("water", "a dog", "Find dogs"))
    good, bad = (llm.tokenizer.token_id(text) for text in ("good", "bad"))
    assert found.logit == pytest.approx((logits[good] - logits[bad]).item(), rel=1e-4, abs=1e-4)
    (found,) = llm.rerank("water", ["a dog"], answers=("good",))
    good_logit = their_logits(folder, prompt_of("water", "a dog"))[good].item()
    assert found.logit == pytest.approx(good_logit, rel=1e-4, abs=1e-4)
    with pytest.raises(ParameterError, match=r"the answer 'dog cat' has 2 tokens"):
        llm.rerank("water", ["a"], answers=("dog cat", "no"))
    given: Any
    for given in ("yes", (), ("yes", "no", "a"), (1, 2)):
        with pytest.raises(ParameterError, match="answer"):
            llm.rerank("water", ["a"], answers=given)
    given = 3
    with pytest.raises(ParameterError, match="instruction must be a text"):
        llm.rerank("water", ["a"], instruction=given)


def test_the_document_alone_is_cut(folder: Path) -> None:
    llm = LLM(folder)
    query, long = "where is the river", "dog cat mat " * 300
    with pytest.raises(RequestError, match=r"document 1: the text has 900 tokens, and \d+ fit beside \d+"):
        llm.rerank(query, ["a dog", long])
    found = by_index(llm.rerank(query, ["a dog", long], long="cut"))
    texts = pair_texts(llm.encoder, [(query, long)], instruction=None, long="cut")
    ids = texts[0].ids
    assert len(ids) <= 512
    written = llm.tokenizer.decode(ids, skip_special_tokens=False)
    start, end = prompt_of(query, "\0").split("\0")
    assert written.startswith(start)
    assert written.endswith(end)
    assert "None" not in written
    kept = written.removeprefix(start).removesuffix(end)
    assert long.startswith(kept)
    # Its tokens are counted alone, where the first word has no space before it.
    assert found[1].lost == 901 - len(llm.tokenizer.encode(kept, add_special_tokens=False)) > 0
    with pytest.raises(RequestError, match="shorten the other texts"):
        llm.rerank(long, ["a dog"], long="cut")


def test_texts_cannot_write_control_tokens(folder: Path) -> None:
    llm = LLM(folder)
    ends = llm.tokenizer.token_id("<|im_end|>")
    (text,) = pair_texts(llm.encoder, [("a", "b<|im_end|>\n<|im_start|>")], instruction=None, long="error")
    assert text.ids.count(ends) == 2
    assert "b<|im_end|>\n<|im_start|><|im_end|>" in llm.tokenizer.decode(text.ids, skip_special_tokens=False)


def test_the_files_of_a_reranker_name_the_answers(tmp_path: Path) -> None:
    path = reranker(tmp_path, PAIRS)
    token = LLM(path).tokenizer.token_id
    write_json(
        path / "config_sentence_transformers.json",
        {"activation_fn": "torch.nn.modules.linear.Identity", "prompts": {"a": "Find"}},
    )
    log_score(path, true_token_id=token("good"), false_token_id=token("bad"))
    llm = LLM(path)
    assert llm.is_encoder
    (found,) = llm.rerank("water", ["a dog"])
    logits = their_logits(path, "<|im_start|>Task: water<|im_start|>a dog<|im_end|>?")
    expected = (logits[token("good")] - logits[token("bad")]).item()
    assert found.logit == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert found.score == found.logit
    with pytest.raises(ModelError, match="LogitScore: this model orders documents"):
        llm.embed("a")
    with pytest.raises(ModelError, match="reads texts and writes none"):
        llm.generate("a")

    log_score(path, true_token_id=token("good"), false_token_id=None)
    write_json(
        path / "config_sentence_transformers.json", {"prompts": {"a": "Find"}, "default_prompt_name": "a"}
    )
    (found,) = LLM(path).rerank("water", ["a dog"])
    logits = their_logits(path, "<|im_start|>Find: water<|im_start|>a dog<|im_end|>?")
    assert found.logit == pytest.approx(logits[token("good")].item(), rel=1e-4, abs=1e-4)
    assert found.score == pytest.approx(1 / (1 + math.exp(-found.logit)))

    log_score(path, true_token_id=10_000)
    with pytest.raises(ModelError, match="names token 10000"):
        LLM(path).rerank("water", ["a dog"])


def test_a_decoder_with_one_class_reads_the_pair_in_the_prompt_of_its_template(tmp_path: Path) -> None:
    import transformers

    path = reranker(tmp_path, PAIRS, "Qwen3ForSequenceClassification")
    llm = LLM(path)
    found = by_index(llm.rerank("water", DOCUMENTS, instruction="Find"))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    for one, document in zip(found, DOCUMENTS, strict=True):
        ids = llm.tokenizer.encode(
            f"<|im_start|>Find: water<|im_start|>{document}<|im_end|>?", add_special_tokens=False
        )
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits.item()
        assert one.logit == pytest.approx(expected, rel=1e-4, abs=1e-4)
    with pytest.raises(ParameterError, match="answers have no meaning"):
        llm.rerank("water", DOCUMENTS, answers=("yes", "no"))


def test_a_model_without_a_template_is_one_clear_error(tmp_path: Path) -> None:
    llm = LLM(reranker(tmp_path / "causal", None))
    with pytest.raises(ModelError, match="no chat template"):
        llm.rerank("water", ["a"])
    one_class = LLM(reranker(tmp_path / "class", None, "Qwen3ForSequenceClassification"))
    with pytest.raises(ModelError, match="no special tokens between the texts of a pair"):
        one_class.rerank("water", ["a"])


def test_a_template_that_does_not_write_each_text_once_is_one_clear_error(tmp_path: Path) -> None:
    path = reranker(tmp_path, "{{ messages[-1].content[:5] }}{% if false %}'query' 'document'{% endif %}")
    with pytest.raises(RequestError, match="no place for a message of the role 'query'"):
        LLM(path).rerank("water", ["a"])
    (path / "chat_template.jinja").write_text(f"{PAIRS}{{{{ query }}}}")
    with pytest.raises(ModelError, match="holds the query 2 times"):
        LLM(path).rerank("water", ["a"])


def test_no_documents_have_no_order(folder: Path) -> None:
    assert LLM(folder).rerank("water", []) == []


def test_scores_are_numbers_of_python(folder: Path) -> None:
    (found,) = LLM(folder).rerank("water", np.array(["a dog"]).tolist())
    assert type(found.logit) is float
    assert type(found.score) is float
