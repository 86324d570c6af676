"""Tests that each error of a command line is one line on stderr and an exit status."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from decodery.cli import load_llm
from decodery.llm import LLM
from tests.cli.conftest import Run
from tests.kernels.native.fixtures import built

BEFORE_LOADING = [
    (["--top-p", "1.1"], "top_p must be above 0 and at most 1, not 1.1"),
    (["--max-tokens", "0"], "max_tokens must be 1 or more, not 0"),
    (["--temperature", "-1"], "temperature must be 0, or 1e-06 or more, not -1.0"),
    (["--stop", ""], "stop holds an empty string"),
    (["--logit-bias", "3=nan"], "logit_bias of token 3 must be finite or -inf, not nan"),
    (["--logit-bias", "3"], "logit_bias must be written as ID=VALUE, not '3'"),
    (["--stop-token-ids", "-3"], "stop_token_ids must be 0 or more, not -3"),
    (["--top-k", "x"], "top_k must be a whole number, not 'x'"),
    (["--min-tokens", "9", "--max-tokens", "2"], "min_tokens is 9, more than max_tokens 2"),
    (["--logprobs", "1"], "logprobs are shown only with --json"),
    (["--system", "S"], "system is a message of a conversation: give --chat too"),
    (["--file", "F"], "give PROMPT or --file, not both"),
    (["--dtype", "int3"], "dtype must be auto, float32 or bfloat16, not 'int3'"),
    (["--backend", "magic"], "backend must be "),
    (["--kv-memory", "lots"], "a memory size is bytes or such as 512MB or 2GiB, not 'lots'"),
    (["--kv-memory", "1000000000GB"], "a memory size of 1000000000GB is more than this machine has: "),
    (["--kv-dtype", "int4"], "kv_dtype must be auto, float32, bfloat16, float16 or int8, not 'int4'"),
    (["--threads", "0"], "threads must be 1 or more, not 0"),
    (["--context-length", "0"], "context_length must be 1 or more, not 0"),
    (["--no-such-flag"], "No such option: --no-such-flag"),
    (["--seed"], "Option '--seed' requires an argument"),
]


@pytest.mark.parametrize(("flags", "message"), BEFORE_LOADING, ids=lambda value: " ".join(value)[:30])
def test_a_wrong_flag_is_one_line_before_any_model_is_loaded(
    decodery: Run, flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **more: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(load_llm, "LLM", never)
    ran = decodery("generate", "x", *flags)
    assert ran.err.startswith(f"decodery: {message}")
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stop-token-ids", "999"], "stop_token_ids names token 999"),
        (["--logit-bias", "999=1"], "logit_bias names token 999"),
        (["--context-length", "9999"], "context_length is 9999"),
        (["--kv-memory", "1KB"], "kv_memory of 1KB holds no page"),
    ],
)
def test_what_only_the_model_can_refuse_is_one_line_too(
    decodery: Run, model: str, flags: list[str], message: str
) -> None:
    ran = decodery("generate", "x", "-m", model, *flags)
    assert message in ran.err
    assert ran.status in (1, 2)
    assert (ran.out, ran.err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["generate", ""], None, "PROMPT is empty: give some text"),
        (["generate"], b"", "PROMPT is empty: give some text"),
        (["score"], b"\n", "TEXT is empty: give some text"),
        (["generate"], b"ab\xff", "the standard input is not UTF-8 text (byte 0xff at offset 2)"),
        (["generate", "a\udcff"], None, "PROMPT is not UTF-8 text (byte 0xff at offset 1)"),
        (["generate", "--file", "/no/such/file"], None, "/no/such/file cannot be read: No such file"),
        (["generate", "x", "-m", "./no-such-model"], None, "there is no file or folder ./no-such-model"),
        (["inspect", "what is this"], None, "unknown model 'what is this'"),
        (["pull", "./no-such-model"], None, "there is no file or folder ./no-such-model"),
    ],
)
def test_a_failure_is_one_line_and_status_1(
    decodery: Run, arguments: list[str], stdin: bytes | None, message: str
) -> None:
    ran = decodery(*arguments, stdin=stdin)
    assert ran.err.startswith(f"decodery: {message}")
    assert (ran.status, ran.out, ran.err.count("\n")) == (1, "", 1)


def test_a_file_that_is_not_utf8_is_named(decodery: Run, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    ran = decodery("score", "--file", str(tmp_path / "latin"))
    assert ran.status == 1
    assert f"{tmp_path / 'latin'} is not UTF-8 text" in ran.err


def test_without_a_prompt_a_terminal_shows_how_to_give_one(decodery: Run) -> None:
    ran = decodery("generate")
    assert (ran.status, ran.err) == (
        2,
        "decodery: give PROMPT as an argument, with --file, or through a pipe\n",
    )


@pytest.mark.parametrize("arguments", [["nothing"], ["models", "too", "much"]])
def test_a_wrong_command_is_one_line(decodery: Run, arguments: list[str]) -> None:
    ran = decodery(*arguments)
    assert (ran.status, ran.err.count("\n")) == (2, 1)


def test_a_prompt_longer_than_the_context_is_refused(decodery: Run, model: str) -> None:
    ran = decodery("generate", "x" * 129, "-m", model)
    assert ran.status == 1
    assert "the prompt has 129 tokens and the context holds 128" in ran.err


def test_a_defect_is_one_line_with_its_type(
    decodery: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **more: Any) -> None:
        raise ZeroDivisionError("on\npurpose")

    monkeypatch.setattr(LLM, "stream", broken)
    ran = decodery("generate", "x", "-m", model)
    assert (ran.status, ran.err) == (
        1,
        "decodery: ZeroDivisionError: on purpose (run again with --debug)\n",
    )
    traced = decodery("generate", "x", "-m", model, "--debug")
    assert traced.status == 1
    assert "Traceback" in traced.err
    assert traced.err.endswith("decodery: ZeroDivisionError: on purpose\n")


def test_an_expected_error_has_a_traceback_only_with_debug(decodery: Run) -> None:
    assert "Traceback" not in decodery("generate", "").err
    traced = decodery("generate", "", "--debug")
    assert traced.status == 1
    assert "Traceback" in traced.err


@built
@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_a_warning_is_one_line_too(
    decodery: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    ran = decodery("generate", "hi", "--model", model, "--max-tokens=1", "--seed=1", "--packed-cache")
    assert ran.status == 0
    assert re.fullmatch(r"decodery: packed weights cannot be kept in .*\n", ran.err)
