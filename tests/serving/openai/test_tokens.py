"""Checks the routes about tokens and templates."""

from __future__ import annotations

from typing import Any

import pytest

from decodery import LLM
from tests.serving.live import LiveServer

MESSAGES = [{"role": "user", "content": "Hi"}]


def test_tokens_of_a_text_are_the_librarys_and_come_back_as_the_text(
    server: LiveServer, library: LLM
) -> None:
    for text in ("Hello", "naïve 😀", " a\n", "<|end|>", "x" * 1000):
        found = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
        assert found["tokens"] == library.tokenizer.encode(text)
        assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
        assert found["max_model_len"] == library.model.context_length
        assert server.post("/detokenize", {"tokens": found["tokens"]}).json()["prompt"] == text


def test_pieces_and_spans_of_a_text_are_the_bytes_of_its_tokens(server: LiveServer, library: LLM) -> None:
    family = "👨\N{ZERO WIDTH JOINER}👩\N{ZERO WIDTH JOINER}👧"
    for text in (f"a {family} 🇩🇪 b", "<|end|><script>\N{RIGHT-TO-LEFT OVERRIDE}", "x" * 10_000, ""):
        found = server.post("/tokenize", {"prompt": text, "return_pieces": True}).json()
        assert found["tokens"] == library.tokenizer.encode(text)
        pieces = {token: bytes.fromhex(data) for token, data in found["pieces"]}
        assert len(pieces) == len(found["pieces"]) == len(set(found["tokens"]))
        assert all(library.tokenizer.token_bytes(token) == data for token, data in pieces.items())
        assert set(found["special"]) == set(pieces) & library.tokenizer.special_ids
        data = text.encode()
        held = [data[start:end] for start, end in found["spans"]]
        assert held == [pieces[token] for token in found["tokens"]]
        assert b"".join(held) == data


def test_pieces_come_for_conversations_and_ids_too_and_only_where_they_are_asked_for(
    server: LiveServer, library: LLM
) -> None:
    asked = {"messages": MESSAGES, "return_pieces": True}
    found = server.post("/tokenize", asked).json()
    assert "spans" not in found
    data = dict(found["pieces"])
    assert "".join(bytes.fromhex(data[i]).decode() for i in found["tokens"]) == "<|user|>Hi<|reply|>"
    half = [library.tokenizer.encode("😀")[0]]
    found = server.post("/detokenize", {"tokens": half, "return_pieces": True}).json()
    assert found == {"prompt": "\ufffd", "content": "\ufffd", "pieces": [[half[0], "f0"]], "special": []}
    assert "pieces" not in server.post("/tokenize", {"prompt": "Hi"}).json()
    assert "pieces" not in server.post("/detokenize", {"tokens": half}).json()


