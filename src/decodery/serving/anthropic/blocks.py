"""Reads the messages of Anthropic's API, whose contents are texts or lists of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from decodery.serving.errors import invalid
from decodery.serving.openai.origins import ORIGIN

# A client's line with a new number in each request: in the prompt it would keep the prefix cache from hits.
_BILLING = "x-anthropic-billing-header:"


def system_text(given: Any) -> str:
    """Returns the system prompt, a text or text blocks, without the client's line for its bill."""
    if given is None:
        return ""
    texts = [given] if isinstance(given, str) else _texts(given, "system")
    return "\n".join(text for text in map(_without_bill, texts) if text)


def _without_bill(text: str) -> str:
    if not text.startswith(_BILLING):
        return text
    return text.partition("\n")[2]


def chat_messages(given: Any) -> list[dict[str, Any]]:
    """Returns messages in the form of chat completions, each with its origin.

    Raises `ApiError` with the place of a fault.
    """
    if not isinstance(given, list) or not given:
        raise invalid("messages are needed: a list of objects with role and content", "messages")
    found: list[dict[str, Any]] = []
    for number, message in enumerate(given):
        place = f"messages[{number}]"
        if not isinstance(message, dict) or "content" not in message:
            raise invalid("a message must be an object with role and content", place)
        content = message["content"]
        blocks = _blocks(content, f"{place}.content")
        match message.get("role"):
            case "user":
                found += _of_user(blocks, place)
            case "assistant":
                found.append(_of_model(blocks, place))
            case "system":
                text = "\n".join(_texts(content, f"{place}.content"))
                found.append({"role": "system", "content": text, ORIGIN: {"": place}})
            case _:
                raise invalid("role must be user or assistant", f"{place}.role")
    return found


def _blocks(content: Any, place: str) -> list[Mapping[str, Any]]:
    """Returns the blocks of a content; a text is one block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise invalid("content must be a text or a list of blocks", place)
    return content


def _texts(content: Any, place: str) -> list[str]:
    """Returns the texts of text blocks."""
    return [_plain(block, f"{place}[{number}]") for number, block in enumerate(_blocks(content, place))]


def _plain(block: Mapping[str, Any], place: str) -> str:
    if block.get("type") != "text":
        raise invalid("only text is understood here, no images or documents", f"{place}.type")
    return _text(block, "text", place)


def _text(block: Mapping[str, Any], name: str, place: str) -> str:
    text = block.get(name)
    if not isinstance(text, str):
        raise invalid(f"{name} must be a text", f"{place}.{name}")
    return text


def _of_user(blocks: list[Mapping[str, Any]], place: str) -> list[dict[str, Any]]:
    """Returns the results of tools as messages of their own, and the texts as one message after them."""
    results: list[dict[str, Any]] = []
    texts: list[str] = []
    for number, block in enumerate(blocks):
        inner = f"{place}.content[{number}]"
        if block.get("type") == "tool_result":
            results.append(_result(block, inner))
        else:
            texts.append(_plain(block, inner))
    said = {"role": "user", "content": "\n".join(texts), ORIGIN: {"": place}}
    return [*results, said] if texts or not results else results


def _result(block: Mapping[str, Any], place: str) -> dict[str, Any]:
    content = block.get("content")
    text = "" if content is None else "\n".join(_texts(content, f"{place}.content"))
    if block.get("is_error") is True:
        text = f"Error: {text}" if text else "Error"
    origin = {"": place, ".tool_call_id": f"{place}.tool_use_id"}
    return {
        "role": "tool",
        "tool_call_id": _text(block, "tool_use_id", place),
        "content": text,
        ORIGIN: origin,
    }


def _of_model(blocks: list[Mapping[str, Any]], place: str) -> dict[str, Any]:
    """Returns a message of the model: text, reasoning and calls."""
    message: dict[str, Any] = {
        "role": "assistant",
        ORIGIN: {"": place, ".reasoning_content": f"{place}.content"},
    }
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        inner = f"{place}.content[{number}]"
        match block.get("type"):
            case "text":
                texts.append(_text(block, "text", inner))
            case "thinking":
                message["reasoning_content"] = message.get("reasoning_content", "") + _text(
                    block, "thinking", inner
                )
            case "redacted_thinking":
                pass
            case "tool_use":
                call = f".tool_calls[{len(calls)}]"
                message[ORIGIN] |= {call: inner, f"{call}.function": inner, f"{call}.id": f"{inner}.id"}
                message[ORIGIN][f"{call}.function.arguments"] = f"{inner}.input"
                calls.append(_call(block, inner))
            case _:
                raise invalid("a block must be text, thinking or tool_use", f"{inner}.type")
    message["content"] = "".join(texts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Mapping[str, Any], place: str) -> dict[str, Any]:
    arguments = block.get("input", {})
    if not isinstance(arguments, dict):
        raise invalid("input must be an object", f"{place}.input")
    function = {"name": _text(block, "name", place), "arguments": arguments}
    return {"id": _text(block, "id", place), "type": "function", "function": function}
