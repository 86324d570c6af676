from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decodery.llm import LLM
from decodery.outputs import StreamEvent
from tests.cli.conftest import Run, write_model

# A random model's bytes are seldom text; these parameters keep it to the tokens of letters.
LETTERS = [f"--logit-bias={token}=100" for token in range(64, 90)]


def greedy(model: str, tokens: int = 8) -> list[str]:
    return ["-m", model, "--temperature", "0", "--max-tokens", str(tokens), "--ignore-eos", *LETTERS]


def stream_events(monkeypatch: pytest.MonkeyPatch, *events: StreamEvent | type[BaseException]) -> None:
    """Makes every model stream these events."""

    def stream(self: LLM, *arguments: Any, **more: Any) -> Iterator[StreamEvent]:
        for event in events:
            if isinstance(event, StreamEvent):
                yield event
            else:
                raise event

    monkeypatch.setattr(LLM, "stream", stream)


def test_the_text_alone_is_on_stdout(decodery: Run, model: str) -> None:
    ran = decodery("generate", "hello", *greedy(model))
    expected = LLM(model).generate("hello", params_of(8))[0].completions[0].text
    assert (ran.status, ran.out, ran.err) == (0, expected + "\n", "")


def params_of(tokens: int) -> Any:
    from decodery import GenerationParams

    bias = dict.fromkeys(range(64, 90), 100.0)
    return GenerationParams(max_tokens=tokens, temperature=0, ignore_eos=True, logit_bias=bias)


def test_argument_file_and_pipe_are_the_same_prompt(decodery: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_bytes(b"\xef\xbb\xbfh\xc3\xa9llo\r\n")
    outputs = [
        decodery("generate", "héllo", *greedy(model)),
        decodery("generate", "--file", str(tmp_path / "prompt"), *greedy(model)),
        decodery("generate", *greedy(model), stdin="héllo\n".encode()),
        decodery("generate", "-", *greedy(model), stdin="héllo".encode()),
    ]
    assert len({ran.out for ran in outputs}) == 1
    assert all(ran.status == 0 for ran in outputs)


def test_a_prompt_may_be_its_token_ids(decodery: Run, model: str) -> None:
    text = decodery("generate", "--json", "hi", *greedy(model)).json
    ids = ",".join(map(str, text["prompt_token_ids"]))
    for echo in ([], ["--echo"]):
        with_text = decodery("generate", "--json", "hi", *echo, *greedy(model)).json
        with_ids = decodery("generate", "--json", f"--token-ids={ids}", *echo, *greedy(model)).json
        assert with_ids["prompt"] is None
        assert with_ids["completions"] == with_text["completions"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--token-ids", ""], "whole numbers"),
        (["--token-ids", "1,,2"], "whole numbers"),
        (["--token-ids", "-1"], "whole numbers"),
        (["--token-ids", "1.5"], "whole numbers"),
        (["--token-ids", "9" * 5000], "whole numbers"),
        (["--token-ids", "999999999"], "999999999"),
        (["--token-ids", "1", "a text"], "not both"),
        (["--token-ids", "1", "--chat"], "--chat"),
        (["--token-ids", "1,2", "--generated", "2"], "generated is 2"),
        (["--token-ids", "1,2", "--generated", "-1"], "generated must be"),
        (["--generated", "1", "a text"], "--token-ids"),
    ],
)
def test_what_is_no_prompt_of_token_ids_is_refused(
    decodery: Run, model: str, arguments: list[str], words: str
) -> None:
    ran = decodery("generate", "-m", model, *arguments)
    assert ran.status in (1, 2)
    assert words in ran.err
    assert len(ran.err.splitlines()) == 1


def test_the_last_token_ids_may_begin_the_text(decodery: Run, model: str) -> None:
    flags = ["-m", model, "--max-tokens=9", "--seed=4", "--presence-penalty=1", "--ignore-eos"]
    whole = decodery("generate", "--json", "hi", *flags).json
    text = whole["completions"][0]["token_ids"]
    begun = ",".join(map(str, [*whole["prompt_token_ids"], *text[:4]]))
    goes_on = [f"--token-ids={begun}", "--generated=4", *flags]
    assert decodery("generate", "--json", *goes_on).json["completions"][0]["token_ids"] == text[4:]
    assert decodery("generate", "--json", "--best-of=2", *goes_on).status == 0
    rest = decodery("generate", *goes_on).out.removesuffix("\n")
    assert rest
    assert whole["completions"][0]["text"].endswith(rest)