def test_a_conversation_has_the_same_tokens_on_every_route(server: LiveServer, library: LLM) -> None:
    expected = library.chat_prompt(MESSAGES)
    assert server.post("/tokenize", {"messages": MESSAGES}).json()["tokens"] == expected
    text = server.post("/apply-template", {"messages": MESSAGES}).json()["prompt"]
    assert (
        server.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"] == expected
    )
    chat = server.post("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1}).json()
    assert chat["usage"]["prompt_tokens"] == len(expected)


@pytest.mark.parametrize("path", ["/tokenize", "/apply-template", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "name",
    ["messages", "chat_template", "tools", "self", "params", "bos_token", "special_in_content", "a b"],
)
def test_variables_of_a_template_cannot_have_names_of_arguments(
    server: LiveServer, path: str, name: str
) -> None:
    body = {"messages": MESSAGES, "chat_template_kwargs": {name: "{{ 1 }}"}}
    answer = server.post(path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == f"chat_template_kwargs.{name}"


@pytest.mark.parametrize("path", ["/tokenize", "/apply-template"])
def test_options_among_the_variables_are_the_fields_of_their_names(server: LiveServer, path: str) -> None:
    told = [*MESSAGES, {"role": "assistant", "content": "x"}]
    for messages, options in (
        (MESSAGES, {"add_generation_prompt": False}),
        (told, {"continue_final_message": True}),
        (told, {"continue_final_message": True, "add_generation_prompt": False}),
    ):
        field = server.post(path, {"messages": messages, **options})
        variable = server.post(path, {"messages": messages, "chat_template_kwargs": options})
        assert (field.status_code, variable.json()) == (200, field.json())
        assert variable.json() != server.post(path, {"messages": messages}).json()
    for name in ("add_generation_prompt", "continue_final_message"):
        for value, more in (("a", {}), (None, {}), (True, {name: False})):
            body = {"messages": told, "chat_template_kwargs": {name: value}, **more}
            answer = server.post(path, body)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == f"chat_template_kwargs.{name}"


@pytest.mark.parametrize("path", ["/tokenize", "/apply-template"])
def test_other_variables_go_to_the_template(server: LiveServer, path: str) -> None:
    body = {"messages": MESSAGES, "chat_template_kwargs": {"enable_thinking": True}}
    assert server.post(path, body).status_code == 200


@pytest.mark.parametrize("path", ["/tokenize", "/apply-template", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"reasoning_effort": 5}, "reasoning_effort"),
        ({"thinking_token_budget": -1}, "thinking_token_budget"),
        ({"thinking_token_budget": "a"}, "thinking_token_budget"),
        ({"add_special_tokens": True}, "add_special_tokens"),
        ({"continue_final_message": "a"}, "continue_final_message"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
    ],
)
def test_what_a_conversation_may_not_have_is_the_same_on_every_route(
    server: LiveServer, path: str, body: dict[str, Any], param: str
) -> None:
    answer = server.post(path, {"messages": MESSAGES, **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("path", ["/tokenize", "/apply-template", "/v1/chat/completions"])
def test_what_changes_no_prompt_is_accepted_on_every_route(server: LiveServer, path: str) -> None:
    body = {"reasoning_effort": "none", "thinking_token_budget": 3, "add_special_tokens": False}
    assert server.post(path, {"messages": MESSAGES, **body}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}),
        ("/tokenize", {"prompt": ["a"]}),
        ("/tokenize", {"prompt": 3}),
        ("/tokenize", {"prompt": "a", "wrong": 1}),
        ("/tokenize", {"messages": []}),
        ("/tokenize", {"messages": "a"}),
        ("/tokenize", {"messages": [{"content": "a"}]}),
        ("/apply-template", {}),
        ("/apply-template", {"messages": [3]}),
        ("/apply-template", {"messages": [{"role": "user"}]}),
        ("/detokenize", {"tokens": [1, -1]}),
        ("/detokenize", {"tokens": [259]}),
        ("/detokenize", {"tokens": [1.0]}),
        ("/detokenize", {"tokens": [True]}),
        ("/detokenize", {"tokens": "a"}),
        ("/detokenize", {"tokens": [1], "return_pieces": 1}),
        ("/tokenize", {"prompt": "a", "return_pieces": "yes"}),
    ],
)
def test_wrong_requests_are_a_400(server: LiveServer, path: str, body: Any) -> None:
    assert server.post(path, body).status_code == 400


def test_no_tokens_are_no_text(server: LiveServer) -> None:
    assert server.post("/detokenize", {"tokens": []}).json()["prompt"] == ""
    assert server.post("/tokenize", {"prompt": ""}).json()["tokens"] == []


def test_what_lm_eval_asks_of_a_tokenizer_is_there(server: LiveServer) -> None:
    found = server.client.get("/tokenizer_info").json()
    assert found["eos_token"] == "<|end|>"
    assert "bos_token" in found
    assert found["chat_template"]
    assert server.client.get("/tokenizer_info", params={"model": "other"}).status_code == 404
