"""Offers the model of a running server behind the calls of `LLM`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from typing import Any

from decodery.client.connection import Connection, api_error
from decodery.client.remote_tokenizer import RemoteTokenizer
from decodery.conversations.prompt_options import COMMON_VARIABLES
from decodery.decoding.request.generated_counts import generated_counts
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.plain import params_from_plain, params_to_plain
from decodery.errors import DecoderyError, ParameterError, RequestError
from decodery.outputs import Observer, RequestOutput, StreamEvent, TextScore
from decodery.shared_scores import continuations, score_separately, score_texts
from decodery.text.chat.tools import read_tools
from decodery.token_ids import listed_prompts, plain
from decodery.wire.trace_lines import EndLine, ErrorLine, EventLine, Line, OutputLine, TextLine, TraceReader

Prompt = str | Sequence[int]


class Client:
    """Asks a running server, and returns what `LLM` returns in the process, token for token.

    `url` is the server's address, such as "http://localhost:8000", and `api_key` one of its keys. `model` is
    a name from its list; without it, its first model answers. `timeout` is the number of seconds of silence
    after which a request fails; None waits for ever. Second models are names that the server offers.

    Raises `DecoderyError` when the server is not there or refuses the client, and the errors of `LLM`.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self._connection = Connection(url, api_key, timeout)
        self._model = model

    @cached_property
    def _description(self) -> Mapping[str, Any]:
        return self._connection.get("/trace", model=self._model)

    def _described(self, name: str, kind: type) -> Any:
        value = self._description.get(name)
        if not isinstance(value, kind):
            raise DecoderyError("the server's description of its model is not understood: is it a Decodery?")
        return value

    @property
    def name(self) -> str:
        """Returns the model's name on the server."""
        found: str = self._described("model", str)
        return found

    @property
    def capacity(self) -> int:
        """Returns how many tokens a prompt and its text may have together."""
        found: int = self._described("capacity", int)
        return found

    @property
    def has_chat_template(self) -> bool:
        """True if the model can render conversations."""
        found: bool = self._described("has_chat_template", bool)
        return found

    @cached_property
    def default_params(self) -> GenerationParams:
        """Returns the parameters that the model's checkpoint recommends."""
        return params_from_plain(self._described("default_params", dict), models=None)

    @cached_property
    def tokenizer(self) -> RemoteTokenizer:
        """Returns the model's tokenizer, as far as a client needs it."""
        return RemoteTokenizer(self._connection, self._model, self._described("vocab_size", int))

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
        """Returns the token ids of a conversation in the model's chat template, as `LLM.chat_prompt` does.

        `chat_template` is the name of one of the model's templates.
        """
        variables = {name: template.pop(name) for name in COMMON_VARIABLES if name in template}
        body = {"messages": list(messages), **template}
        body["chat_template_kwargs"] = {**body.pop("template_kwargs", {}), **variables}
        if "tools" in body:
            body["tools"] = [dict(tool.declaration) for tool in read_tools(body["tools"])]
        return self.tokenizer.ids(body)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: GenerationParams | Sequence[GenerationParams] | None = None,
        *,
        generated: int | Sequence[int] = 0,
        observer: Observer | None = None,
        candidates: int = 10,
        progress: bool | None = None,
        cache_salt: str | None = None,
    ) -> list[RequestOutput]:
        """Returns one output for each prompt, in their order, as `LLM.generate` does.

        The events that the `observer` gets number the requests from 0. No bar is drawn, whatever `progress`
        says.
        """
        listed = listed_prompts(prompts)
        each = _one_each(params, len(listed), self.default_params)
        counts = generated_counts(generated, len(listed))
        options = {} if observer is None else {"candidates": candidates}
        outputs: dict[int, RequestOutput] = {}
        with closing(self._lines(listed, each, counts, cache_salt, options)) as lines:
            for line in lines:
                if isinstance(line, EventLine) and observer is not None:
                    observer(line.event)
                elif isinstance(line, OutputLine):
                    outputs[line.request] = line.output
        if sorted(outputs) != list(range(len(listed))):
            raise DecoderyError("the server's answer lacks an output")
        return [outputs[place] for place in range(len(listed))]

    def stream(
        self,
        prompt: Prompt,
        params: GenerationParams | None = None,
        *,
        generated: int = 0,
        observer: Observer | None = None,
        candidates: int = 10,
        cache_salt: str | None = None,
    ) -> Generator[StreamEvent, None, None]:
        """Returns a generator of what each step adds to the completions, as `LLM.stream` does.

        Closing it closes the connection, and the server drops the request.
        """
        options: dict[str, Any] = {"texts": True}
        if observer is not None:
            options["candidates"] = candidates
        each, counts = [params or self.default_params], generated_counts(generated, 1)
        lines = self._lines([prompt], each, counts, cache_salt, options)
        events = self._stream(lines, observer)
        # Runs to the first yield, which is not an event: then the server has taken the request, or it raises.
        next(events)
        return events

    def _stream(
        self, lines: Generator[Line, None, None], observer: Observer | None
    ) -> Generator[StreamEvent, None, None]:
        with closing(lines):
            next(lines)
            yield StreamEvent(0, "", ())
            invalid = False
            for line in lines:
                if isinstance(line, TextLine):
                    invalid |= line.event.finish_reason == "invalid"
                    yield line.event
                elif isinstance(line, EventLine) and observer is not None:
                    observer(line.event)
                elif isinstance(line, OutputLine) and line.output.error is not None and not invalid:
                    raise RequestError(line.output.error)

    def score(
        self,
        texts: Prompt | Sequence[Prompt],
        *,
        prefix: Prompt | None = None,
        cache_salt: str | None = None,
    ) -> list[TextScore]:
        """Returns the log-probability of every token of each text, as `LLM.score` does.

        The server computes a `prefix` once. Without one, each text is computed for itself.
        """
        generate = partial(self.generate, cache_salt=cache_salt)
        if prefix is None:
            return score_separately(listed_prompts(texts), generate)
        return score_texts(continuations(listed_prompts(texts), prefix, self._token_ids), generate)

    def _token_ids(self, prompt: Any, *, add_special_tokens: bool = True) -> list[int]:
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt, add_special_tokens=add_special_tokens)
        return list(map(plain, plain(prompt)))

    def _lines(
        self,
        prompts: Sequence[Prompt],
        params: Sequence[GenerationParams],
        counts: Sequence[int],
        cache_salt: str | None,
        options: Mapping[str, Any],
    ) -> Generator[Line, None, None]:
        """Yields the lines of a trace up to the last. Raises the error with which it ends."""
        requests = [
            {
                "prompt": prompt if isinstance(prompt, str) else list(map(plain, plain(prompt))),
                "params": params_to_plain(param, self.default_params),
                **({"generated": count} if count else {}),
            }
            for prompt, param, count in zip(prompts, params, counts, strict=True)
        ]
        body: dict[str, Any] = {"requests": requests, **options}
        if self._model is not None:
            body["model"] = self._model
        if cache_salt is not None:
            body["cache_salt"] = cache_salt
        reader = TraceReader(self.tokenizer)
        with closing(self._connection.lines("/trace", body)) as found:
            yield from _checked(reader, found)


def _checked(reader: TraceReader, texts: Iterator[bytes]) -> Iterator[Line]:
    for text in texts:
        line = reader.read(text)
        if isinstance(line, ErrorLine):
            raise api_error(line.error)
        if isinstance(line, EndLine):
            return
        yield line
    raise DecoderyError("the server ended its answer too early: is it stopping?")


def _one_each(
    params: GenerationParams | Sequence[GenerationParams] | None, count: int, default: GenerationParams
) -> list[GenerationParams]:
    if params is None or isinstance(params, GenerationParams):
        return [params or default] * count
    if len(params) != count:
        raise ParameterError(f"there are {count} prompts and {len(params)} params: give one, or one for each")
    return list(params)