def test_only_the_last_line_end_is_dropped(decodery: Run, model: str) -> None:
    ran = decodery("generate", "--json", *greedy(model), stdin=b"a\n\n")
    assert ran.json["prompt"] == "a\n"


def test_json_is_one_object_with_the_whole_result(decodery: Run, model: str) -> None:
    ran = decodery(
        "generate", "hi", "--json", *greedy(model, 3), "--logprobs=2", "--prompt-logprobs=0", "--seed=5"
    )
    found = ran.json
    (completion,) = found["completions"]
    assert found["prompt"] == "hi"
    assert len(found["prompt_token_ids"]) == 2
    assert len(completion["token_ids"]) == 3
    assert (completion["finish_reason"], completion["stop_reason"], found["seed"]) == ("length", None, 5)
    assert [len(entry["top"]) for entry in completion["logprobs"]] == [2, 2, 2]
    assert [entry["token_id"] for entry in completion["logprobs"]] == completion["token_ids"]
    assert found["prompt_logprobs"][0] is None
    assert found["prompt_logprobs"][1]["token"] == "i"
    assert found["usage"] == {"prompt_tokens": 2, "completion_tokens": 3}
    assert found["timings"]["generate_seconds"] > 0
    assert ran.err == ""


def test_json_and_stream_give_the_same_text(decodery: Run, model: str) -> None:
    flags = ["-m", model, "--seed=3", "--max-tokens=12", *LETTERS]
    text = decodery("generate", "x", "--json", *flags).json["completions"][0]["text"]
    assert decodery("generate", "x", *flags).out == text + "\n"


def test_a_stop_string_is_the_stop_reason(decodery: Run, model: str) -> None:
    text = decodery("generate", "hello", *greedy(model)).out.strip()
    stop = text[3:5]
    (found,) = decodery("generate", "hello", "--json", *greedy(model), "--stop", stop).json["completions"]
    assert found["text"] == text[: text.index(stop)]
    assert (found["finish_reason"], found["stop_reason"]) == ("stop", stop)


def test_an_unset_seed_is_reported_and_repeats(decodery: Run, model: str) -> None:
    flags = ["generate", "x", "-m", model, "--max-tokens=9", *LETTERS]
    first = decodery(*flags, "--stats")
    seed = first.err.rstrip().rpartition("seed ")[2]
    assert decodery(*flags, "--seed", seed).out == first.out
    assert "1 prompt tokens, 9 tokens" in first.err


def test_several_completions_follow_each_other_under_headings(decodery: Run, model: str) -> None:
    flags = ["generate", "x", "-m", model, "--n=3", "--seed=2", "--max-tokens=6", "--ignore-eos", *LETTERS]
    ran = decodery(*flags)
    texts = [completion["text"] for completion in decodery(*flags, "--json").json["completions"]]
    assert ran.out == "".join(text + "\n" for text in texts)
    assert ran.err.splitlines() == ["--- 1 of 3 ---", "--- 2 of 3 ---", "--- 3 of 3 ---"]
    assert len(set(texts)) == 3


