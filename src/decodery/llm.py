"""The facade: a model with its tokenizer and engine, in a few calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from decodery.decoding.params import GenerationParams
from decodery.engine.engine import Engine
from decodery.engine.limits import Limits
from decodery.engine.pages import pages_for
from decodery.errors import ParameterError, RequestError
from decodery.kernels import PAGE_SIZE
from decodery.kernels.select import backend_named
from decodery.models.registry import CausalModel, load_for_inference
from decodery.outputs import Collector, Observer, RequestOutput, StreamEvent, TextScore
from decodery.settings import available_memory, dtype_named, memory_size
from decodery.text.chat import render_chat
from decodery.text.detokenizer import start
from decodery.text.tokenizer import Tokenizer
from decodery.weights.checkpoint import Checkpoint, open_checkpoint
from decodery.weights.sources import Progress, resolve

Prompt = str | Sequence[int]
Message = Mapping[str, Any]


class LLM:
    """A model ready to generate.

    `model` is a folder, a .gguf file, a hub id, or None for the default model. `dtype` is "float32",
    "bfloat16" or "auto" (what the machine computes fastest with these weights); `backend` is "reference",
    "native" (compiled kernels on the CPU, activations in float32) or "auto". `context_length` bounds prompt
    and text together (default: the model's own). `kv_memory` is the size of the key/value cache in bytes, or
    such as "512MB" (default: a quarter of the memory that is available, at most eight full contexts).
    `threads` sets torch's for the whole process. `token_budget` bounds the tokens that one step runs. Raises
    `ModelError` when the model cannot be found or read and `ParameterError` for an absurd setting.
    Not for several threads at once.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        dtype: str = "auto",
        backend: str = "auto",
        context_length: int | None = None,
        kv_memory: int | str | None = None,
        threads: int | None = None,
        revision: str | None = None,
        token: str | None = None,
        token_budget: int = 512,
        max_sequences: int = 256,
        prefix_cache: bool = True,
        progress: Progress | None = None,
    ) -> None:
        sizes = {"context_length": context_length, "threads": threads}
        for name, value in {**sizes, "token_budget": token_budget, "max_sequences": max_sequences}.items():
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ParameterError(f"{name} must be a whole number from 1 on, not {value!r}")
        if model is not None and not isinstance(model, (str, Path)):
            raise ParameterError(f"model must be a path or a name, not {type(model).__name__}")
        if threads is not None:
            torch.set_num_threads(threads)
        kernels = backend_named(backend)
        with open_checkpoint(resolve(model, revision=revision, token=token, progress=progress)) as checkpoint:
            self.tokenizer = _tokenizer(checkpoint)
            self.model = load_for_inference(
                checkpoint,
                dtype=dtype_named("float32" if backend == "native" else dtype, checkpoint),
                kernels=kernels,
                context_length=context_length,
            )
        # A model may have more rows than its vocabulary has tokens; these stand for no text.
        self.tokenizer.cover(self.model.vocab_size)
        limits = _limits(self.model, kv_memory, token_budget, max_sequences, prefix_cache)
        self.engine = Engine(self.model, limits, self.tokenizer.eos_token_ids)
        self._collectors: dict[int, Collector] = {}

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: GenerationParams | Sequence[GenerationParams] | None = None,
        *,
        observer: Observer | None = None,
        candidates: int = 10,
        progress: bool | None = None,
    ) -> list[RequestOutput]:
        """One output for each prompt, in their order; all prompts run in one batch.

        A prompt is a text or a list of token ids. `params` is one for all or a list with one for each. The
        `observer` is shown every choice of these prompts, with so many `candidates`. `progress` draws a bar
        on stderr (default: on a terminal, for more than one prompt). Raises `ParameterError` or
        `RequestError` before anything runs if a request is bad.
        """
        listed = _listed(prompts)
        each = _one_each(params, len(listed))
        ids: list[int] = []
        try:
            for prompt, param in zip(listed, each, strict=True):
                ids.append(self._add(prompt, param, observer, candidates))
            show = progress if progress is not None else len(listed) > 1 and sys.stderr.isatty()
            with _bar(len(ids), show) as advance:
                self._run(ids, advance)
            return [self._collectors[i].finished() for i in ids]
        finally:
            for i in ids:
                self._drop(i)

    def stream(
        self,
        prompt: Prompt,
        params: GenerationParams | None = None,
        *,
        observer: Observer | None = None,
        candidates: int = 10,
    ) -> Generator[StreamEvent, None, None]:
        """The completions of one prompt as they grow; closing the generator drops the request.

        A bad request is refused at once; `RequestError` is also raised where generation fails midway.
        """
        (single,) = _listed(prompt, one=True)
        (param,) = _one_each(params, 1)
        events = self._stream(single, param, observer, candidates)
        # Up to its first yield, which is no event: a generator that has not begun cannot drop its request.
        next(events)
        return events

    def _stream(
        self, prompt: Prompt, params: GenerationParams, observer: Observer | None, candidates: int
    ) -> Generator[StreamEvent, None, None]:
        request = self._add(prompt, params, observer, candidates)
        collector = self._collectors[request]
        try:
            yield StreamEvent(0, "", ())
            while not collector.done:
                self._step()
                while collector.pending:
                    yield collector.pending.popleft()
            if collector.output.error is not None:
                raise RequestError(collector.output.error)
        finally:
            self._drop(request)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: GenerationParams | Sequence[GenerationParams] | None = None,
        **template: Any,
    ) -> list[RequestOutput]:
        """The reply to a conversation, or to each of several: what `generate` gives for `chat_prompt`."""
        several = bool(messages) and not isinstance(messages[0], Mapping)
        conversations: Any = messages if several else [messages]
        return self.generate([self.chat_prompt(c, **template) for c in conversations], params)

    def chat_prompt(self, messages: Sequence[Message], **template: Any) -> list[int]:
        """The token ids of a conversation under the model's chat template, ready for the reply."""
        tokenizer = self.tokenizer
        text = render_chat(
            tokenizer.chat_template,
            messages,
            bos_token=tokenizer.bos_token,
            eos_token=tokenizer.eos_token,
            **template,
        )
        return tokenizer.encode(text, add_special_tokens=False)

    def score(self, texts: Prompt | Sequence[Prompt]) -> list[TextScore]:
        """The log-probability of every token of each text under the model."""
        outputs = self.generate(
            texts, GenerationParams(max_tokens=1, temperature=0, prompt_logprobs=0, ignore_eos=True)
        )
        return [
            TextScore(o.prompt_token_ids, [None if t is None else t.logprob for t in o.prompt_logprobs or ()])
            for o in outputs
        ]

    def _add(
        self, prompt: Prompt, params: GenerationParams, observer: Observer | None, candidates: int
    ) -> int:
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not ids:
            raise RequestError("the prompt is empty: give some text")
        params.check_vocabulary(self.model.vocab_size)
        stops = params.stop if isinstance(params.stop, tuple) else (params.stop,)
        watch = start(
            self.tokenizer,
            stops,
            skip_special_tokens=params.skip_special_tokens,
            include_stop=params.include_stop,
            min_tokens=params.min_tokens,
        )
        explain = 0 if observer is None else max(candidates, 1)
        request = self.engine.add(ids, params, watch, explain=explain)
        text = prompt if isinstance(prompt, str) else None
        output = RequestOutput(text, ids, [], self.engine.seed_of(request))
        end_ids = frozenset(params.stop_token_ids) | (
            frozenset() if params.ignore_eos else self.engine.end_ids
        )
        self._collectors[request] = Collector(output, params, watch, end_ids, observer)
        return request

    def _drop(self, request: int) -> None:
        self.engine.abort(request)
        self._collectors.pop(request, None)

    def _run(self, ids: Sequence[int], advance: Callable[[], None]) -> None:
        left = set(ids)
        while left:
            self._step()
            ended = {i for i in left if self._collectors[i].done}
            left -= ended
            for _ in ended:
                advance()

    def _step(self) -> None:
        events = [e for e in self.engine.step() if e.request in self._collectors]
        for event in events:
            self._collectors[event.request].take(event)
        # Only when all have theirs: an observer may raise.
        for event in events:
            observer = self._collectors[event.request].observer
            if observer is not None:
                observer(event)


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    if checkpoint.format == "gguf":
        return Tokenizer.from_gguf(checkpoint.config)
    return Tokenizer.from_folder(checkpoint.path)


