"""Answers `/v1/models`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from decodery.serving.models import Models
from decodery.serving.service import Service, json_response


def _card(name: str, models: Models) -> dict[str, Any]:
    card: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": "decodery"}
    if (kind := models.kind(name)) is not None:
        card["kind"] = kind
    for model in models.opened:
        if model.name == name:
            card |= {"created": model.created, "max_model_len": model.context_length}
            if model.kind == "encoder":
                card["routes"] = list(model.reading_routes)
    return card


async def list_models(service: Service, request: Request) -> Response:
    """Answers with all models; those that are not open yet have no length of context."""
    models = service.models
    return json_response({"object": "list", "data": [_card(name, models) for name in models.names]})


async def one_model(service: Service, request: Request) -> Response:
    """Answers with one model."""
    models = service.models
    return json_response(_card(models.check(request.path_params["name"]), models))
