"""Draws a run as a page that opens without a server: what `decodery explain --html` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from decodery.errors import DecoderyError, RequestError
from decodery.pictures.generation_trace import GenerationTrace, TraceCollector
from decodery.pictures.html_page import html_page
from decodery.serving.openai.fields import Fields
from decodery.serving.service import Service
from decodery.wire.trace_lines import ErrorLine, Header, TraceReader

FORMAT, VERSION = "decodery-run", 1
# The line that no trace has: the choices of the text that a branch goes on from.
GIVEN = "given"
# The answer is a file, in whatever way a browser comes by it.
HEADERS = {
    "content-disposition": 'attachment; filename="run.html"',
    "content-security-policy": "sandbox; default-src 'none'",
    "x-content-type-options": "nosniff",
}


async def run_page(service: Service, request: Request) -> Response:
    """Answers `POST /trace/page`: a page of the run in the body."""
    body = await service.read(request)
    fields = Fields(body)
    run = fields.take("run", dict, {})
    fields.close(lenient=service.settings.lenient)
    page = await service.prepare(request, partial(page_of, run), param="run")
    return Response(page, headers={**HEADERS, "content-type": "text/html; charset=utf-8"})


def page_of(run: Mapping[str, Any]) -> str:
    """Returns the page of a run in the form of `run_schema.json`, which holds the run as well.

    A run that was cut has the tokens that it had. Raises `RequestError` if the run is in another form.
    """
    if run.get("format") != FORMAT or run.get("version") != VERSION:
        raise RequestError(f"run must have the format {FORMAT} and the version {VERSION}")
    lines = run.get("lines")
    if not isinstance(lines, list):
        raise RequestError("run.lines must be a list of lines of a trace")
    try:
        trace, given = _trace_of(lines)
        title = run.get("title")
        if not trace.prompt and isinstance(title, str):
            trace.prompt = title + given
        return html_page(trace, json.dumps(run))
    except DecoderyError as error:
        raise RequestError(str(error)) from None
    except (ValueError, LookupError, TypeError, ArithmeticError):
        raise RequestError("the lines of the run do not fit together") from None


def _trace_of(lines: list[Any]) -> tuple[GenerationTrace, str]:
    """Returns the trace of a run of one request, and the text that it goes on from.

    Of one that failed or was cut, the trace has what there was until then.
    """
    reader = TraceReader()
    collector = TraceCollector(reader.tokens)
    failure = None
    for line in lines:
        if isinstance(line, dict) and line.get("kind") == GIVEN:
            continue
        found = reader.take(line)
        if isinstance(found, ErrorLine):
            failure = str(found.error.get("message"))
            break
        if isinstance(found, Header) and (reader.header is not found or len(found.requests) != 1):
            raise RequestError("a run has one request")
        collector.take(found)
    if reader.header is None:
        raise RequestError("a run begins with the header of a trace")
    asked = reader.header.requests[0]
    collector.cut(0, asked.seed, failure)
    return collector.traces[0], f"\n{asked.generated_text}" if asked.generated_text else ""