def test_later_completions_wait_for_earlier_ones(
    decodery: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_events(
        monkeypatch,
        StreamEvent(1, "b", (1,)),
        StreamEvent(0, "a", (1,)),
        StreamEvent(1, "B\n", (1,), finish_reason="stop"),
        StreamEvent(0, "A", (1,), finish_reason="stop"),
    )
    assert decodery("generate", "x", "-m", model, "--n=2").out == "aA\nbB\n"


def test_chat_wraps_the_prompt_in_the_template(decodery: Run, model: str) -> None:
    found = decodery("generate", "hi", "--chat", "--system", "S", "--json", *greedy(model)).json
    assert (
        LLM(model).tokenizer.decode(found["prompt_token_ids"], skip_special_tokens=False)
        == "S<|user|>hi<|reply|>"
    )


def test_an_interrupt_keeps_what_was_printed(
    decodery: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_events(monkeypatch, StreamEvent(0, "so far", (1,)), KeyboardInterrupt)
    ran = decodery("generate", "x", "-m", model)
    assert (ran.status, ran.out, ran.err) == (130, "so far\n", "")


def test_a_terminal_is_not_sent_control_characters(
    decodery: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    stream_events(monkeypatch, StreamEvent(0, "a\x1b[2J\tb\n", (1,), finish_reason="stop"))
    assert decodery("generate", "x", "-m", model).out == "a\x1b[2J\tb\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert decodery("generate", "x", "-m", model).out == "a\\x1b[2J\tb\n"


def test_beams_are_written_with_their_scores(decodery: Run, model: str) -> None:
    flags = [
        "-m",
        model,
        "--num-beams=3",
        "--num-return-sequences=2",
        "--max-tokens=5",
        "--ignore-eos",
        *LETTERS,
    ]
    found = decodery("generate", "x", "--json", *flags).json["completions"]
    assert len(found) == 2
    assert found[0]["score"] >= found[1]["score"]
    ran = decodery("generate", "x", *flags)
    assert ran.out == "".join(completion["text"] + "\n" for completion in found)
    assert ran.err.splitlines() == ["--- 1 of 2 ---", "--- 2 of 2 ---"]


def test_the_best_of_several_are_written(decodery: Run, model: str) -> None:
    flags = ["-m", model, "--best-of=4", "--n=2", "--seed=3", "--max-tokens=5", "--ignore-eos", *LETTERS]
    texts = [c["text"] for c in decodery("generate", "x", "--json", *flags).json["completions"]]
    assert decodery("generate", "x", *flags).out == "".join(text + "\n" for text in texts)


def test_what_the_model_recommends_holds_unless_a_flag_says_otherwise(decodery: Run, tmp_path: Path) -> None:
    model = write_model(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "top_k": 1, "temperature": 0.7}')
    flags = ["generate", "x", "-m", model, "--max-tokens=5", "--ignore-eos", "--seed=2"]
    greedy = decodery(*flags, "--strategy=greedy", "--json").json["completions"][0]["token_ids"]
    assert decodery(*flags, "--json").json["completions"][0]["token_ids"] == greedy
    free = decodery(*flags, "--top-k=0", "--temperature=3", "--json").json["completions"][0]["token_ids"]
    assert free != greedy


def test_minus_one_means_that_top_k_and_the_seed_are_not_set(decodery: Run, model: str) -> None:
    asked = ("generate", "-m", model, "Once", "--max-tokens", "12")
    assert (
        decodery(*asked, "--temperature", "0", "--top-k", "-1").out
        == decodery(*asked, "--temperature", "0").out
    )
    assert len({decodery(*asked, "--seed", "-1").out for _ in range(3)}) > 1


def test_a_schema_that_cannot_be_followed_is_refused_with_the_flag_that_helps(
    decodery: Run, model: str
) -> None:
    schema = '{"type": "array", "uniqueItems": true}'
    ran = decodery("generate", "x", "-m", model, "--json-schema", schema)
    assert ran.status == 2
    assert "--json-approximate follows a looser schema" in ran.err
    assert "unsupported=" not in ran.err


def test_a_text_that_breaks_its_schema_is_an_error_and_a_format_that_is_not_known_a_warning(
    decodery: Run, model: str
) -> None:
    limits = ("--max-tokens=40", "--seed=1")
    asked = ("generate", "x", "-m", model, *limits, "--json-approximate", "--json-schema")
    item = '{"type": "number", "minimum": 1, "maximum": 1}'
    never = f'{{"type": "array", "items": {item}, "minItems": 2, "maxItems": 2, "uniqueItems": true}}'
    keyword = "the text does not satisfy uniqueItems of the JSON schema"
    for more in ([], ["--json"], ["--best-of=2"], ["--n=2"]):
        ran = decodery(*asked, never, *more)
        assert ran.status == 1
        assert ran.err.splitlines()[-1] == f"decodery: {keyword}"
    ran = decodery(*asked, '{"type": "string", "format": "mongoId", "maxLength": 3}')
    warning = 'warning: the format "mongoId" is not known: it does not restrict the text'
    assert (ran.status, ran.err) == (0, warning + "\n")
