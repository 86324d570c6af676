from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decodery import (
    LLM,
    BeamSearch,
    Choice,
    DecoderyError,
    GenerationParams,
    JsonSchema,
    ParameterError,
    RequestError,
    RequestOutput,
)
from decodery.client.client import Client
from decodery.decoding.event import Event
from decodery.decoding.request.plain import params_to_plain
from tests.combinations import features
from tests.mixed import random_request
from tests.serving.live import LiveServer, serving

HEAVY = {"torch", "numpy", "llguidance", "transformers", "tokenizers", "jinja2", "starlette", "safetensors"}
MODULES = (
    "decodery.client.client",
    "decodery.outputs",
    "decodery.wire.trace_lines",
    "decodery.pictures.html_page",
    "decodery.pictures.svg_picture",
    "decodery.cli.main",
    "decodery.cli.commands.generate",
    "decodery.cli.commands.chat",
    "decodery.cli.commands.score",
    "decodery.cli.commands.explain",
    "decodery.cli.commands.compare",
)


def test_what_a_client_imports_is_light() -> None:
    code = f"import {', '.join(MODULES)}, sys; print(*{HEAVY!r} & sys.modules.keys())"
    source = str(Path(__file__).parents[2] / "src")
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": source}
    )
    assert ran.stdout.split() == []


def plain(params: GenerationParams) -> bool:
    try:
        params_to_plain(params)
    except ParameterError:
        return False
    second = (getattr(params.strategy, "amateur", None), getattr(params.speculate, "model", None))
    return second == (None, None) and params.max_time is None


def same(found: RequestOutput, expected: RequestOutput) -> bool:
    """True if the outputs are equal but for the state of the prefix cache."""
    return replace(found, cached_tokens=0) == replace(expected, cached_tokens=0)


def test_random_requests_give_what_the_library_gives(client: Client, library: LLM) -> None:
    source = random.Random(1)
    listed = features("no second model")
    checked = 0
    while checked < 40:
        prompt, params = random_request(source, listed)
        if not plain(params):
            continue
        try:
            [expected] = library.generate(prompt, params)
        except DecoderyError:
            with pytest.raises(DecoderyError):
                client.generate(prompt, params)
            continue
        [found] = client.generate(prompt, params)
        assert same(found, expected), params
        if expected.error is None:
            texts = {c.index: "" for c in expected.completions}
            for event in client.stream(prompt, params):
                texts[event.index] += event.text
            assert texts == {c.index: c.text for c in expected.completions}
        checked += 1


def test_events_are_those_of_the_library(client: Client, library: LLM) -> None:
    for params in (
        GenerationParams(max_tokens=5, seed=1, top_k=9, logprobs=2, n=2, speculate=None),
        GenerationParams(max_tokens=5, seed=1, strategy=BeamSearch(num_beams=3)),
        GenerationParams(max_tokens=8, seed=1, grammar=Choice(("yes", "no")), speculate=None),
    ):
        seen: dict[str, list[Event]] = {"client": [], "library": []}
        client.generate("abab", params, observer=seen["client"].append, candidates=4)
        library.generate("abab", params, observer=seen["library"].append, candidates=4)
        plain_events = [
            [replace(event, request=0, times=None, cached_tokens=0) for event in events]
            for events in seen.values()
        ]
        assert plain_events[0] == plain_events[1]
        assert plain_events[0]


def test_a_text_goes_on_from_its_ids_as_in_the_library(client: Client, library: LLM) -> None:
    params = GenerationParams(max_tokens=12, temperature=0.9, seed=3, presence_penalty=0.7, ignore_eos=True)
    [whole] = library.generate("Once", params)
    text = whole.completions[0].token_ids
    prompts = [[*whole.prompt_token_ids, *text[:count]] for count in (5, 0)]
    outputs = client.generate(prompts, params, generated=[5, 0])
    assert [output.completions[0].token_ids for output in outputs] == [text[5:], text]
    events = list(client.stream(prompts[0], params, generated=5))
    assert [token for event in events for token in event.token_ids] == text[5:]
    for wrong in (-1, True, [1, 2]):
        with pytest.raises(ParameterError, match="generated"):
            client.generate(prompts[0], params, generated=wrong)


