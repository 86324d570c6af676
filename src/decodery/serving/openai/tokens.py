"""Answers the routes about tokens and templates, in the shapes of vLLM and llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from decodery.intake import Intake
from decodery.serving.errors import invalid
from decodery.serving.models import ServedModel
from decodery.serving.openai.chat import check_effort, template_arguments
from decodery.serving.openai.fields import Fields
from decodery.serving.openai.logprobs import token_text
from decodery.serving.service import Service, json_response
from decodery.text.tokenizer.byte_spans import Span
from decodery.text.tokenizer.tokenizer import Tokenizer


async def tokenize(service: Service, request: Request) -> Response:
    """Answers `/tokenize`: the token ids of a text, or of a conversation in the model's template.

    With `inputs` it answers as text-embeddings-inference does.
    """
    body = await service.read(request)
    if "inputs" in body:
        return await _tokenize_inputs(service, request, body)
    fields = Fields(body)
    name = service.models.check(fields.raw("model"))
    texts = fields.take("return_token_strs", bool, False)
    spells = fields.take("return_pieces", bool, False)
    text = fields.raw("prompt")
    if text is None:
        text = fields.raw("content")  # llama.cpp's name
    messages = fields.raw("messages")
    if (text is None) == (messages is None):
        raise invalid("give either a prompt or messages", "prompt")
    template = {} if messages is None else _template(fields)
    special = fields.take("add_special_tokens", bool, True)
    if messages is None and not isinstance(text, str):
        raise invalid("prompt must be a text", "prompt")
    fields.close(lenient=service.settings.lenient)
    with await service.use(request, name, None if messages is None else "decoder") as model:
        tokenizer = model.llm.tokenizer
        work: Callable[[], tuple[list[int], list[Span] | None]]
        if messages is not None:
            check_effort(template, tokenizer.chat_templates, tools="tools" in template)
            work = partial(_conversation_ids, model.llm.intake, messages, template)
        elif spells:
            work = partial(tokenizer.encode_spans, text, add_special_tokens=special)
        else:
            work = partial(_text_ids, tokenizer, text, special=special)
        ids, spans = await service.prepare(request, work, param="messages" if messages else "prompt")
        answer: dict[str, Any] = {
            "count": len(ids),
            "max_model_len": model.context_length,
            "tokens": ids,
        }
        if texts:
            answer["token_strs"] = [token_text(tokenizer, token) for token in ids]
        if spells:
            answer |= pieces_of(tokenizer, ids)
        if spans is not None:
            answer["spans"] = spans
        return json_response(answer)


async def _tokenize_inputs(service: Service, request: Request, body: Mapping[str, Any]) -> Response:
    """Answers with the tokens of each text, and their characters."""
    fields = Fields(body)
    name = service.models.check(fields.raw("model"), "encoder")
    given = fields.raw("inputs")
    special = fields.take("add_special_tokens", bool, True)
    fields.close(lenient=service.settings.lenient)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or any(not isinstance(text, str) for text in texts):
        raise invalid("inputs must be a text or a list of texts, and not empty", "inputs")
    with await service.use(request, name) as model:
        work = partial(_tokens_of, model.llm.tokenizer, texts, special=special)
        return json_response(await service.prepare(request, work, param="inputs"))


def _tokens_of(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool) -> list[list[dict[str, Any]]]:
    found = []
    for text in texts:
        ids, spans = tokenizer.encode_spans(text, add_special_tokens=special)
        # The character at each byte of the text.
        places = [place for place, character in enumerate(text) for _ in character.encode()] + [len(text)]
        tokens = []
        for token, (start, end) in zip(ids, spans, strict=True):
            is_special = token in tokenizer.special_ids
            first, last = places[start], places[end]
            # The space before a word, which is the token's too, is not shown.
            first = last - len(text[first:last].lstrip())
            shown = token_text(tokenizer, token) if is_special else text[first:last]
            place = {"start": None, "stop": None} if is_special else {"start": first, "stop": last}
            tokens.append({"id": token, "text": shown, "special": is_special, **place})
        found.append(tokens)
    return found


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int]) -> dict[str, Any]:
    """Returns the bytes of tokens, in the form of a trace: pairs of an id and hexadecimal, each id once."""
    different = list(dict.fromkeys(ids))
    return {
        "pieces": [(token, tokenizer.token_bytes(token).hex()) for token in different],
        "special": [token for token in different if token in tokenizer.special_ids],
    }


def _template(fields: Fields) -> dict[str, Any]:
    """Takes the arguments of a chat template, tools among them."""
    template = template_arguments(fields)
    # It bounds the reply, of which there is none here.
    template.pop("thinking_token_budget", None)
    tools = fields.take("tools", list, [])
    return {**template, "tools": tools} if tools else template


def _conversation_ids(intake: Intake, messages: Any, template: dict[str, Any]) -> tuple[list[int], None]:
    return intake.chat_prompt(messages, **template), None


def _text_ids(tokenizer: Tokenizer, text: str, *, special: bool) -> tuple[list[int], None]:
    return tokenizer.encode(text, add_special_tokens=special), None


async def detokenize(service: Service, request: Request) -> Response:
    """Answers `/detokenize`: the text of token ids, with special tokens in it."""
    fields = Fields(await service.read(request))
    name = service.models.check(fields.raw("model"))
    tokens = fields.take("tokens", list, [])
    spells = fields.take("return_pieces", bool, False)
    fields.close(lenient=service.settings.lenient)
    with await service.use(request, name) as model:
        tokenizer = model.llm.tokenizer
        size = tokenizer.vocab_size
        if any(type(token) is not int or not 0 <= token < size for token in tokens):
            raise invalid(f"tokens must be token ids from 0 to {size - 1}", "tokens")
        text = tokenizer.decode(tokens, skip_special_tokens=False)
        return json_response(
            {"prompt": text, "content": text, **(pieces_of(tokenizer, tokens) if spells else {})}
        )


async def tokenizer_info(service: Service, request: Request) -> Response:
    """Answers `/tokenizer_info`: what a client needs to know of the tokenizer."""
    with await service.use(request, request.query_params.get("model")) as model:
        return json_response(_info(model))


def _info(model: ServedModel) -> dict[str, Any]:
    tokenizer = model.llm.tokenizer
    ends = sorted(tokenizer.eos_token_ids)
    bos = tokenizer.bos_token_id
    pad = tokenizer.pad_token_id
    return {
        "tokenizer_class": "Decodery",
        "vocab_size": tokenizer.vocab_size,
        "model_max_length": model.context_length,
        "chat_template": tokenizer.chat_template,
        "bos_token": tokenizer.bos_token or None,
        "bos_token_id": bos,
        "eos_token": tokenizer.eos_token or (token_text(tokenizer, ends[0]) if ends else None),
        "eos_token_ids": ends,
        "pad_token": None if pad is None else token_text(tokenizer, pad),
        "add_bos_token": bool(tokenizer.prefix_ids) and tokenizer.prefix_ids[0] == bos,
    }


async def apply_template(service: Service, request: Request) -> Response:
    """Answers `/apply-template`: a conversation in the model's chat template, as text."""
    fields = Fields(await service.read(request))
    name = service.models.check(fields.raw("model"), "decoder")
    messages = fields.raw("messages")
    template = _template(fields)
    fields.close(lenient=service.settings.lenient)
    with await service.use(request, name, "decoder") as model:
        check_effort(template, model.llm.tokenizer.chat_templates, tools="tools" in template)
        work = partial(model.llm.intake.chat_text, messages, **template)
        text = await service.prepare(request, work, param="messages")
        return json_response({"prompt": text})
