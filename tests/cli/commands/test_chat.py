from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decodery.cli.commands.chat import Session
from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import BeamSearch
from decodery.errors import ParameterError, RequestError
from decodery.llm import LLM
from decodery.outputs import StreamEvent
from tests.cli.conftest import Run


@pytest.fixture
def session(model: str) -> Session:
    flags = GenerationFlags().with_texts({"max_tokens": "4", "temperature": "0", "ignore_eos": True})
    return Session(LLM(model), flags, None)


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes every reply "ok", and returns the list to which the prompt of each reply is added."""
    return replying(monkeypatch, "ok")


def replying(monkeypatch: pytest.MonkeyPatch, *pieces: str | int) -> list[str]:
    """Makes every reply these pieces, of which a number is a signal, and returns the list of prompts."""
    prompts: list[str] = []

    def stream(self: LLM, ids: list[int], params: GenerationParams) -> Iterator[StreamEvent]:
        prompts.append(self.tokenizer.decode(ids, skip_special_tokens=False))
        for piece in pieces:
            if isinstance(piece, int):
                signal.raise_signal(piece)
            else:
                yield StreamEvent(0, piece, (1,))
        yield StreamEvent(0, "", (1,), finish_reason="stop")

    monkeypatch.setattr(LLM, "stream", stream)
    return prompts


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    left = iter(lines)

    def read_line(prompt: str = "") -> str:
        line: Any = next(left, EOFError)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", read_line)


def test_each_piped_line_is_a_message_of_one_conversation(
    decodery: Run, model: str, prompts: list[str]
) -> None:
    ran = decodery("chat", "-m", model, "--system", "S", stdin="hé\n\nyou\n".encode())
    assert (ran.status, ran.out, ran.err) == (0, "ok\nok\n", "")
    assert prompts == ["S<|user|>hé<|reply|>", "S<|user|>hé<|reply|>ok<|user|>you<|reply|>"]


def test_a_real_reply_is_what_the_model_says(decodery: Run, model: str) -> None:
    flags = ["-m", model, "--max-tokens=5", "--temperature=0", "--ignore-eos"]
    ran = decodery("chat", *flags, stdin=b"hello\n")
    params = GenerationParams(max_tokens=5, temperature=0, ignore_eos=True)
    [output] = LLM(model).chat([{"role": "user", "content": "hello"}], params)
    assert ran.out.rstrip("\n") == output.completions[0].text.rstrip("\n")
    assert "(cut short: max_tokens is 5)" in ran.err


def test_reset_forgets_and_system_stays(session: Session, prompts: list[str]) -> None:
    for line in ("/system S", "a", "/reset", "b", "/system", "//c"):
        assert session.handle_line(line)
    assert prompts == [
        "S<|user|>a<|reply|>",
        "S<|user|>b<|reply|>",
        "<|user|>b<|reply|>ok<|user|>/c<|reply|>",
    ]


def test_quit_ends_and_help_lists_all_commands(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert not session.handle_line("/quit")
    assert session.handle_line("/help")
    printed = capsys.readouterr().err
    assert all(command in printed for command in ("/reset", "/system", "/params", "/help", "/quit"))
    with pytest.raises(ParameterError, match="unknown command /nonsense"):
        session.handle_line("/nonsense")


def test_params_are_shown_and_set(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    session.handle_line('/params temperature=0.5 top-k=3 stop="The end" stop=x logit_bias=3=1')
    assert session.params == GenerationParams(
        max_tokens=4, ignore_eos=True, temperature=0.5, top_k=3, stop=("The end", "x"), logit_bias={3: 1.0}
    )
    assert "top_k = 3" in capsys.readouterr().err
    session.handle_line("/params stop= max_tokens=")
    assert (session.params.stop, session.params.max_tokens, session.params.top_k) == ((), 256, 3)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ("top_p=2", "top_p must be"),
        ("top_p", "NAME=VALUE"),
        ("nothing=1", "unknown parameter: nothing"),
        ("nothing=", "unknown parameter: nothing"),
        ("n=2", "n must be 1"),
        ("logprobs=1", "logprobs are not shown"),
        ('stop="open', "quotation"),
    ],
)
def test_wrong_params_change_nothing(session: Session, assignments: str, message: str) -> None:
    before = session.params
    with pytest.raises(ParameterError, match=message):
        session.handle_line(f"/params top_k=9 {assignments}")
    assert session.params is before


def test_an_interrupt_ends_the_reply_and_keeps_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    replying(monkeypatch, "so ", signal.SIGINT, "far", " and on")
    before = signal.getsignal(signal.SIGINT)
    session.reply("a")
    assert session.turns == [("a", "so far")]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_request_leaves_the_engine(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    step = session.llm.engine.step

    def interrupted() -> Any:
        signal.raise_signal(signal.SIGINT)
        return step()

    monkeypatch.setattr(session.llm.engine, "step", interrupted)
    session.reply("a")
    assert not session.llm.engine.has_work()
    session.llm.engine.check_integrity()


def test_a_second_interrupt_is_not_held_back(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    replying(monkeypatch, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        session.reply("a")


def test_the_oldest_turns_are_forgotten_when_the_context_is_full(
    session: Session, prompts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for letter in "abcd":
        session.handle_line(letter * 40)
    # A turn is 40 tokens, two marks and the reply's two; of 128, four are for the next reply.
    assert prompts[1].count("<|user|>") == 2
    assert prompts[2] == f"<|user|>{'b' * 40}<|reply|>ok<|user|>{'c' * 40}<|reply|>"
    assert [message[0] for message, _ in session.turns] == ["c", "d"]
    assert "no longer fits the context: its oldest turn is forgotten" in capsys.readouterr().err


def test_a_message_that_cannot_fit_is_refused_and_nothing_forgotten(
    session: Session, prompts: list[str]
) -> None:
    session.handle_line("a")
    with pytest.raises(RequestError, match="makes a prompt of 202 tokens and the context holds 128"):
        session.handle_line("b" * 200)
    assert session.turns == [("a", "ok")]


def test_a_reply_never_outgrows_the_context(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    session.params = session.params.replace(max_tokens=None)
    session.handle_line("x" * 120)
    assert len(session.turns) == 1
    assert "(cut short: the context is full)" in capsys.readouterr().err


def test_little_memory_is_a_short_context(model: str, prompts: list[str]) -> None:
    llm = LLM(model, dtype="float32", backend="torch", kv_memory=3 * 16 * 256)
    session = Session(llm, GenerationFlags(), None)
    assert session.capacity == 48
    session.handle_line("a" * 30)
    with pytest.raises(RequestError, match="the context holds 48"):
        session.handle_line("a" * 48)


def test_at_the_terminal_errors_are_printed_and_the_conversation_goes_on(
    decodery: Run, model: str, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, "/nonsense", "a\udcff", "hi")
    ran = decodery("chat", "-m", model)
    assert (ran.status, ran.out) == (0, "ok\n\n")
    assert "unknown command /nonsense" in ran.err
    assert "the message is not UTF-8 text" in ran.err
    assert prompts == ["<|user|>hi<|reply|>"]


def test_an_interrupt_before_the_reply_returns_to_the_prompt(
    decodery: Run, model: str, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: LLM, messages: Any) -> list[int]:
        if messages[-1]["content"] == "a":
            signal.raise_signal(signal.SIGINT)
        return self.tokenizer.encode(messages[-1]["content"])

    monkeypatch.setattr(LLM, "chat_prompt", interrupted)
    type_lines(monkeypatch, "a", "b")
    ran = decodery("chat", "-m", model)
    assert ran.status == 0
    assert prompts == ["b"]


def test_a_second_interrupt_at_the_prompt_leaves(
    decodery: Run, model: str, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, KeyboardInterrupt, "a", KeyboardInterrupt, KeyboardInterrupt, "never")
    ran = decodery("chat", "-m", model)
    assert ran.status == 0
    assert prompts == ["<|user|>a<|reply|>"]


def test_a_model_without_a_template_is_refused(decodery: Run, plain_model: str) -> None:
    ran = decodery("chat", "-m", plain_model, stdin=b"hi\n")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("decodery: this model has no chat template")


@pytest.mark.parametrize("flag", ["--n=2", "--logprobs=1", "--prompt-logprobs=0"])
def test_flags_that_a_conversation_cannot_show_are_refused(decodery: Run, flag: str) -> None:
    assert decodery("chat", flag, stdin=b"hi\n").status == 2


def test_a_piped_line_that_is_not_utf8_is_named(decodery: Run, model: str, prompts: list[str]) -> None:
    ran = decodery("chat", "-m", model, stdin=b"hi\n\xff\n")
    assert (ran.status, ran.out) == (1, "ok\n")
    assert "line 2 of the standard input is not UTF-8" in ran.err


def test_params_are_named_as_flags_and_shown_where_they_differ(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session.handle_line("/params num-beams=3 length_penalty=2")
    assert session.params.strategy == BeamSearch(3, 2.0)
    printed = capsys.readouterr().err
    assert "strategy = BeamSearch(num_beams=3" in printed
    assert "top_p" not in printed
    session.handle_line("/params all")
    assert "top_p = 1.0" in capsys.readouterr().err
    session.handle_line("/params strategy=")
    assert session.params == GenerationParams(max_tokens=4, temperature=0, ignore_eos=True)


def test_what_gives_several_completions_is_refused(session: Session) -> None:
    for assignments in ("num_beams=2 num_return_sequences=2", "best_of=3", "n=2"):
        with pytest.raises(ParameterError, match="must be 1 in a conversation"):
            session.handle_line(f"/params {assignments}")


ONE_RULE = "echo has no meaning in a conversation"


def test_echo_is_refused_in_every_conversation_and_offered_only_where_it_can_be_used(
    decodery: Run, model: str, session: Session, tmp_path: Path
) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('[{"type": "function", "function": {"name": "f"}}]')
    for more in ([], ["--json"], ["--tools", str(tools)]):
        ran = decodery("generate", "hi", "-m", model, "--chat", "--echo", *more)
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert ONE_RULE in ran.err
    with pytest.raises(ParameterError, match=ONE_RULE):
        session.handle_line("/params echo=true")
    assert "--echo" in decodery("generate", "--help").out
    for command in ("chat", "infill"):
        assert "--echo" not in decodery(command, "--help").out
        assert decodery(command, "-m", model, "--echo", stdin=b"hi\n").status == 2
