"""Checks what the server does with bodies that are too large, too deep, too slow, or no JSON."""

from __future__ import annotations

import gzip
import json
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from decodery import LLM
from decodery.serving.bodies import parse_object
from decodery.serving.errors import ApiError
from decodery.serving.settings import RequestLimits
from tests.serving.live import LiveServer, Raw, raw_request, serving

POSTS = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/apply-template")
LIMITS = RequestLimits(body=100_000, unpacked=300_000, depth=16, body_seconds=0.3)
PROMPT = b'{"prompt": "a", "max_tokens": 1}'


@pytest.fixture(scope="module")
def strict(served_llm: LLM) -> Iterator[LiveServer]:
    """Returns a server with small limits on bodies."""
    with serving(served_llm, LIMITS) as found:
        yield found


def send(
    server: LiveServer,
    body: bytes,
    *lines: str,
    path: str = "/v1/completions",
    kind: str = "application/json",
) -> Raw:
    head = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{server.port}", f"content-length: {len(body)}"]
    head += [f"content-type: {kind}"] if kind else []
    return raw_request(server.port, [line.encode() for line in (*head, *lines)], body)


def error_of(answer: Raw, status: int) -> dict[str, Any]:
    assert answer.status == status, answer.body
    assert len(answer.body) <= 4096
    found: dict[str, Any] = json.loads(answer.body)["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert found["message"]
    assert found["type"]
    assert "Traceback" not in found["message"]
    return found


def works(server: LiveServer) -> None:
    assert send(server, PROMPT).status == 200


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"],
)
def test_a_body_that_is_not_declared_as_json_is_refused_before_it_is_read(
    strict: LiveServer, path: str, kind: str
) -> None:
    head = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{strict.port}", "content-length: 50000"]
    head += [f"content-type: {kind}"] if kind else []
    began = time.monotonic()
    error_of(raw_request(strict.port, [line.encode() for line in head]), 415)
    assert time.monotonic() - began < LIMITS.body_seconds


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_json_is_declared_in_any_case_and_with_parameters(strict: LiveServer, kind: str) -> None:
    assert send(strict, PROMPT, kind=kind).status == 200


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b"[]", b"null", b"3", b'"a"', b"{'prompt': 1}", b'{"prompt": "a",}', b"\xff\xfe",
     b"\x00", b'{"prompt": "\xff"}', b'{"a": 1} {"b": 2}', b'{"prompt": "a\nb"}', b'{"prompt": tru}',
     b"{" * 3, b"}"],
)  # fmt: skip
def test_what_is_no_json_object_is_a_400(strict: LiveServer, body: bytes) -> None:
    error_of(send(strict, body), 400)
    works(strict)


def test_a_byte_order_mark_is_let_through(strict: LiveServer) -> None:
    assert send(strict, b"\xef\xbb\xbf" + PROMPT).status == 200


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400 + ".0"]
)
@pytest.mark.parametrize("place", ["temperature", "unknown", "stream_options", "logit_bias"])
@pytest.mark.parametrize("stream", ["true", "false"])
def test_numbers_that_json_lacks_are_a_400(strict: LiveServer, number: str, place: str, stream: str) -> None:
    body = f'{{"prompt": "a", "stream": {stream}, "{place}": {{"1": [{number}]}}}}'
    error_of(send(strict, body.encode()), 400)
    body = f'{{"prompt": "a", "stream": {stream}, "{place}": {number}}}'
    error_of(send(strict, body.encode()), 400)


