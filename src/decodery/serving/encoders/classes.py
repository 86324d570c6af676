"""Answers `/v1/classify`, and `/predict` of text-embeddings-inference: the classes of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from decodery.encoding.results import Classification
from decodery.encoding.tasks.labels import label_names
from decodery.encoding.texts import Long
from decodery.serving.encoders.inputs import (
    check_count,
    long_of,
    places,
    take_cut,
    take_inputs,
    take_truncate,
)
from decodery.serving.encoders.reading_request import Reader, ReadingRequest, listing
from decodery.serving.errors import invalid
from decodery.serving.openai.fields import Fields
from decodery.serving.service import Service
from decodery.serving.settings import RequestLimits, ServerSettings


@dataclass(frozen=True, slots=True)
class ClassRequest:
    """Holds the texts, and pairs of texts, whose classes are asked for.

    `raw`: scores are those of the model, without a softmax or sigmoid. `single`: one input was given, not a
    list.
    """

    inputs: Sequence[str | list[int] | tuple[str, str]]
    long: Long
    raw: bool = False
    single: bool = False

    def classes(self, reader: Reader) -> list[Classification]:
        """Returns the classes of each input. Raises the errors of `LLM.classify`."""
        return reader.classify(list(self.inputs), method="head", long=self.long)

    def scores(self, found: Classification) -> Mapping[str, float]:
        """Returns the scores that are shown, by label, the best first."""
        return found.logits if self.raw else found.scores


def read_classify_request(body: Mapping[str, Any], settings: ServerSettings) -> ClassRequest:
    """Returns what a body of `/v1/classify` asks for. Raises `ApiError`."""
    fields = Fields(body)
    fields.raw("model")
    inputs = take_inputs(fields, "input", settings)
    long = take_cut(fields)
    activates = fields.take("use_activation", bool, True)
    fields.raw("user")
    fields.close(lenient=settings.lenient)
    return ClassRequest(inputs, long, not activates)


def read_predict_request(body: Mapping[str, Any], settings: ServerSettings) -> ClassRequest:
    """Returns what a body of `/predict` asks for. Raises `ApiError`."""
    fields = Fields(body)
    fields.raw("model")
    given = fields.raw("inputs")
    single = isinstance(given, str) or (isinstance(given, list) and bool(given) and isinstance(given[0], str))
    inputs = [_sequence(given, "inputs")] if single else _sequences(given, settings.limits)
    raw = fields.take("raw_scores", bool, False)
    long = long_of(take_truncate(fields))
    fields.close(lenient=settings.lenient)
    return ClassRequest(inputs, long, raw, single)


def _sequences(given: Any, limits: RequestLimits) -> list[str | tuple[str, str]]:
    if not isinstance(given, list) or not given:
        raise invalid(
            "inputs must be a text, a pair of texts, or a list of lists of one text or two", "inputs"
        )
    check_count(given, "inputs", limits)
    for place, item in enumerate(given):
        if not isinstance(item, list):
            raise invalid("each of several inputs must be a list of one text or two", f"inputs[{place}]")
    return [_sequence(item, f"inputs[{place}]") for place, item in enumerate(given)]


def _sequence(given: Any, place: str) -> str | tuple[str, str]:
    """Returns a text, or two that belong together."""
    match given:
        case str(text) | [str(text)]:
            return text
        case [str(first), str(second)]:
            return first, second
    raise invalid(f"{place} must be a text, or a list of one text or two", place)


async def classify(service: Service, request: Request) -> Response:
    """Answers a request of `/v1/classify`."""
    body = await service.read(request)
    with ReadingRequest(service, request, body.get("model")) as active:
        asked = read_classify_request(body, service.settings)
        model = await active.open()

        def write(reader: Reader) -> Any:
            data = []
            for place, found in enumerate(asked.classes(reader)):
                scores = asked.scores(found)
                probs = [scores[label] for label in label_names(reader.encoder, len(scores))]
                data.append({"index": place, "label": found.label, "probs": probs, "num_classes": len(probs)})
            return listing("classify", model, reader, data)

        return await active.answer(model, write, places("input", body["input"]))


async def predict(service: Service, request: Request) -> Response:
    """Answers a request of `/predict`: labels with their scores, the best first."""
    body = await service.read(request)
    with ReadingRequest(service, request, body.get("model")) as active:
        asked = read_predict_request(body, service.settings)
        model = await active.open()

        def write(reader: Reader) -> Any:
            found = [
                [{"score": score, "label": label} for label, score in asked.scores(classes).items()]
                for classes in asked.classes(reader)
            ]
            return found[0] if asked.single else found

        return await active.answer(model, write, places("inputs", body["inputs"]))
