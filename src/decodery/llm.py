"""Offers a model with its tokenizer and engine behind a few calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from decodery.collector import Collector
from decodery.consensus import best_of
from decodery.conversations.chat_request import ChatRequest
from decodery.decoding.request.checkpoint_defaults import default_params
from decodery.decoding.request.generated_counts import generated_counts
from decodery.decoding.request.params import GenerationParams
from decodery.encoding_calls import EncodingCalls, open_encoder
from decodery.engine.embedded_prompt import EmbeddedPrompt
from decodery.engine.engine import Engine
from decodery.engine.limits import Limits, computed_at_most, page_bytes
from decodery.engine.pages import pages_for
from decodery.engine.shared_engine import Mailbox, SharedEngine
from decodery.errors import DecoderyError, ModelError, ParameterError, RequestError
from decodery.intake import Intake, Message, Prompt, salt_of
from decodery.kernels import PAGE_SIZE
from decodery.kernels.backends import check_kv_dtype, current_name, kv_dtype_named
from decodery.kernels.native.library import MOST_THREADS
from decodery.lens.layer_views import LayerViews, layer_views
from decodery.loading.open_model import SecondModels, not_causal, open_model
from decodery.loading.options import available_memory, memory_size
from decodery.models.contract import CausalModel
from decodery.outputs import Observer, RequestOutput, StreamEvent, TextScore
from decodery.shared_scores import SCORED, ScoredText, continuations, score_texts, whole_texts
from decodery.token_ids import listed_prompts, plain
from decodery.weights.sources.locate import Progress


@dataclass(frozen=True)
class _Generation:
    """Holds what a model that continues texts needs to do so."""

    model: CausalModel
    engine: Engine
    shared_engine: SharedEngine
    intake: Intake


class LLM(EncodingCalls):
    """Holds an open model, ready to generate and to read, or an encoder, ready to read.

    `model` is a folder, a .gguf file, a hub id, or None or "default" for the default model. `backend` is
    "native" (compiled kernels on the CPU), "torch" or "auto": native where its kernels are built and `dtype`
    is not "bfloat16". `dtype` is "float32", "bfloat16" (on torch only) or "auto": float32 on the native
    backend, and on torch what the machine computes fastest with these weights.

    `quantization` packs the weights of any checkpoint for the native backend: "int4" (embedding, head and
    values in int8), "int8" or "bf16". With None, GGML's common types of 4 to 8 bits and bfloat16 stay as they
    are stored, and all other types become float32. Products with weights of 4 to 8 bits round activations to
    int8; for the exact products of a quantised checkpoint use `dtype="float32", backend="torch"`.
    `packed_cache` stores the weights, packed for the native kernels, in the user's cache folder, and reads
    them from there the next time.

    `context_length` bounds the tokens that are computed, which are all of prompt and text but the last one
    (default: the model's own). `kv_memory` is the size of the key/value cache in bytes, or a text such as
    "512MB" (default: a quarter of the available memory, at most eight full contexts); the second models that
    requests name have their caches in it too. `kv_dtype` is the precision of the caches: "float32",
    "float16", "bfloat16", "int8" (a scale for each token and head) or "auto" (the backend's choice).
    `threads` is the number of threads on which this model is read and runs, and second models with it
    (default: those of torch and of the native kernels in this process, at first one for each core).
    `token_budget` bounds the tokens that one step runs. With `max_step_ms`, a step in which other texts grow
    runs no more of a prompt than fits into so many milliseconds, but at least a page: texts pause for less
    time, and prompts take longer. With `remember_texts`, requests that let the engine draft, as they do by
    default (`speculate="auto"`), have drafts from earlier texts of the same `cache_salt`.

    Requests may name second models (amateurs, draft models) by a path or hub id, or as an `LLM`. With
    `second_models`, a table of names and paths that are opened at once, they may name these alone.

    Several threads may use an `LLM` at once: their requests run in one batch, and each text is what it is
    alone. A forked process may go on with the models of its parent.

    Raises `ModelError` when the model cannot be found or read, and `ParameterError` for settings that are out
    of range or exclude each other.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        dtype: str = "auto",
        backend: str = "auto",
        quantization: str | None = None,
        context_length: int | None = None,
        kv_memory: int | str | None = None,
        kv_dtype: str = "auto",
        packed_cache: bool = False,
        threads: int | None = None,
        revision: str | None = None,
        token: str | None = None,
        token_budget: int = 512,
        max_sequences: int = 256,
        prefix_cache: bool = True,
        second_models: Mapping[str, str | Path] | None = None,
        max_step_ms: float | None = None,
        remember_texts: bool = True,
        progress: Progress | None = None,
    ) -> None:
        sizes = {"context_length": context_length, "threads": threads}
        switches = {"prefix_cache": prefix_cache, "packed_cache": packed_cache}
        for name, switch in {**switches, "remember_texts": remember_texts}.items():
            if not isinstance(switch, bool):
                raise ParameterError(f"{name} must be True or False, not {switch!r}")
        for name, value in {**sizes, "token_budget": token_budget, "max_sequences": max_sequences}.items():
            if value is not None and (type(value) is not int or value < 1):
                raise ParameterError(f"{name} must be a whole number from 1 on, not {value!r}")
        if max_step_ms is not None and type(max_step_ms) not in (int, float):
            raise ParameterError(f"max_step_ms must be a number, not {max_step_ms!r}")
        check_kv_dtype(kv_dtype)
        if threads is not None and threads > MOST_THREADS:
            raise ParameterError(f"threads must be at most {MOST_THREADS}, not {threads}")
        backend = current_name(backend)
        opened = open_model(
            model,
            dtype=dtype,
            backend=backend,
            quantization=quantization,
            context_length=context_length,
            packed_cache=packed_cache,
            threads=threads,
            revision=revision,
            token=token,
            progress=progress,
        )
        self.path = opened.path
        self.tokenizer = opened.tokenizer
        self._encoder = open_encoder(opened, threads)
        self._not_causal = not_causal(opened.path, opened.architecture)
        self._generation: _Generation | None = None
        self.default_params = default_params(opened.generation_config, self.tokenizer.vocab_size).params
        if opened.causal is None:
            return
        limits = _limits(opened.causal, kv_memory, kv_dtype, token_budget, max_sequences, prefix_cache)
        limits = replace(limits, threads=threads, max_step_ms=max_step_ms, remember_texts=remember_texts)
        offered = SecondModels(
            opened,
            opens=second_models is None,
            dtype=dtype,
            backend=backend,
            quantization=quantization,
            threads=threads,
        )
        for name, path in (second_models or {}).items():
            offered.add(name, path)
        engine = Engine(opened.causal, limits, self.tokenizer.eos_token_ids)
        self._generation = _Generation(
            opened.causal,
            engine,
            SharedEngine(engine),
            Intake(self.tokenizer, opened.causal, offered),
        )
        self._collectors: dict[int, Collector] = {}

    def _generating(self) -> _Generation:
        if self._generation is None:
            raise ModelError(self._not_causal)
        return self._generation

    @property
    def is_encoder(self) -> bool:
        """True if the model reads texts and writes none."""
        return self._generation is None

    @property
    def model(self) -> CausalModel:
        """Returns the model that continues texts. Raises `ModelError` for an encoder, as the others do."""
        return self._generating().model

    @property
    def engine(self) -> Engine:
        """Returns the engine that runs requests."""
        return self._generating().engine

    @property
    def intake(self) -> Intake:
        """Returns what makes requests of prompts."""
        return self._generating().intake

    @property
    def _shared_engine(self) -> SharedEngine:
        return self._generating().shared_engine

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
        priority: int = 0,
        on_output: Callable[[int, RequestOutput], None] | None = None,
    ) -> list[RequestOutput]:
        """Returns one output for each prompt, in their order; all prompts run in one batch.

        A prompt is a text, a list of token ids, or an `EmbeddedPrompt`. `params` is one object for all
        prompts or a list with one for each (default: what the checkpoint recommends). The last `generated`
        ids of a prompt of ids (one number, or one for each prompt) are the beginning of its text: the text
        goes on as that of the prompt before them went on there, and the completions have what follows. So
        their number counts for `max_tokens`, penalties, stops and the grammar. The `observer` is
        called with every event of these prompts. The events contain `candidates` candidates of each choice;
        with 0, the tokens alone. `progress` draws a bar on stderr (default: on a terminal, for more than one
        prompt). Prompts share cached prefixes only with those of the same `cache_salt`, which changes no
        text. Among the prompts of all threads, those of lower `priority` run first. It changes no text, and a
        prompt may wait as long as others of lower priority come. `on_output` is called with the place of a
        prompt and its output as soon as it has ended; what it raises ends the call. An invalid request that
        is the only one raises `ParameterError`, `RequestError` or `ModelError` before anything runs. Among
        several it fails alone, and its output contains the error.
        """
        listed = listed_prompts(prompts)
        each = self._one_each(params, len(listed))
        counts = generated_counts(generated, len(listed))
        salt = salt_of(cache_salt)
        outputs: dict[int, RequestOutput] = {}
        places: dict[int, int] = {}
        mailbox = Mailbox()
        try:
            for place, (prompt, param, count) in enumerate(zip(listed, each, counts, strict=True)):
                try:
                    added = self._add(prompt, param, observer, candidates, salt, mailbox, priority, count)
                    places[added] = place
                except (ParameterError, RequestError, ModelError) as error:
                    if len(listed) == 1:
                        raise
                    outputs[place] = _refused(prompt, param, error)
            if on_output is not None:
                for place, output in outputs.items():
                    on_output(place, output)
            show = progress if progress is not None else len(listed) > 1 and sys.stderr.isatty()
            with _bar(len(places), show) as advance:
                for request in self._ended(places, mailbox):
                    outputs[places[request]] = finished_output(self._collectors[request])
                    advance()
                    if on_output is not None:
                        on_output(places[request], outputs[places[request]])
            return [outputs[place] for place in range(len(listed))]
        finally:
            for request in places:
                self._drop(request)

    def stream(
        self,
        prompt: Prompt,
        params: GenerationParams | None = None,
        *,
        generated: int = 0,
        observer: Observer | None = None,
        candidates: int = 10,
        cache_salt: str | None = None,
        priority: int = 0,
    ) -> Generator[StreamEvent, None, None]:
        """Returns a generator of what each step adds to the completions; closing it drops the request.

        The last `generated` ids of the prompt are the beginning of the text, as in `generate`.
        Raises at once for an invalid request. The generator raises `RequestError` if generation fails later.
        """
        (param,) = self._one_each(params, 1)
        (count,) = generated_counts(generated, 1)
        salt, mailbox = salt_of(cache_salt), Mailbox()
        request = self._add(prompt, param, observer, candidates, salt, mailbox, priority, count)
        events = self._stream(request, param, mailbox)
        # Runs to the first yield, which is not an event: closing a generator that has not started would not
        # drop its request.
        next(events)
        return events

    def _stream(
        self, request: int, params: GenerationParams, mailbox: Mailbox
    ) -> Generator[StreamEvent, None, None]:
        collector = self._collectors[request]
        try:
            yield StreamEvent(0, "", ())
            while True:
                while collector.pending and params.best_of is None:
                    yield collector.pending.popleft()
                if collector.done:
                    break
                self._collect(mailbox)
            if collector.output.error is not None:
                raise RequestError(collector.output.error)
            if params.best_of is not None:
                # The best completions are known only at the end.
                yield from whole_events(finished_output(collector))
        finally:
            self._drop(request)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: GenerationParams | Sequence[GenerationParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        thinking_token_budget: int | None = None,
        cache_salt: str | None = None,
        **template: Any,
    ) -> list[RequestOutput]:
        """Returns the reply to a conversation, or to each of several.

        The arguments are those of `Intake.chat_request`. A completion's `text` is the visible content; it has
        `reasoning` and `tool_calls` besides.
        """
        several = bool(messages) and not isinstance(messages[0], Mapping)
        conversations: Any = messages if several else [messages]
        each = self._one_each(params, len(conversations))
        requests: list[Any] = [
            self.intake.chat_request(
                conversation,
                param,
                tools=tools,
                tool_choice=tool_choice,
                parallel_tool_calls=parallel_tool_calls,
                thinking_token_budget=thinking_token_budget,
                **template,
            )
            for conversation, param in zip(conversations, each, strict=True)
        ]
        outputs = self.generate(requests, each, cache_salt=cache_salt)
        for request, output in zip(requests, outputs, strict=True):
            for completion in output.completions:
                completion.read(request.reply)
        return outputs

    def infill(
        self,
        prefix: str,
        suffix: str,
        params: GenerationParams | None = None,
        *,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        """Returns completions of the text between `prefix` and `suffix`: `generate` on its `infill_prompt`.

        The tokens that end a middle are added to the stop tokens. Raises `ModelError` that says what is
        missing if the model was not trained to fill in.
        """
        (param,) = self._one_each(params, 1)
        if param.echo:
            raise ParameterError("echo has no meaning in infill: the text does not follow its prompt")
        ids, ends = self.infill_prompt(prefix, suffix)
        param = param.replace(stop_token_ids=(*param.stop_token_ids, *ends))
        return self.generate(ids, param, cache_salt=cache_salt)[0]

    def infill_prompt(self, prefix: str, suffix: str) -> tuple[list[int], tuple[int, ...]]:
        """Returns the token ids that ask for the text between `prefix` and `suffix`, and the tokens that end
        it.
        """
        return self.intake.infill_prompt(prefix, suffix)

    def chat_prompt(self, messages: Sequence[Message], **template: Any) -> list[int]:
        """Returns the token ids of a conversation in the model's chat template, ready for the reply.

        `template` has the arguments of `PromptOptions`, `tools`, and variables of the template. Raises
        `RequestError` for an argument that nothing reads.
        """
        return self.intake.chat_prompt(messages, **template)

    def score(
        self,
        texts: Prompt | Sequence[Prompt],
        *,
        prefix: str | Sequence[int] | None = None,
        cache_salt: str | None = None,
    ) -> list[TextScore]:
        """Returns the log-probability of every token of each text under the model.

        With a `prefix`, a text's tokens are scored as they follow the prefix, which is computed once. Texts
        with the same beginning share it too. On the native backend the numbers are those of whole texts, bit
        for bit. A prefix and a text are encoded as one: where this changes tokens at the border, the scored
        tokens begin with the first that is not the prefix's own. After a prefix of token ids, such as that of
        `chat_prompt`, a text is encoded without special tokens. Raises `RequestError` if one of the texts
        cannot be scored.
        """
        generate = partial(self.generate, cache_salt=cache_salt)
        return score_texts(self._scored_texts(listed_prompts(texts), prefix), generate)

    def score_after(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, cache_salt: str | None = None
    ) -> list[TextScore]:
        """Returns the log-probabilities of token ids, each list after the prompt of its pair.

        Prompts and texts that begin alike are computed once. Raises `RequestError` for a pair without a
        prompt, without ids after it, or beyond the context.
        """
        texts = []
        for place, (prompt, ids) in enumerate(pairs):
            if not len(prompt) or not len(ids):
                raise RequestError(f"pair {place + 1} of {len(pairs)} lacks a prompt or the ids after it")
            whole = [*map(plain, prompt), *map(plain, ids)]
            texts.append(ScoredText(whole, whole, len(prompt), self._kind(len(whole))))
        return score_texts(texts, partial(self.generate, cache_salt=cache_salt, progress=False))

    def layer_views(self, prompt: str | Sequence[int], *, candidates: int = 5) -> LayerViews:
        """Returns what each layer computes for the last token of a text or of token ids.

        For each layer these are the shares of attention that its heads give to the tokens, and the
        `candidates` likeliest next tokens by the states after it (the logit lens). It takes one pass over the
        text, which uses no cached pages. Raises `RequestError` for a text that the model cannot read.
        """
        limits = self.engine.limits
        ids = self.intake.token_ids(prompt)
        return layer_views(
            self.model, ids, candidates=candidates, kv_dtype=limits.kv_dtype, threads=limits.threads
        )

    def _scored_texts(self, texts: list[Any], prefix: Any) -> list[ScoredText]:
        encode = self.intake.token_ids
        found = whole_texts(texts, encode) if prefix is None else continuations(texts, prefix, encode)
        return [
            text if isinstance(text.prompt, EmbeddedPrompt) else replace(text, kind=self._kind(len(text.ids)))
            for text in found
        ]

    def _kind(self, length: int) -> int:
        """Returns the set of rotary frequencies of a text of this length: it changes log-probabilities."""
        return self.model.rope_set(computed_at_most(length, SCORED, self.model.context_length))

    @property
    def has_chat_template(self) -> bool:
        """True if the model can render conversations."""
        return bool(self.tokenizer.chat_templates)

    @property
    def capacity(self) -> int:
        """Returns how many tokens a prompt and its text may have together."""
        # The key/value cache may hold fewer tokens than the context.
        limits = self.engine.limits
        return min(limits.context_length, limits.pages * PAGE_SIZE)

    def _one_each(
        self, params: GenerationParams | Sequence[GenerationParams] | None, count: int
    ) -> list[GenerationParams]:
        if params is None or isinstance(params, GenerationParams):
            return [params or self.default_params] * count
        each = list(params) if isinstance(params, Sequence) else [params]
        if len(each) != count:
            raise ParameterError(
                f"there are {count} prompts and {len(each)} params: give one, or one for each"
            )
        return each

    def _add(
        self,
        prompt: Prompt | ChatRequest,
        params: GenerationParams,
        observer: Observer | None,
        candidates: int,
        salt: bytes,
        mailbox: Mailbox,
        priority: int,
        generated: int,
    ) -> int:
        if type(candidates) is not int or candidates < 0:
            raise ParameterError(f"candidates must be a whole number from 0 on, not {candidates!r}")
        if observer is not None and not callable(observer):
            raise ParameterError(f"observer must be a function of an event, not {observer!r}")
        if isinstance(prompt, ChatRequest):
            prepared = self.intake.prepare_chat(prompt, salt=salt)
        else:
            prepared = self.intake.prepare(prompt, params, salt=salt, generated=generated)
        explain = 0 if observer is None else candidates
        request, seed = prepared.add_with(
            partial(self._shared_engine.add, mailbox, priority=priority), explain
        )
        output = RequestOutput(prepared.text, prepared.token_ids, [], seed, warnings=prepared.warnings)
        self._collectors[request] = Collector(
            output,
            params,
            prepared.text_state,
            prepared.end_ids,
            observer,
            prepared.check,
            prepared.echoed,
        )
        return request

    def _drop(self, request: int) -> None:
        self._shared_engine.drop(request)
        self._collectors.pop(request, None)

    def _ended(self, ids: Iterable[int], mailbox: Mailbox) -> Iterator[int]:
        """Runs steps until these requests have ended; yields each when it has."""
        left = set(ids)
        while left:
            self._collect(mailbox)
            ended = [i for i in left if self._collectors[i].done]
            left.difference_update(ended)
            yield from ended

    def _collect(self, mailbox: Mailbox) -> None:
        """Waits for events of a call, adds them to their collectors, and calls the observers."""
        events = self._shared_engine.events(mailbox)
        collected = [(self._collectors[event.request], event) for event in events]
        for collector, event in collected:
            collector.take(event)
        # Observers come last, since one may raise.
        for collector, event in collected:
            if collector.observer is not None:
                collector.observer(event)


def _refused(prompt: Any, params: Any, error: DecoderyError) -> RequestOutput:
    """Returns the output of a request that was refused; its prompt and parameters may be of any type."""
    text = prompt if isinstance(prompt, str) else None
    given = prompt.token_ids if isinstance(prompt, (EmbeddedPrompt, ChatRequest)) else prompt
    given = plain(given)
    ids = list(map(plain, given)) if isinstance(given, Sequence) and text is None else []
    seed = params.seed if isinstance(params, GenerationParams) else None
    return RequestOutput(text, ids, [], seed or 0, error=str(error))


def finished_output(collector: Collector) -> RequestOutput:
    """Returns the output of a request that has ended; with `best_of`, only its likeliest completions.

    Completions that break their JSON schema are left out if others do not; else the output has their error.
    """
    output, params = collector.finished(), collector.params
    if output.error is not None and output.error not in [c.error for c in output.completions]:
        return output
    # A grammar that allows few texts gives fewer beams than the request asked for.
    ended = [c for c in output.completions if c.finish_reason != "error"]
    valid = [c for c in ended if c.finish_reason != "invalid"]
    output.completions = valid or ended
    output.error = ended[0].error if ended and not valid else None
    if params.best_of is not None:
        output.completions = best_of(valid, min(params.n, len(valid))) if valid else ended[: params.n]
        for index, completion in enumerate(output.completions):
            completion.index = index
            if params.logprobs is None:
                completion.logprobs = None
    return output


def whole_events(output: RequestOutput) -> list[StreamEvent]:
    """Returns an event for each completion of an output, with all of it."""
    return [
        StreamEvent(
            c.index,
            c.text,
            tuple(c.token_ids),
            tuple(c.logprobs or ()),
            c.finish_reason,
            c.stop_reason,
            c.error,
            output.warnings if place == 0 else (),
        )
        for place, c in enumerate(output.completions)
    ]


def _limits(
    model: CausalModel,
    kv_memory: int | str | None,
    kv_dtype: str,
    token_budget: int,
    max_sequences: int,
    prefix_cache: bool,
) -> Limits:
    kept = kv_dtype_named(kv_dtype, model.kernels, model.dtype)
    nbytes = page_bytes(model, kept)
    if kv_memory is None:
        pages = min(available_memory() // 4 // nbytes, 8 * pages_for(model.context_length))
    else:
        pages = memory_size(kv_memory) // nbytes
        if pages < 1:
            raise ParameterError(f"kv_memory of {kv_memory} holds no page; one takes {nbytes} bytes")
    return Limits(
        max(pages, 1), nbytes, model.context_length, token_budget, max_sequences, prefix_cache, kept
    )


def _bar(total: int, show: bool) -> AbstractContextManager[Callable[[], None]]:
    if not show:
        return nullcontext(lambda: None)
    from decodery.progress import counting

    return counting("generating", total)