def test_an_endless_whole_number_is_a_400_and_costs_no_time(strict: LiveServer) -> None:
    digits = "9" * 90_000
    began = time.monotonic()
    for body in (f'{{"prompt": "a", "seed": {digits}}}', f'{{"prompt": [{digits}]}}', f'{{"n": {digits}}}'):
        found = error_of(send(strict, body.encode()), 400)
        assert "999" not in found["message"]
    assert time.monotonic() - began < 5
    for digits in ("9" * 30, "-" + "9" * 30, "9" * 4000):
        for field in (
            "seed",
            "n",
            "max_tokens",
            "top_k",
            "logprobs",
            "priority",
            "min_tokens",
            "temperature",
        ):
            answer = send(strict, f'{{"prompt": "a", "{field}": {digits}}}'.encode())
            # A count above all there are asks for all of them.
            if answer.status != 200 or field not in ("seed", "top_k", "priority"):
                assert "99999" not in error_of(answer, 400)["message"], field
        error_of(send(strict, f'{{"prompt": [1, {digits}]}}'.encode()), 400)
        error_of(send(strict, f'{{"prompt": "a", "logit_bias": {{"{digits}": 1}}}}'.encode()), 400)
        error_of(send(strict, f'{{"prompt": "a", "stop_token_ids": [{digits}]}}'.encode()), 400)
    works(strict)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (r'{"prompt": "a\ud800"}', "prompt"),
        (r'{"prompt": ["a", "\udfff b"]}', "prompt[1]"),
        (r'{"prompt": "a", "stop": ["b", "\udc00"], "stream": true}', "stop[1]"),
        (r'{"prompt": "a", "stream_options": {"include_usage": "\ud800"}}', "stream_options.include_usage"),
        (r'{"prompt": "a", "user": "\ud83dx"}', "user"),
    ],
)
def test_a_lone_surrogate_is_a_400_with_its_place(strict: LiveServer, body: str, param: str) -> None:
    assert error_of(send(strict, body.encode()), 400)["param"] == param
    assert error_of(send(strict, rb'{"\ud800": 1}'), 400)


def test_a_surrogate_pair_is_a_character(strict: LiveServer) -> None:
    assert send(strict, rb'{"prompt": "\ud83d\ude00", "max_tokens": 1}').status == 200


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


@pytest.mark.parametrize("place", ["prompt", "messages", "tools", "unknown", "response_format", "user"])
@pytest.mark.parametrize("depth", [17, 1000, 20_000])
def test_a_deep_body_is_a_400_wherever_it_is_deep(strict: LiveServer, place: str, depth: int) -> None:
    lists = f'{{"prompt": "a", "{place}": {nested(depth)}}}'
    levels = min(depth, 9000)
    objects = f'{{"prompt": "a", "{place}": ' + '{"a":' * levels + "1" + "}" * levels + "}"
    for path in POSTS:
        error_of(send(strict, lists.encode(), path=path), 400)
        error_of(send(strict, objects.encode(), path=path), 400)
    unclosed = f'{{"prompt": "a", "{place}": {"[" * depth}'
    error_of(send(strict, unclosed.encode()), 400)
    works(strict)


def test_brackets_in_texts_are_not_depth() -> None:
    for text in ("[" * 100, '\\"' + "[" * 100, "\\\\", '{"a":' * 100, "\\u005b" * 50):
        body = json.dumps({"prompt": text}).encode()
        assert parse_object(body, 4) == {"prompt": text}
    with pytest.raises(ApiError, match="deeper"):
        parse_object(rb'{"a\\": [[[[' + b"1]]]]}", 4)


def test_depth_is_checked_fast_on_every_text() -> None:
    for data in (b'"' * 2_000_001, b'\\"' * 1_000_000, b'"' + b"\\" * 2_000_001, b'["\\' * 500_000):
        began = time.process_time()
        with pytest.raises(ApiError):
            parse_object(data, 16)
        assert time.process_time() - began < 2


def test_a_body_of_a_million_lists_is_refused_before_they_are_made() -> None:
    for data in (b'{"a": [' + b"[]," * 100_000 + b"[]]}", b'{"a": [' + b'{"a":1},' * 100_000 + b"1]}"):
        with pytest.raises(ApiError, match="lists and objects"):
            parse_object(data, 16)


def test_a_large_body_is_a_413_by_its_declared_length_and_by_its_true_one(strict: LiveServer) -> None:
    big = b'{"prompt": "' + b"a" * 100_000 + b'"}'
    error_of(send(strict, big), 413)
    head = [b"POST /v1/completions HTTP/1.1", f"host: 127.0.0.1:{strict.port}".encode()]
    head += [b"content-type: application/json", b"transfer-encoding: chunked"]
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(big[i : i + 5000]), big[i : i + 5000]) for i in range(0, 100_014, 5000)
    )
    error_of(raw_request(strict.port, head, chunks + b"0\r\n\r\n"), 413)
    works(strict)


def test_a_chunked_body_is_a_body(strict: LiveServer) -> None:
    head = [b"POST /v1/completions HTTP/1.1", f"host: 127.0.0.1:{strict.port}".encode()]
    head += [b"content-type: application/json", b"transfer-encoding: chunked"]
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in PROMPT)
    assert raw_request(strict.port, head, chunks + b"0\r\n\r\n").status == 200