def _limits(
    model: CausalModel,
    kv_memory: int | str | None,
    token_budget: int,
    max_sequences: int,
    prefix_cache: bool,
) -> Limits:
    page_bytes = model.kv_shape.bytes_per_token(model.kernels.cache_dtype(model.dtype)) * PAGE_SIZE
    if kv_memory is None:
        pages = min(available_memory() // 4 // page_bytes, 8 * pages_for(model.context_length))
    else:
        pages = memory_size(kv_memory) // page_bytes
        if pages < 1:
            raise ParameterError(f"kv_memory of {kv_memory} holds no page; one takes {page_bytes} bytes")
    return Limits(max(pages, 1), page_bytes, model.context_length, token_budget, max_sequences, prefix_cache)


def _listed(prompts: Prompt | Sequence[Prompt], *, one: bool = False) -> list[Prompt]:
    """The prompts of a call as a list; with `one`, there is one, as a text or as token ids."""
    listed: list[Any] = [prompts]
    if not one and isinstance(prompts, Sequence) and not isinstance(prompts, (str, bytes)):
        ids = bool(prompts) and isinstance(prompts[0], int)
        listed = [prompts] if ids else list(prompts)
    for prompt in listed:
        if isinstance(prompt, str):
            continue
        if not isinstance(prompt, Sequence) or isinstance(prompt, (bytes, bytearray)):
            raise RequestError(f"a prompt must be a text or a list of token ids, not {type(prompt).__name__}")
        for token in prompt:
            if not isinstance(token, int) or isinstance(token, bool):
                raise RequestError(f"a prompt's token ids must be whole numbers, not {token!r}")
    return listed


def _one_each(
    params: GenerationParams | Sequence[GenerationParams] | None, count: int
) -> list[GenerationParams]:
    if params is None or isinstance(params, GenerationParams):
        return [params or GenerationParams()] * count
    each = list(params) if isinstance(params, Sequence) else [params]
    for param in each:
        if not isinstance(param, GenerationParams):
            raise ParameterError(f"params must be GenerationParams, not {type(param).__name__}")
    if len(each) != count:
        raise ParameterError(f"there are {count} prompts and {len(each)} params: give one, or one for each")
    return each


def _bar(total: int, show: bool) -> AbstractContextManager[Callable[[], None]]:
    if not show:
        return nullcontext(lambda: None)
    from decodery.progress import counting

    return counting("generating", total)
