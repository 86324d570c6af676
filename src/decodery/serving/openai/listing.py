"""Answers `/v1/models`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from decodery.serving.models import ServedModel
from decodery.serving.service import Service, json_response


def _card(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "decodery",
        "max_model_len": model.llm.model.context_length,
    }


async def list_models(service: Service, request: Request) -> Response:
    """Answers with the models that are open."""
    return json_response({"object": "list", "data": [_card(model) for model in service.models.opened]})


async def one_model(service: Service, request: Request) -> Response:
    """Answers with one model."""
    return json_response(_card(service.models.get(request.path_params["name"])))
