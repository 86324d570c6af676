"""Asks a model, in one batch, and says what its answers depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Any

from decodery.conversations.chat_request import ChatRequest
from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError, RequestError
from decodery.evaluation.contract import (
    Answer,
    Continuation,
    ContinuationAnswer,
    Generation,
    GenerationAnswer,
    Request,
    WholeText,
    WholeTextAnswer,
)
from decodery.evaluation.rendering import Joined, Renderer
from decodery.kernels import PAGE_SIZE
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.llm import LLM
from decodery.outputs import RequestOutput
from decodery.weights.layouts.packed_cache import weight_forms
from decodery.weights.sources.model_digest import model_digest
from decodery.wire.plain_forms import plain_fields

Ready = Callable[[int, Answer], None]
# The number of tokens that are computed before the answers to them are there.
AT_ONCE = 4096
SCORED = GenerationParams(max_tokens=1, temperature=0, prompt_logprobs=0, logprobs=0, ignore_eos=True)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Holds a request with its token ids. `key` is a hash of all that its answer depends on."""

    key: str
    request: Request
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...] = ()
    params: GenerationParams | None = None
    chat: ChatRequest | None = None
    joined: bool = True
    cut: int = 0


class Subject:
    """Holds a model that is measured.

    With `chat`, prompts are conversations in the model's template, to which `template` is given. `bos` is
    that of `Renderer`. Several threads may ask at once. Raises `ParameterError` for `chat` without a
    template.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        name: str = "default",
        chat: bool = False,
        bos: bool | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        if llm.is_encoder:
            raise ParameterError(f"{name} is an encoder, and a model is asked to write: give another model")
        if chat and not llm.has_chat_template:
            raise ParameterError("chat is asked for, and the model has no chat template")
        self.llm = llm
        self.name = name
        self._template = dict(template or {})
        self.renderer = Renderer(llm.tokenizer, self._chat_ids, chat=chat, bos=bos)

    def _chat_request(
        self, messages: Sequence[Mapping[str, Any]], params: GenerationParams = SCORED
    ) -> ChatRequest:
        template = dict(self._template)
        if messages[-1]["role"] == "assistant":
            template["continue_final_message"] = True
        return self.llm.intake.chat_request(messages, params, **template)

    def _chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        return self._chat_request(messages).token_ids

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Returns all of the model on which its answers depend."""
        return {
            "files": model_digest(self.llm.path),
            "weights": weight_forms(self.llm.model),
            "backend": "native" if isinstance(self.llm.model.kernels, NativeKernels) else "torch",
            "cache": str(self.llm.engine.limits.kv_dtype),
            "context": str(self.llm.capacity),
        }

    @property
    def settings(self) -> Mapping[str, Any]:
        """Returns how prompts are rendered, for the report."""
        return {
            "chat": self.renderer.chat,
            "template": self._template,
            "bos": self.renderer.describe_bos(),
        }

    def prepare(self, request: Request, document: str, seed: int) -> Prepared:
        """Returns a request with its ids; `seed` is that of a generated text.

        Raises `ParameterError`, which names the document, if the request cannot run.
        """
        try:
            if isinstance(request, Generation):
                return self._generation(request, seed)
            if isinstance(request, Continuation):
                return self._continuation(request)
            ids = self.renderer.whole_ids(request.text)
            if not ids:
                raise ParameterError("the text has no tokens")
            return self._keyed(Prepared("", request, (self.renderer.prefix_token,), ids))
        except (ParameterError, RequestError) as error:
            raise ParameterError(f"document {document}: {error}") from error

    def _continuation(self, request: Continuation) -> Prepared:
        joined: Joined = self.renderer.joined(request.prompt, request.text)
        # The last token is not computed, so that the context may be one token longer than what is computed.
        limit = self.llm.capacity + 1 - len(joined.ids)
        if limit < 1:
            raise ParameterError(
                f"the continuation has {len(joined.ids)} tokens, and the context holds {self.llm.capacity}"
            )
        before = self.renderer.cut(joined.prompt_ids, limit)
        cut = len(joined.prompt_ids) - len(before)
        return self._keyed(Prepared("", request, before, joined.ids, joined=joined.together, cut=cut))

    def _generation(self, request: Generation, seed: int) -> Prepared:
        stop = request.chat_stop if self.renderer.chat else request.params.stop
        params = request.params.replace(stop=stop, seed=seed)
        limit = self.llm.capacity - (params.max_tokens or 1)
        if limit < 1:
            raise ParameterError(
                f"max_tokens is {params.max_tokens}, and the context holds {self.llm.capacity}"
            )
        whole = self.renderer.prompt_ids(request.prompt, keep_end=request.keep_end)
        ids = self.renderer.cut(whole, limit)
        cut = len(whole) - len(ids)
        chat = None
        if self.renderer.chat:
            chat = self._chat_request(self.renderer.messages(request.prompt), params)
            chat = replace(chat, token_ids=list(ids))
        return self._keyed(Prepared("", request, ids, (), params, chat, cut=cut))

    def text(self, prepared: Prepared) -> str:
        """Returns the prompt of a request as the model reads it."""
        return self.llm.tokenizer.decode(prepared.prompt_ids, skip_special_tokens=False)

    def _keyed(self, prepared: Prepared) -> Prepared:
        params = None if prepared.params is None else plain_fields(prepared.params)
        sample = prepared.request.sample if isinstance(prepared.request, Generation) else None
        asked = [
            dict(self.identity),
            type(prepared.request).__name__,
            prepared.prompt_ids,
            prepared.ids,
            params,
            sample,
            self.renderer.chat,
        ]
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return replace(prepared, key=key)

    def answer(self, requests: Sequence[Prepared], ready: Ready) -> None:
        """Asks the model; calls `ready` with the place and the answer of each request when it is there.

        Raises `RequestError` if a request fails.
        """
        texts = [i for i, one in enumerate(requests) if one.params is not None]
        if texts:
            self._generate(requests, texts, ready)
        pairs = [i for i, one in enumerate(requests) if isinstance(one.request, Continuation)]
        for places in self._fitting(requests, pairs):
            for place, answer in zip(places, self._scores(requests, places), strict=True):
                ready(place, answer)
        texts = [i for i, one in enumerate(requests) if isinstance(one.request, WholeText)]
        for places in self._fitting(requests, [i for i in texts if self._fits(requests[i])]):
            scores = self.llm.score_after([(requests[i].prompt_ids, requests[i].ids) for i in places])
            for place, score in zip(places, scores, strict=True):
                ready(place, WholeTextAnswer(requests[place].ids, _each(score.logprobs, requests[place].ids)))
        for place in texts:
            if not self._fits(requests[place]):
                ready(place, self._whole(requests[place]))

    def _generate(self, requests: Sequence[Prepared], places: Sequence[int], ready: Ready) -> None:
        def finished(number: int, output: RequestOutput) -> None:
            if output.error is not None:
                raise RequestError(output.error)
            one = requests[places[number]]
            completion = output.completions[0]
            if one.chat is not None:
                completion.read(one.chat.reply)
            answer = GenerationAnswer(
                one.prompt_ids,
                tuple(completion.token_ids),
                completion.text,
                completion.finish_reason,
                completion.stop_reason,
                completion.reasoning,
                one.cut,
            )
            ready(places[number], answer)

        prompts: list[Any] = [requests[i].chat or list(requests[i].prompt_ids) for i in places]
        params = [requests[place].params or SCORED for place in places]
        self.llm.generate(prompts, params, progress=False, on_output=finished)

    def _fitting(self, requests: Sequence[Prepared], places: Sequence[int]) -> list[list[int]]:
        """Divides requests so that the cache holds those that share a beginning until they have run.

        Each part computes few tokens, so that its answers are known soon: they outlive an interrupt.
        """
        limit = min(self.llm.engine.limits.pages // 2, AT_ONCE // PAGE_SIZE)
        found: list[list[int]] = []
        pages = limit
        before: tuple[int, ...] = ()
        for place in places:
            ids = (*requests[place].prompt_ids, *requests[place].ids)
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(before, ids, strict=False))
            shared = sum(1 for _ in alike) // PAGE_SIZE
            if pages + len(ids) // PAGE_SIZE - shared >= limit:
                found.append([])
                pages = shared = 0
            found[-1].append(place)
            pages += len(ids) // PAGE_SIZE + 1 - shared
            before = ids
        return found

    def _scores(self, requests: Sequence[Prepared], places: Sequence[int]) -> list[ContinuationAnswer]:
        inside = [i for i in places if self._fits(requests[i])]
        pairs = [(requests[i].prompt_ids, requests[i].ids) for i in inside]
        scores = dict(zip(inside, self.llm.score_after(pairs) if pairs else [], strict=True))
        found = []
        for place in places:
            one = requests[place]
            if place in scores:
                logprobs, ranks = scores[place].logprobs, scores[place].ranks
            else:
                logprobs, ranks = self._scores_at_the_edge(one)
            greedy = all(rank == 1 for rank in ranks)
            answer = ContinuationAnswer(one.prompt_ids, one.ids, _each(logprobs, one.ids), greedy)
            found.append(replace(answer, joined=one.joined, cut=one.cut))
        return found

    def _fits(self, one: Prepared) -> bool:
        return len(one.prompt_ids) + len(one.ids) <= self.llm.capacity

    def _scores_at_the_edge(self, one: Prepared) -> tuple[list[float | None], list[int | None]]:
        """Scores a text of one token more than the context: the last one is drawn, with no other allowed."""
        *computed, last = [*one.prompt_ids, *one.ids]
        params = SCORED.replace(allowed_token_ids=(last,), prompt_logprobs_start=len(one.prompt_ids))
        (output,) = self.llm.generate([computed], params, progress=False)
        drawn = output.completions[0].logprobs or []
        found = [*(output.prompt_logprobs or [])[len(one.prompt_ids) :], *drawn]
        ranks = [None if token is None else token.rank for token in found]
        return [None if token is None else token.logprob for token in found], ranks

    def _whole(self, one: Prepared) -> WholeTextAnswer:
        """Scores a text in windows, which begin with the prefix token and repeat half of the one before."""
        limit = self.llm.capacity - 1
        logprobs: list[float] = []
        windows = 0
        while len(logprobs) < len(one.ids):
            begin = max(len(logprobs) - limit // 2, 0) if logprobs else 0
            window = one.ids[begin : begin + limit]
            known = len(logprobs) - begin
            pair = ([*one.prompt_ids, *window[:known]], window[known:])
            (score,) = self.llm.score_after([pair])
            logprobs += _each(score.logprobs, window[known:])
            windows += 1
        return WholeTextAnswer(one.ids, tuple(logprobs), windows)


def _each(logprobs: Sequence[float | None], ids: Sequence[int]) -> tuple[float, ...]:
    """Returns the log-probability of each id. Raises `RequestError` if one is missing."""
    found = tuple(value for value in logprobs if value is not None)
    if len(found) != len(ids):
        raise RequestError(f"{len(ids)} tokens have {len(found)} log-probabilities")
    return found