def test_scores_prompts_and_defaults_are_the_librarys(client: Client, library: LLM) -> None:
    assert client.score(["some text", [1, 2, 3]]) == library.score(["some text", [1, 2, 3]])
    for prefix in ("a prefix of more than a page", list(range(40)), [3]):
        texts = ["one", [1, 2, 3], " é"]
        assert client.score(texts, prefix=prefix) == library.score(texts, prefix=prefix)
    messages = [{"role": "user", "content": "Hi"}]
    assert client.chat_prompt(messages) == library.chat_prompt(messages)
    assert client.tokenizer.encode("Hé") == library.tokenizer.encode("Hé")
    assert client.default_params == library.default_params
    assert client.capacity == library.capacity
    assert client.has_chat_template
    assert client.name == "tiny"


def test_one_of_several_requests_is_refused_alone(client: Client, library: LLM) -> None:
    params = [
        GenerationParams(max_tokens=4, temperature=0),
        GenerationParams(max_tokens=4, stop_token_ids=(10**6,)),
        GenerationParams(max_tokens=4),
        GenerationParams(max_tokens=4, temperature=0, n=2),
    ]
    prompts = ["Hello", "Hello", "x" * 600, "Hello"]
    found = client.generate(prompts, params)
    expected = library.generate(prompts, params)
    assert [o.error is None for o in expected] == [True, False, False, True]
    assert [o.error is None for o in found] == [o.error is None for o in expected]
    assert found[0].completions == expected[0].completions
    assert found[3].completions == expected[3].completions
    assert found[1].error == expected[1].error


def test_wrong_requests_raise_what_the_library_raises(client: Client, library: LLM) -> None:
    wrong: list[tuple[Any, GenerationParams]] = [
        ("x" * 600, GenerationParams(max_tokens=1)),
        ("x", GenerationParams(stop_token_ids=(10**6,))),
        ([10**6], GenerationParams()),
        ("x", GenerationParams(top_k=10**6)),
    ]
    for prompt, params in wrong:
        kinds = []
        for llm in (client, library):
            with pytest.raises(DecoderyError) as caught:
                llm.generate(prompt, params)
            kinds.append(type(caught.value))
            with pytest.raises(type(caught.value)):
                llm.stream(prompt, params)
        assert kinds[0] is kinds[1], (prompt, params)
    with pytest.raises(ParameterError, match="function"):
        client.generate("x", GenerationParams(stop_when=lambda ids: True))
    with pytest.raises(ParameterError, match="2 prompts"):
        client.generate(["x", "y"], [GenerationParams()])


def test_a_stream_that_is_closed_is_dropped_by_the_server(server: LiveServer, client: Client) -> None:
    events = client.stream("Hello", GenerationParams(max_tokens=400, ignore_eos=True))
    next(events)
    assert not server.is_idle()
    events.close()
    server.settle()


def test_threads_share_a_client(client: Client, library: LLM) -> None:
    outputs: dict[int, RequestOutput] = {}

    def work(seed: int) -> None:
        params = GenerationParams(max_tokens=20, seed=seed)
        [outputs[seed]] = client.generate("Hello", params)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, found in outputs.items():
        [expected] = library.generate("Hello", GenerationParams(max_tokens=20, seed=seed))
        assert same(found, expected)
    assert len(outputs) == 6


def test_the_whole_vocabulary_of_one_position_can_be_asked_for(client: Client, library: LLM) -> None:
    size = library.tokenizer.vocab_size
    for llm in (client, library):
        seen: list[Event] = []
        params = GenerationParams(max_tokens=1, temperature=0)
        llm.generate("Hello", params, observer=seen.append, candidates=size)
        [considered] = seen[0].considered
        assert len(considered.candidates) == size
        assert considered.tail == 0
    with pytest.raises(ParameterError, match="candidates"):
        client.generate("Hello", GenerationParams(max_tokens=2), observer=seen.append, candidates=1001)


