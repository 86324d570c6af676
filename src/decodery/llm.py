"""The facade: a model with its tokenizer and engine, in a few calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from decodery.decoding.params import GenerationParams
from decodery.engine.engine import Engine, Observer
from decodery.engine.limits import Limits
from decodery.engine.pages import pages_for
from decodery.errors import ParameterError, RequestError
from decodery.kernels import PAGE_SIZE
from decodery.kernels.select import backend_named
from decodery.models.registry import CausalModel, load_for_inference
from decodery.outputs import Collector, RequestOutput, StreamEvent, TextScore
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
    "bfloat16" or "auto" (what the machine computes fastest with these weights); `backend` is "reference" or
    "auto". `context_length` bounds prompt and text together (default: the model's own). `kv_memory` is the
    size of the key/value cache in bytes, or such as "512MB" (default: a quarter of the memory that is
    available, at most eight full contexts). `threads` sets torch's for the whole process. `token_budget`
    bounds the tokens that one step runs. Raises `ModelError` when the model cannot be found or read.
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
        if threads is not None:
            if threads < 1:
                raise ParameterError(f"threads must be 1 or more, not {threads}")
            torch.set_num_threads(threads)
        kernels = backend_named(backend)
        with open_checkpoint(resolve(model, revision=revision, token=token, progress=progress)) as checkpoint:
            self.tokenizer = _tokenizer(checkpoint)
            self.model = load_for_inference(
                checkpoint,
                dtype=dtype_named(dtype, checkpoint),
                kernels=kernels,
                context_length=context_length,
            )
        limits = _limits(self.model, kv_memory, token_budget, max_sequences, prefix_cache)
        self.engine = Engine(self.model, limits, self.tokenizer.eos_token_ids)
        self._collectors: dict[int, Collector] = {}

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: GenerationParams | Sequence[GenerationParams] | None = None,
        *,
        observer: Observer | None = None,
        progress: bool | None = None,
    ) -> list[RequestOutput]:
        """One output for each prompt, in their order; all prompts run in one batch.

        A prompt is a text or a list of token ids. `params` is one for all or a list with one for each. The
        `observer` is shown every choice. `progress` draws a bar on stderr (default: on a terminal, for more
        than one prompt). Raises `ParameterError` or `RequestError` before anything runs if a request is bad.
        """
        listed = _listed(prompts)
        each = _one_each(params, len(listed))
        ids: list[int] = []
        try:
            for prompt, param in zip(listed, each, strict=True):
                ids.append(self._add(prompt, param))
            show = progress if progress is not None else len(listed) > 1 and sys.stderr.isatty()
            with self._observed(observer), _bar(len(ids), show) as advance:
                self._run(ids, advance)
            return [self._collectors[i].finished() for i in ids]
        finally:
            for i in ids:
                self._drop(i)

    def stream(
        self, prompt: Prompt, params: GenerationParams | None = None, *, observer: Observer | None = None
    ) -> Generator[StreamEvent, None, None]:
        """The completions of one prompt as they grow; closing the generator drops the request.

        Raises `RequestError` where generation fails midway.
        """
        request = self._add(prompt, params or GenerationParams())
        return self._stream(request, observer)

    def _stream(self, request: int, observer: Observer | None) -> Generator[StreamEvent, None, None]:
        collector = self._collectors[request]
        try:
            while not collector.done:
                with self._observed(observer):
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

    def _add(self, prompt: Prompt, params: GenerationParams) -> int:
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
        request = self.engine.add(ids, params, watch)
        text = prompt if isinstance(prompt, str) else None
        self._collectors[request] = Collector(text, ids, params, self.engine.seed_of(request))
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
        for event in self.engine.step():
            collector = self._collectors.get(event.request)
            if collector is not None:
                collector.take(event)

    def _observed(self, observer: Observer | None) -> AbstractContextManager[None]:
        return nullcontext() if observer is None else _Observing(self.engine, observer)


class _Observing(AbstractContextManager[None]):
    def __init__(self, engine: Engine, observer: Observer) -> None:
        self.engine = engine
        self.observer = observer

    def __enter__(self) -> None:
        self.engine.observer = self.observer

    def __exit__(self, *exc: object) -> None:
        self.engine.observer = None


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
    page_bytes = model.kv_shape.bytes_per_token(model.dtype) * PAGE_SIZE
    if kv_memory is None:
        pages = min(available_memory() // 4 // page_bytes, 8 * pages_for(model.context_length))
    else:
        pages = memory_size(kv_memory) // page_bytes
        if pages < 1:
            raise ParameterError(f"kv_memory of {kv_memory} holds no page; one takes {page_bytes} bytes")
    return Limits(max(pages, 1), page_bytes, model.context_length, token_budget, max_sequences, prefix_cache)


def _listed(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    listed: list[Any] = list(prompts)
    if listed and isinstance(listed[0], int):
        return [listed]
    for prompt in listed:
        if not isinstance(prompt, (str, Sequence)):
            raise RequestError(f"a prompt must be a text or a list of token ids, not {type(prompt).__name__}")
    return listed


def _one_each(
    params: GenerationParams | Sequence[GenerationParams] | None, count: int
) -> list[GenerationParams]:
    if params is None or isinstance(params, GenerationParams):
        return [params or GenerationParams()] * count
    each = list(params)
    if len(each) != count:
        raise ParameterError(f"there are {count} prompts and {len(each)} params: give one, or one for each")
    return each


def _bar(total: int, show: bool) -> AbstractContextManager[Callable[[], None]]:
    if not show:
        return nullcontext(lambda: None)
    from decodery.progress import counting

    return counting("generating", total)
