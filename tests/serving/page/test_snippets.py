"""Tests that the code that the page writes gives a run's bytes again: each snippet is run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.serving.models import ModelSource
from decodery.serving.settings import ServerSettings
from tests.cli.conftest import Run, decodery, write_model  # noqa: F401  (a fixture)
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer

KEY = "secret-of-the-test"
SETTINGS: dict[str, Any] = {"dtype": "float32", "kv_memory": "16MB"}
SCHEMA = '{"type": "object", "properties": {"it\'s": {"enum": ["a\\"b", 1]}}, "required": ["it\'s"]}'
HOSTILE = 'it\'s "$HOME" `id` $(id) \\n \\ !! #; & | < > * ? ~ % é 😀 \t \u200b\u202e end'
# The prompt and the parameters of each run.
CASES: Mapping[str, tuple[str | list[int], dict[str, Any]]] = {
    "greedy": ("Once upon a time", {"temperature": 0}),
    "temperature": ("Once upon a time", {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.01}),
    "several completions": ("Hello", {"n": 3, "temperature": 1.3}),
    "the best of several": ("Hello", {"n": 2, "best_of": 4, "logprobs": 2}),
    "beams": (
        "Once",
        {
            "strategy": {
                "type": "beam_search",
                "num_beams": 3,
                "num_return_sequences": 2,
                "early_stopping": True,
            }
        },
    ),
    "sampled beams": ("Once", {"strategy": {"type": "beam_search", "num_beams": 2, "sample": True}}),
    "forced words": (
        "Once",
        {"strategy": {"type": "beam_search", "num_beams": 3, "force_words": ["it's", ["a b", "c=d"]]}},
    ),
    "stochastic beams": ("Once", {"strategy": {"type": "stochastic_beam_search", "num_beams": 3}}),
    "contrastive search": ("Once", {"strategy": {"type": "contrastive_search", "top_k": 3}}),
    "layers": ("Once", {"strategy": {"type": "dola", "layers": [0, 1]}}),
    "a second model": (
        "Once",
        {"strategy": {"type": "contrastive_decoding", "amateur": "small", "beta": 0.7}, "temperature": 0},
    ),
    "a regex": ("Once", {"grammar": {"type": "regex", "pattern": "[a-c' \"]{4}\\$!"}}),
    "choices": ("Once", {"grammar": {"type": "choice", "options": ["it's", "a\nb", "-c", "é"]}}),
    "a schema": ("Once", {"grammar": {"type": "json_schema", "schema": SCHEMA}}),
    "any object": ("Once", {"grammar": {"type": "json_object"}}),
    "lark": ("Once", {"grammar": {"type": "lark", "grammar": 'start: "it\'s" | "b"\n'}}),
    "gbnf": ("Once", {"grammar": {"type": "gbnf", "grammar": 'root ::= ("a" | "b\\n")+ "."'}}),
    "stops": ("Once", {"stop": ["\n", "it's", "--"], "include_stop": True}),
    "a stopping regex": ("Once", {"stop_regex": "[0-9]'"}),
    "penalties": (
        "Once",
        {
            "repetition_penalty": 1.2,
            "presence_penalty": -0.5,
            "frequency_penalty": 0.25,
            "dry_multiplier": 0.8,
        },
    ),
    "biases": (
        "Once",
        {
            "logit_bias": {"70": "-inf", "71": 2.5, "72": -1},
            "sequence_bias": [["it's =", -2], ["b", 1.5]],
            "bad_words": ["th", "'"],
        },
    ),
    "lists of tokens": (
        "Once",
        {"allowed_token_ids": [65, 66, 67, 68], "begin_suppress_tokens": [65], "stop_token_ids": [68]},
    ),
    "a falling length": ("Once", {"exponential_decay_length_penalty": [2, 1.5], "ignore_eos": True}),
    "guidance": ("Once", {"guidance_scale": 1.5, "negative_prompt": "it's\nbad", "penalize_prompt": False}),
    "a watermark": ("Once", {"watermark": {"type": "watermark", "bias": 3.5, "seeding_scheme": "selfhash"}}),
    "an order of processors": (
        "Once",
        {"processor_order": list(reversed(DEFAULT_ORDER)), "temperature": 2, "top_p": 0.5},
    ),
    "lookup": ("abababab", {"speculate": {"type": "prompt_lookup", "max_ngram": 2}, "temperature": 0}),
    "drafts of the engine": ("abababab", {"speculate": "auto"}),
    "no speculation": ("Once", {"speculate": "none"}),
    "as long as the context": ("Once", {"max_tokens": None, "temperature": 0, "logit_bias": {"90": 100}}),
    "longer than the context": ("Once", {"max_tokens": 5000, "temperature": 0, "logit_bias": {"90": 100}}),
    "an echo": ("Once\n", {"echo": True}),
    "unicode": ("日本語 é 👩‍👩‍👧 \u202eabc", {"temperature": 0.5}),
    "quotes": (HOSTILE, {"temperature": 0.5}),
    "a prompt like a flag": ("--help", {}),
    "a prompt like an option": ("-", {}),
    "a prompt with a byte order mark": ("\ufeffa", {}),
    "a prompt with NUL": ("a\x00b", {}),
    "line ends": ("a\r\nb\n\n", {}),
    "a long prompt": ("a'b\n" * 15, {}),
    "token ids": ([1, 2, 3, 258], {"temperature": 0.7}),
    "a seed below 0": ("Once", {"seed": -5}),
    "defaults of the model": ("Once", {"temperature": 1, "top_k": 0, "repetition_penalty": None}),
}
# The parameters of the texts of which branches are made, and which of several completions.
BRANCHES: Mapping[str, tuple[str, dict[str, Any], int | None]] = {
    "a branch": ("Once", {"temperature": 0.9, "presence_penalty": 0.8}, None),
    "a greedy branch": ("é b", {"temperature": 0, "frequency_penalty": 0.5}, None),
    "a branch of the first completion": ("Once", {"n": 3, "temperature": 1.2}, 0),
    "a branch of a later completion": (
        "Once",
        {"n": 2, "best_of": 3, "temperature": 1.2, "seed": -5, "ignore_eos": True},
        2,
    ),
    "a branch in a grammar": ("Once", {"grammar": {"type": "regex", "pattern": "[!-~]{40}"}}, None),
}
# What a command line cannot say, and the words of the reason.
NOT_BY_COMMAND = {
    "phrases of ids": ({"bad_words": [[65, 66]]}, "bad_words holds token ids"),
    "biased ids": ({"sequence_bias": [[[65, 66], 1.5]]}, "sequence_bias holds token ids"),
    "forced ids": (
        {"strategy": {"type": "beam_search", "num_beams": 2, "force_words": [[65, 66]]}},
        "force_words holds token ids",
    ),
    "forced bars": ({"strategy": {"type": "beam_search", "num_beams": 2, "force_words": ["a|b"]}}, '"|"'),
    "NUL": ({"stop": ["a\x00"]}, "a character that a command line cannot"),
}

# Reads the lines of runs, and returns their snippets; an error as {error}.
WRITTEN = """async ([runs, place]) => {
  const { Run, RunReader } = await import("/assets/core/run.js");
  const snippets = await import("/assets/core/snippets.js");
  const found = {};
  for (const [name, lines] of Object.entries(runs)) {
    const run = new Run();
    const reader = new RunReader([run]);
    for (const line of lines) reader.feed(JSON.parse(line));
    found[name] = {};
    for (const form of ["curl", "python", "cli"]) {
      try {
        found[name][form] = snippets[form](run, place);
      } catch (error) {
        if (!(error instanceof (await import("/assets/core/snippet_texts.js")).SnippetError)) throw error;
        found[name][form] = { error: error.message };
      }
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a folder with a model of a short context."""
    return write_model(tmp_path_factory.mktemp('it\'s a "model"'), context=192)


@pytest.fixture(scope="module")
def keyed(folder: str) -> Iterator[LiveServer]:
    """Returns a server that asks for a key, of a model with defaults of its own and a second model."""
    llm = open_tiny(folder, second_models={"small": folder})
    llm.default_params = llm.default_params.replace(temperature=0.6, top_k=20, repetition_penalty=1.1)
    told = {**SETTINGS, "model": folder, "second_models": {"small": folder}}
    source = ModelSource("tiny", lambda: llm, arguments=told)
    server = LiveServer(llm, ServerSettings(keys=(KEY,)), [source])
    server.client.headers["authorization"] = f"Bearer {KEY}"
    yield server
    server.close()


def lines_of(
    server: LiveServer, prompt: str | list[int], params: Mapping[str, Any], **more: Any
) -> list[str]:
    """Returns the lines of a run as the page asks for it."""
    request = {"prompt": prompt, "params": {"max_tokens": 12, "seed": 11, **params}, **more}
    body = {"requests": [request], "candidates": 2}
    with server.client.stream("POST", "/trace", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        return [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]


@pytest.fixture(scope="module")
def runs(keyed: LiveServer) -> dict[str, list[str]]:
    """Returns the lines of all runs, by name."""
    cases = {**CASES, **{name: ("Once", params) for name, (params, _) in NOT_BY_COMMAND.items()}}
    found = {name: lines_of(keyed, prompt, params) for name, (prompt, params) in cases.items()}
    for name, (prompt, params, stream) in BRANCHES.items():
        found[name] = branch_of(keyed, lines_of(keyed, prompt, params), params, stream)
    return found


def branch_of(
    server: LiveServer, lines: list[str], params: Mapping[str, Any], stream: int | None
) -> list[str]:
    """Returns the lines of a branch: after five tokens of a completion the next one is another."""
    [asked] = json.loads(lines[0])["requests"]
    kept = completions_of(lines)[0]["token_ids"][:5]
    kept.append(67 if kept[-1] != 67 else 68)
    begun = {"generated": len(kept), "stream": stream}
    return lines_of(server, [*asked["prompt_token_ids"], *kept], params, **begun)


@pytest.fixture(scope="module")
def written(browser: Any, keyed: LiveServer, runs: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Returns the snippets of all runs, as the page writes them."""
    page = browser.new_page()
    page.goto(f"{keyed.url}/#key={KEY}")
    described = keyed.client.get("/trace").json()
    place = {"address": keyed.url, "keyed": True, "described": described}
    found: dict[str, dict[str, Any]] = page.evaluate(WRITTEN, [runs, place])
    page.close()
    return found


def completions_of(lines: list[str]) -> list[dict[str, Any]]:
    """Returns the completions that a trace's output tells."""
    [output] = [line["output"] for line in map(json.loads, lines) if line["kind"] == "output"]
    assert "error" not in output, output
    found: list[dict[str, Any]] = output["completions"]
    return found


def ids_of(completions: list[dict[str, Any]]) -> list[list[int]]:
    return [one["token_ids"] for one in completions]


def texts_of(completions: list[dict[str, Any]]) -> list[str]:
    return [one["text"] for one in completions]


# These run by default, the others with the long tests of the page.
SHORT = (
    *("greedy", "temperature", "several completions", "forced words", "a schema", "gbnf", "stops", "biases"),
    *("guidance", "as long as the context", "quotes", "a prompt like an option", "line ends", "token ids"),
    "defaults of the model",
)


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name in SHORT else pytest.mark.page) for name in (*CASES, *BRANCHES)
    ]
)
def case(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def bash(code: str, *, shell: str = "bash", **environment: str) -> bytes:
    """Returns what a shell writes for a code."""
    ran = subprocess.run(
        [shell, "-c", code], capture_output=True, env={**os.environ, **environment}, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert ran.stderr == b""
    return ran.stdout


@pytest.mark.page
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_command_for_curl_gives_the_bytes_again(
    written: dict[str, dict[str, Any]], runs: dict[str, list[str]], case: str
) -> None:
    code, expected = written[case]["curl"], completions_of(runs[case])
    assert KEY not in code
    out = bash(code, DECODERY_KEY=KEY).decode()
    if "/trace" in code:
        found = [line[6:] for line in out.splitlines() if line.startswith("data: ")]
        assert ids_of(completions_of(found)) == ids_of(expected)
    else:
        assert texts_of(json.loads(out)["choices"]) == texts_of(expected)
        # The same request with the ids, which people seldom want.
        with_ids = code.replace('{\n  "model"', '{\n  "return_token_ids": true,\n  "model"', 1)
        choices = json.loads(bash(with_ids, DECODERY_KEY=KEY))["choices"]
        assert ids_of(choices) == ids_of(expected)


@pytest.mark.page
def test_the_program_in_python_gives_the_bytes_again(
    written: dict[str, dict[str, Any]], runs: dict[str, list[str]], case: str
) -> None:
    expected = completions_of(runs[case])
    out, names = io.StringIO(), {"__name__": "__main__"}
    with contextlib.redirect_stdout(out):
        exec(compile(written[case]["python"], "snippet", "exec"), names)
    output: Any = names["output"]
    assert [c.token_ids for c in output.completions] == ids_of(expected)
    assert out.getvalue() == "".join(text + "\n" for text in texts_of(expected))


# Stands for the command: writes its arguments, with the contents of the files that the shell made.
STAND_IN = """#!{python}
import json, sys
words = [open(w, newline="").read() if w.startswith(("/dev/fd/", "/proc/")) else None for w in sys.argv]
json.dump([[w, t] for w, t in zip(sys.argv[1:], words[1:])], sys.stdout)
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a folder with a command of the name `decodery`."""
    file = tmp_path_factory.mktemp("bin") / "decodery"
    file.write_text(STAND_IN.format(python=sys.executable))
    file.chmod(0o755)
    return str(file.parent)


def words_of(code: str, stand_in: str, tmp_path: Path, shell: str = "bash") -> list[str]:
    """Returns the arguments that a shell makes of a command; files are copied."""
    out = bash(code, shell=shell, PATH=f"{stand_in}:{os.environ['PATH']}")
    words = []
    for place, (word, text) in enumerate(json.loads(out)):
        if text is not None:
            word = str(tmp_path / str(place))
            Path(word).write_text(text, newline="")
        words.append(word)
    return words


@pytest.mark.page
def test_the_command_line_gives_the_bytes_again(
    written: dict[str, dict[str, Any]],
    runs: dict[str, list[str]],
    case: str,
    stand_in: str,
    tmp_path: Path,
    decodery: Run,  # noqa: F811
) -> None:
    code, expected = written[case]["cli"], completions_of(runs[case])
    assert isinstance(code, str), code
    words = words_of(code, stand_in, tmp_path)
    if shutil.which("zsh") is not None:
        assert words_of(code, stand_in, tmp_path, "zsh") == words
    ran = decodery(words[0], "--json", *words[1:])
    assert ran.status == 0, ran.err
    assert ids_of(ran.json["completions"]) == ids_of(expected)
    ran = decodery(*words)
    assert ran.out == "".join(text + ("" if text.endswith("\n") else "\n") for text in texts_of(expected))


@pytest.mark.page
@pytest.mark.parametrize("name", NOT_BY_COMMAND)
def test_what_a_command_line_cannot_say_is_told_and_the_other_forms_say_it(
    written: dict[str, dict[str, Any]], runs: dict[str, list[str]], name: str
) -> None:
    assert NOT_BY_COMMAND[name][1] in written[name]["cli"]["error"]
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(written[name]["python"], "snippet", "exec"), names)
    assert [c.token_ids for c in names["output"].completions] == ids_of(completions_of(runs[name]))


@pytest.mark.page
def test_snippets_show_every_character(written: dict[str, dict[str, Any]]) -> None:
    for found in written.values():
        for code in found.values():
            if isinstance(code, str):
                assert all(c == "\n" or c.isprintable() for c in code)


@pytest.mark.page
def test_a_snippet_is_short_where_little_was_asked(written: dict[str, dict[str, Any]], folder: str) -> None:
    found = written["greedy"]
    words = shlex.split(found["cli"].replace("\\\n", ""))
    assert words[:2] == ["decodery", "generate"]
    assert words[-2:] == ["--", "Once upon a time"]
    assert found["python"].startswith(
        f"from decodery import LLM, GenerationParams\n\nllm = LLM({json.dumps(folder)}, "
    )
