"""Holds the state of a request in the engine."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace

from torch import Tensor

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.event import Times
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import Method, Needs, Row
from decodery.decoding.strategies.registry import method_of
from decodery.engine.embedded_prompt import EmbeddedPrompt
from decodery.engine.pages import extend_page_keys
from decodery.engine.second_model import SecondModel
from decodery.errors import ParameterError


@dataclass(slots=True, eq=False)
class Sequence:
    """Holds a row and its pages, which contain the keys and values of its first `computed` tokens.

    The first `offered` pages have been entered into the prefix cache. `companion` is a sequence with another
    prompt: it is given the same generated tokens and is scored at the same positions. `embedded` is the
    prompt if it has vectors in place of embeddings. `rope_set` is the set of rotary frequencies of its tokens
    (`CausalModel.rope_set`); it never changes.
    """

    row: Row
    pages: list[int] = field(default_factory=list)
    page_keys: list[bytes] = field(default_factory=list)
    computed: int = 0
    offered: int = 0
    companion: Sequence | None = None
    embedded: EmbeddedPrompt | None = None
    rope_set: int = 0

    @property
    def known(self) -> int:
        """Returns the number of known tokens, computed or not."""
        return len(self.row.tokens)

    def extend_page_keys(self) -> None:
        """Appends to `page_keys` the keys of full pages of known tokens that it lacks."""
        vectors = None if self.embedded is None else self.embedded.page_digests
        extend_page_keys(self.page_keys, self.row.tokens, self.row.salt, vectors, self.rope_set)


@dataclass(slots=True, eq=False)
class Request:
    """Holds one prompt and its live `sequences`, in the order of their streams.

    `branches` are forks that live for one step only. `deadline` is the time on the engine's clock at which
    the request ends. `contrast_model` is the second model of contrastive decoding and `draft_model` that of
    speculation. `context` collects the hidden states of the prompt when the method needs them. A lower
    `priority` runs first. The request ends with an error when it is older than `timeout` seconds.
    `cached_tokens` is the number of prompt tokens that the prefix cache had when the request first ran. The
    last `generated` tokens of `prompt` are the beginning of the text. `ended` is the reason if that beginning
    is the whole text.
    """

    id: int
    prompt: array[int]
    params: GenerationParams
    seed: int
    sequences: list[Sequence]
    contrast_model: SecondModel | None = None
    draft_model: SecondModel | None = None
    deadline: float | None = None
    priority: int = 0
    timeout: float | None = None
    times: Times = field(default_factory=Times)
    cached_tokens: int = 0
    generated: int = 0
    ended: FinishReason | None = None
    branches: list[Sequence] = field(default_factory=list)
    method: Method = field(init=False)
    needs: Needs = field(init=False)
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    context: list[Tensor] | None = None

    def __post_init__(self) -> None:
        self.method = method_of(self.params)
        self.needs = self.method.needs(self.params)
        if self.params.prompt_logprobs is not None:
            self.prompt_logprobs = [None] * max(self.params.prompt_logprobs_start, 1)
        if self.needs.context:
            self.context = []

    @property
    def members(self) -> list[Sequence]:
        """Returns its sequences, each with its companion after it."""
        return [m for s in self.sequences for m in (s, s.companion) if m is not None]

    @property
    def second_models(self) -> list[SecondModel]:
        """Returns its contrast model and its draft model, if it has them."""
        return [m for m in (self.contrast_model, self.draft_model) if m is not None]

    @property
    def decoding(self) -> bool:
        """True if all but the last known token of every sequence is computed."""
        return all(m.computed >= m.known - 1 for m in self.members)

    def reusable(self, sequence: Sequence) -> int:
        """Returns how many of a sequence's first tokens need not run if the prefix cache has them.

        The last known token runs, and so do all from which something is still to be collected.
        """
        if self.context is not None:
            return 0
        most, scored = sequence.known - 1, self.prompt_logprobs
        if scored is not None and len(scored) < len(self.prompt):
            # The position before a token scores it.
            most = min(most, len(scored) - 1)
        return most


class Snapshot:
    """Holds a request's state from before a step computes, to restore it after an interrupt."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._sequences = list(request.sequences)
        self._rows = [member.row for member in request.members]
        self._context = request.context

    def restore(self) -> None:
        """Sets the request's sequences, rows and collected states back, and clears its page keys."""
        request = self.request
        request.sequences, request.context = self._sequences, self._context
        for member, row in zip(request.members, self._rows, strict=True):
            member.row = row
            member.page_keys = []


def companion_of(row: Row, embedded: EmbeddedPrompt | None) -> Sequence | None:
    """Returns a guided row's companion, which has the negative prompt in place of the prompt; else None.

    Without a negative prompt, the companion's prompt is the prompt's last token, or the vector in its place.
    """
    params = row.params
    if not params.guided:
        return None
    negative = params.negative_prompt
    prompt = array("q", [row.tokens[row.prompt_length - 1]] if negative is None else _ids(negative))
    last = embedded.last() if embedded is not None and negative is None else None
    tokens = prompt + row.tokens[row.prompt_length :]
    row = replace(row, tokens=tokens, prompt_length=len(prompt), watch=None, grammar=None)
    return Sequence(row, embedded=last)


def _ids(phrase: str | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(phrase, str):
        raise ParameterError("negative_prompt is a text: an engine takes token ids")
    return phrase
