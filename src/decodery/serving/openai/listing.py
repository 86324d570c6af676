"""Answers `/v1/models`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from decodery.serving.models import ServedModel
from decodery.serving.service import Service, json_response


def _card(name: str, opened: Sequence[ServedModel]) -> dict[str, Any]:
    card = {"id": name, "object": "model", "created": 0, "owned_by": "decodery"}
    for model in opened:
        if model.name == name:
            card |= {"created": model.created, "max_model_len": model.llm.model.context_length}
    return card


async def list_models(service: Service, request: Request) -> Response:
    """Answers with all models; those that are not open yet have no length of context."""
    models = service.models
    return json_response({"object": "list", "data": [_card(name, models.opened) for name in models.names]})


async def one_model(service: Service, request: Request) -> Response:
    """Answers with one model."""
    models = service.models
    return json_response(_card(models.check(request.path_params["name"]), models.opened))