@contextmanager
def answering(answer: bytes | Callable[[bytes], bytes]) -> Iterator[str]:
    """Serves the same bytes to each request, then closes; yields the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    request = connection.recv(65536)
                    connection.sendall(answer(request) if callable(answer) else answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


MODEL = b'{"version":1,"model":"m","vocab_size":9,"capacity":9,"has_chat_template":true,"default_params":{}}'


def described(lines: bytes) -> Callable[[bytes], bytes]:
    """Returns what answers a description to GET, and these lines to POST."""
    return lambda request: http(MODEL if request.startswith(b"GET") else lines)


STRANGE: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "broke"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "broke"),
    "a page": (http(b"<html>", "404 Not Found"), "is it a Decodery server"),
    "a page with 200": (http(b"<html>"), "is it a Decodery server"),
    "another server": (http(b'{"model": 5}'), "is it a Decodery"),
    "a list": (http(b"[1]"), "is it a Decodery server"),
    "a body that is cut": (http(b"{}", "200 OK").replace(b"Length: 2", b"Length: 9"), "broke"),
    "an error of another kind": (http(b'{"error": "no"}', "500 Internal"), "answered 500"),
    "a wrong key": (
        http(b'{"error": {"message": "a valid key is missing"}}', "401 Unauthorized"),
        "DECODERY_API_KEY",
    ),
    "a full queue": (
        http(b'{"error": {"message": "256 wait"}}', "429 Too Many", "Retry-After: 7"),
        "busy: 256 wait; try again in 7 s",
    ),
    "a redirection": (http(b"", "302 Found", "Location: http://localhost/"), "answered 302"),
    "no line at all": (described(b""), "too early"),
    "a line that is none": (described(b"data: 5\n\n"), "cannot be read"),
    "an error in the stream": (
        described(b'data: {"kind":"error","error":{"message":"it failed"}}\n\n'),
        "it failed",
    ),
    "a stream without its end": (described(b': ping\ndata: {"kind":"tokens","tokens":[]}\n\n'), "too early"),
    "an end without output": (described(b'data: {"kind":"end"}\n\n'), "lacks an output"),
}


@pytest.mark.parametrize(("answer", "words"), STRANGE.values(), ids=STRANGE)
def test_strange_servers_are_errors_of_one_line(answer: Any, words: str) -> None:
    with answering(answer) as url, pytest.raises(DecoderyError) as caught:
        Client(url, timeout=5).generate("x", GenerationParams(max_tokens=1))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_server_that_is_silent_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(DecoderyError, match="silent"):
            Client(url, timeout=0.1).generate("x")


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DecoderyError, match="no server answers at"):
        Client(f"http://127.0.0.1:{port}").generate("x")
    with pytest.raises(DecoderyError, match="no server answers at"):
        Client("http://nowhere.invalid").generate("x")


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000", "ftp://a", "http://", "http://a:b", "http://a:99999", "http://u:p@a"),
        *("http://a/?q=1", "http://a b", "http://a\r\nX: y", "http://[::1", "unix:/tmp/socket"),
    ],
)
def test_addresses_that_are_none_are_errors(url: str) -> None:
    with pytest.raises(ParameterError, match="address"):
        Client(url)


@pytest.mark.parametrize("key", ["a b", "é", "a\r\nX: y", "a\n"])
def test_keys_that_no_header_can_hold_are_errors(key: str) -> None:
    with pytest.raises(ParameterError, match="key"):
        Client("http://localhost", key)


def test_a_key_lets_in(folder: str) -> None:
    from tests.serving.conftest import open_tiny

    with serving(open_tiny(folder), keys=("secret",)) as server:
        params = GenerationParams(max_tokens=2, temperature=0)
        assert Client(server.url, "secret").generate("x", params)[0].completions
        for key in (None, "wrong"):
            with pytest.raises(RequestError, match="key"):
                Client(server.url, key).generate("x", params)


def test_an_unknown_model_is_an_error_that_names_those_there_are(server: LiveServer) -> None:
    with pytest.raises(DecoderyError, match="there is tiny"):
        Client(server.url, model="other").generate("x")
    assert Client(server.url, model="tiny").generate("x", GenerationParams(max_tokens=1))


def test_invalid_texts_and_warnings_are_those_of_the_library(client: Client, library: LLM) -> None:
    item = {"type": "number", "minimum": 1, "maximum": 2, "multipleOf": 1}
    pairs = {"type": "array", "items": item, "minItems": 2, "maxItems": 2, "uniqueItems": True}
    never = {**pairs, "items": {**item, "maximum": 1}}
    unknown = {"type": "string", "format": "mongoId", "maxLength": 3}
    for schema in (pairs, never, unknown):
        for counts in ({"n": 4}, {"n": 2, "best_of": 4}):
            grammar = JsonSchema(schema, "approximate")
            params = GenerationParams(grammar=grammar, seed=1, max_tokens=30, speculate=None, **counts)
            [expected] = library.generate("x", params)
            [found] = client.generate("x", params)
            assert same(found, expected)
            assert list(client.stream("x", params)) == list(library.stream("x", params))
