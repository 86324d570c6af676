"""Checks that a model fills in the text between a prefix and a suffix."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from decodery import LLM, GenerationParams, ModelError, RequestError
from tests.cli.conftest import FIM, VOCABULARY, Run, write_coder, write_model


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a folder with a tiny model that has tokens for infilling."""
    return write_coder(tmp_path_factory.mktemp("coder"))


@pytest.fixture(scope="module")
def llm(coder: str) -> LLM:
    return LLM(coder, dtype="float32", kv_memory="16MB")


def test_infill_is_generate_after_the_prompt_of_the_models_training(llm: LLM) -> None:
    first, second, third, pad = (llm.tokenizer.token_id(text) for text in FIM)
    prefix, suffix = "def f():", "<|fim_pad|> return x"
    before, after = (
        llm.tokenizer.encode(t, add_special_tokens=False, parse_special=False) for t in (prefix, suffix)
    )
    assert pad not in after
    params = GenerationParams(max_tokens=8, temperature=0)
    output = llm.infill(prefix, suffix, params)
    assert output.prompt_token_ids == [first, *before, second, *after, third]
    expected = llm.generate(output.prompt_token_ids, params.replace(stop_token_ids=(pad,)))[0]
    assert output.completions[0].token_ids == expected.completions[0].token_ids


def test_a_token_that_ends_a_middle_ends_the_text(llm: LLM) -> None:
    pad = llm.tokenizer.token_id("<|fim_pad|>")
    assert pad is not None
    output = llm.infill("a", "b", GenerationParams(max_tokens=5, temperature=0, logit_bias={pad: 100.0}))
    assert (output.completions[0].finish_reason, output.completions[0].text) == ("stop", "")


def test_an_infill_without_text_or_tokens_is_an_error(llm: LLM, model: str) -> None:
    with pytest.raises(RequestError, match="both empty"):
        llm.infill("", "")
    with pytest.raises(ModelError, match="cannot fill in: its vocabulary has no tokens"):
        LLM(model, dtype="float32", kv_memory="16MB").infill("a", "b")


def test_the_command_fills_in_at_the_mark(decodery: Run, coder: str, llm: LLM) -> None:
    options = ["--model", coder, "--dtype=float32", "--max-tokens=6", "--temperature=0"]
    expected = llm.infill("ab", "cd", GenerationParams(max_tokens=6, temperature=0)).completions[0].text
    assert decodery("infill", "ab<FILL_ME>cd", *options).out.rstrip("\n") == expected.rstrip("\n")
    found = decodery("infill", "ab|cd", "--mark=|", "--json", *options).json
    assert (found["prefix"], found["suffix"]) == ("ab", "cd")
    assert found["completions"][0]["text"] == expected
    for text, times in (("abcd", 0), ("<FILL_ME><FILL_ME>", 2)):
        failed = decodery("infill", text, *options)
        assert failed.status == 1
        assert f"{times} times: write it once" in failed.err


def test_a_suffix_gets_no_space_that_sentencepiece_adds_to_texts(tmp_path: Path) -> None:
    write_model(tmp_path, rows=VOCABULARY + len(FIM))
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.add_special_tokens(list(FIM))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    backend.save(str(tmp_path / "tokenizer.json"))
    llm = LLM(str(tmp_path), dtype="float32", kv_memory="16MB")
    plain = llm.tokenizer.encode("cd", add_special_tokens=False, parse_special=False)
    assert llm.tokenizer.decode(plain) == " cd"
    ids, _ = llm.infill_prompt("ab", "cd")
    assert llm.tokenizer.decode(ids) == " abcd"


def test_a_tokenizer_with_more_tokens_than_the_model_embeds_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    path = tmp_path / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(path))
    backend.add_special_tokens(["<image>"])
    backend.save(str(path))
    LLM(str(tmp_path), dtype="float32", kv_memory="16MB")
    backend.add_tokens(["further"])
    backend.save(str(path))
    with pytest.raises(ModelError, match=r"embeds \d+, without token \d+ \('further'\): the files"):
        LLM(str(tmp_path), dtype="float32", kv_memory="16MB")