@pytest.mark.parametrize("packed", [gzip.compress(PROMPT), zlib.compress(PROMPT)], ids=["gzip", "deflate"])
def test_a_packed_body_is_read(strict: LiveServer, packed: bytes) -> None:
    encoding = "gzip" if packed[:2] == b"\x1f\x8b" else "deflate"
    assert send(strict, packed, f"content-encoding: {encoding}").status == 200
    error_of(send(strict, packed[:-3], f"content-encoding: {encoding}"), 400)
    error_of(send(strict, packed + b"x", f"content-encoding: {encoding}"), 400)
    error_of(send(strict, b"x" + packed, f"content-encoding: {encoding}"), 400)
    for other in ("br", "zstd", "gzip, gzip", "gzip gzip", "compress"):
        error_of(send(strict, packed, f"content-encoding: {other}"), 415)


def memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_gzip_bomb_takes_no_memory(strict: LiveServer) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    bomb = b"".join(packer.compress(zeros) for _ in range(90)) + packer.flush()
    assert len(bomb) < LIMITS.body
    before = memory()
    for _ in range(3):
        error_of(send(strict, bomb, "content-encoding: gzip"), 413)
    assert memory() - before < 20 << 20
    works(strict)


def test_a_slow_sender_is_a_408_and_others_are_served_meanwhile(strict: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), 10) as slow:
        head = f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{strict.port}\r\n"
        slow.sendall(f"{head}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{".encode())
        works(strict)
        began = time.monotonic()
        first = slow.recv(65536)
        assert first.split()[1] == b"408"
        assert time.monotonic() - began < 2
        # The rest of its body is not another request.
        slow.settimeout(3)
        try:
            slow.sendall(b" " * 100 + b"GET /health HTTP/1.1\r\n\r\n")
            while part := slow.recv(65536):
                first += part
        except (ConnectionError, TimeoutError):
            pass
        assert b'"ok"' not in first


def test_slow_senders_keep_nobody_out(strict: LiveServer) -> None:
    head = f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{strict.port}\r\n"
    head += "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    slow = [socket.create_connection(("127.0.0.1", strict.port), 10) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(head.encode())
        began = time.monotonic()
        works(strict)
        assert time.monotonic() - began < 2
    finally:
        for connection in slow:
            connection.close()


def test_a_body_wrong_in_many_places_gets_a_short_answer_without_its_values(strict: LiveServer) -> None:
    secret = "SECRET-VALUE"
    bodies = [
        {f"{secret}{i}": {"a": secret} for i in range(2000)},
        {"prompt": [[secret]] * 5000},
        {"prompt": "a", "stop": [[secret]] * 5000},
        {"prompt": "a", "logit_bias": {f"{secret}{i}": secret for i in range(2000)}},
        {"prompt": "a", "stop_token_ids": [secret] * 5000},
        {"prompt": "a", "bad_words": [{"a": secret}] * 3000},
        {"prompt": "a", "response_format": {secret: secret * 3000}},
        {"prompt": "a", "structured_outputs": {f"x{i}": secret for i in range(2000)}},
        {"prompt": "a", "stream_options": {secret * 100: 1}, "stream": True},
        {"prompt": "a", "strategy": {"type": secret * 1000}},
        {"prompt": "a", "strategy": {"type": "beam_search", "num_beams": secret}},
        {"prompt": "a", "strategy": secret * 1000},
        {"prompt": "a", "grammar": {"type": secret * 1000}},
        {"prompt": "a", "temperature": secret * 1000},
        {"prompt": "a", "seed": [secret] * 1000},
        {"prompt": "a", "model": secret * 1000},
        {"prompt": "a", secret * 1000: 1},
        {"prompt": {"a": secret}},
        {"tokens": [secret] * 5000},
        {"messages": [{"role": secret * 100, "content": [secret]}] * 200},
    ]
    for body in bodies:
        data = json.dumps(body).encode()
        if len(data) > LIMITS.body:
            data = gzip.compress(data)
        packed = () if data[:1] == b"{" else ("content-encoding: gzip",)
        for path in POSTS:
            answer = send(strict, data, *packed, path=path)
            assert answer.status in (400, 404), (path, answer.body[:500])
            found = error_of(answer, answer.status)
            assert secret not in found["message"].replace(str(found["param"]), ""), (path, found)
    works(strict)


def test_a_key_that_is_given_twice_is_no_way_past_the_checks(strict: LiveServer) -> None:
    body = b'{"prompt": "a", "max_tokens": 1, "temprature": 0, "max_tokens": 2, "temprature": null}'
    assert send(strict, body).status in (200, 400)
    error_of(send(strict, b'{"prompt": "a", "n": 1, "n": "x"}'), 400)
