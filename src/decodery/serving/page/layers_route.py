"""Answers `/trace/layers`: what each layer of a model computes for the last token of a text.

`docs/layers.md` describes the request and the answer.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from decodery.errors import DecoderyError
from decodery.lens.layer_views import LayerViews
from decodery.llm import LLM
from decodery.serving.errors import api_error, invalid
from decodery.serving.generation import while_there
from decodery.serving.openai.fields import Fields
from decodery.serving.openai.tokens import pieces_of
from decodery.serving.service import ActiveRequest, Service, json_response
from decodery.serving.settings import ServerSettings

# The pass runs between two steps, and takes as long as a step of so many tokens.
MOST_TOKENS = 512
MOST_CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """Holds what a client asks: a text or token ids, and the layer (from 1) whose attention it gets.

    `layer` is None for the last one.
    """

    prompt: str | list[int]
    layer: int | None
    candidates: int


def read_layers_request(body: Mapping[str, Any], settings: ServerSettings) -> Asked:
    """Returns the request that a body describes. Raises `ApiError`."""
    fields = Fields(body)
    fields.raw("model")
    prompt = fields.raw("prompt")
    layer = fields.take("layer", int, 0)
    given = "layer" in body and body["layer"] is not None
    candidates = fields.take("candidates", int, 5)
    fields.close(lenient=settings.lenient)
    ids = isinstance(prompt, list) and all(type(token) is int for token in prompt)
    if not prompt or not (isinstance(prompt, str) or ids):
        raise invalid("a prompt must be a text or token ids, and not empty", "prompt")
    if given and layer < 1:
        raise invalid("layer counts from 1", "layer")
    if not 0 < candidates <= MOST_CANDIDATES:
        raise invalid(f"candidates must be from 1 to {MOST_CANDIDATES}", "candidates")
    return Asked(prompt, layer if given else None, candidates)


async def layers(service: Service, request: Request) -> Response:
    """Answers `POST /trace/layers`."""
    body = await service.read(request)
    asked = read_layers_request(body, service.settings)
    with ActiveRequest(service, request, body.get("model")) as active:
        model = await active.open()
        llm = model.llm
        depth = llm.model.depth
        layer = asked.layer or depth
        if layer > depth:
            raise invalid(f"the model has {depth} layers", "layer")
        ids = await active.prepare(partial(llm.intake.token_ids, asked.prompt), param="prompt")
        most = min(MOST_TOKENS, service.settings.limits.prompt_tokens or MOST_TOKENS)
        if len(ids) > most:
            raise invalid(f"a text has at most {most} tokens here, and this one has {len(ids)}", "prompt")
        try:
            views = await while_there(request.receive, _views(service, llm, ids, asked.candidates))
        except DecoderyError as error:
            raise api_error(error, "prompt") from None
        return json_response({"model": model.name, **_answer(views, layer, llm)})


async def _views(service: Service, llm: LLM, ids: Sequence[int], candidates: int) -> LayerViews:
    """Returns the views, from a pass between two steps; one at a time, so that texts go on in between."""
    async with service.layer_passes:
        return await service.worker.call(partial(llm.layer_views, ids, candidates=candidates))


def _answer(views: LayerViews, layer: int, llm: LLM) -> dict[str, Any]:
    attention = views.layers[layer - 1].attention
    predicted = [views.embedding, *(view.predicted for view in views.layers)]
    named = [*views.token_ids, *(token for tokens in predicted for token, _ in tokens)]
    return {
        "layers": len(views.layers),
        "layer": layer,
        "tokens": views.token_ids,
        "heads": len(attention),
        "attention": base64.b64encode(attention.astype("<f4").tobytes()).decode(),
        "predicted": predicted,
        **pieces_of(llm.tokenizer, named),
    }
