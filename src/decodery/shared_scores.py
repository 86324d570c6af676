"""Scores texts, and computes once what they share: a prefix, or a common beginning. Needs no torch."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from decodery.decoding.chosen import TokenLogprobs
from decodery.decoding.request.params import GenerationParams
from decodery.engine.pages import extend_page_keys
from decodery.errors import ModelError, ParameterError, RequestError
from decodery.kernels import PAGE_SIZE
from decodery.outputs import RequestOutput, TextScore
from decodery.token_ids import plain

SCORED = GenerationParams(max_tokens=1, temperature=0, prompt_logprobs=0, ignore_eos=True)

Generate = Callable[[list[Any], list[GenerationParams]], list[RequestOutput]]


class Encode(Protocol):
    """Encodes prompts."""

    def __call__(self, prompt: Any, *, add_special_tokens: bool = True) -> list[int]:
        """Returns the token ids of a text, or a list of the given ones. Raises `RequestError` for neither."""


@dataclass(frozen=True, slots=True)
class ScoredText:
    """Holds a text to score: the tokens from `start` on, each after those before it.

    `prompt` is what runs, and `ids` are its tokens. Texts of the same `kind` have the same log-probabilities
    where they begin alike. With None this is not known, and they share no more than what comes before
    `start`.
    """

    prompt: Any
    ids: list[int]
    start: int = 0
    kind: int | None = None


def whole_texts(texts: Sequence[Any], encode: Encode) -> list[ScoredText]:
    """Returns texts to score from their first tokens on. Raises `RequestError` for a malformed one."""
    found = []
    for place, text in enumerate(texts):
        with _numbered(place, texts):
            found.append(ScoredText(text, encode(text)))
    return found


def continuations(texts: Sequence[Any], prefix: Any, encode: Encode) -> list[ScoredText]:
    """Returns texts to score after a prefix. The prefix and each text are a text or token ids.

    Two texts are encoded as one. Where this changes tokens at the border, the scored part begins with the
    first token that is not the prefix's. Otherwise the tokens are joined, and those of a text have no special
    tokens added. Raises `RequestError` for malformed ones, and for a text without tokens of its own.
    """
    kind, prefix = type(prefix).__name__, plain(prefix)
    if not isinstance(prefix, (str, Sequence)):
        raise RequestError(f"prefix must be a text or a list of token ids, not {kind}")
    before = encode(prefix)
    found = []
    for place, text in enumerate(map(plain, texts)):
        with _numbered(place, texts):
            if not isinstance(text, (str, Sequence)):
                raise RequestError("after a prefix comes a text or a list of token ids")
            if isinstance(prefix, str) and isinstance(text, str):
                ids = encode(prefix + text)
                start = _common_length(before, ids)
            else:
                ids = before + encode(text, add_special_tokens=False)
                start = len(before)
            if start == len(ids):
                raise RequestError("there are no tokens after the prefix: give some text")
            found.append(ScoredText(ids, ids, start))
    return found


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Returns how many tokens two texts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


@contextmanager
def _numbered(place: int, texts: Sequence[Any]) -> Iterator[None]:
    """Names, in an error, the text at this place if there are several."""
    try:
        yield
    except (ParameterError, RequestError, ModelError) as error:
        if len(texts) == 1:
            raise
        raise RequestError(f"text {place + 1} of {len(texts)}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Beginning:
    """Holds what a text shares with an earlier one: the first `length` tokens of text `owner`.

    It runs in `round`, after its owner, when the prefix cache has the pages of the beginning.
    """

    owner: int | None = None
    length: int = 0
    round: int = 0


def _beginnings(texts: Sequence[ScoredText]) -> list[_Beginning]:
    """Returns what each text shares: its longest beginning of whole pages that an earlier text has too."""
    owners: dict[bytes, int] = {}
    found: list[_Beginning] = []
    for place, text in enumerate(texts):
        keys = _page_keys(text)
        owner = next((owners[key] for key in reversed(keys) if key in owners), None)
        for key in keys:
            owners.setdefault(key, place)
        length = 0 if owner is None else _common_length(texts[owner].ids, text.ids)
        if text.kind is None and owner is not None:
            length = min(length, text.start, texts[owner].start)
        # The last position in common runs again, since it scores the next token: a page alone saves nothing.
        if owner is None or length <= PAGE_SIZE:
            found.append(_Beginning())
        else:
            found.append(_Beginning(owner, length, found[owner].round + 1))
    return found


def _page_keys(text: ScoredText) -> list[bytes]:
    salt = b"unknown" if text.kind is None else b""
    keys: list[bytes] = []
    try:
        extend_page_keys(keys, array("q", text.ids), salt, rope_set=text.kind or 0)
    except OverflowError:
        return []  # No vocabulary has such a token. The engine refuses the text.
    return keys


def score_texts(texts: Sequence[ScoredText], generate: Generate) -> list[TextScore]:
    """Returns the scores of texts; `generate` returns the outputs of prompts, one for each.

    A text that begins as an earlier one runs after it, when the prefix cache has the pages of the beginning,
    and takes over its log-probabilities. Raises `RequestError` if a text cannot be scored.
    """
    beginnings = _beginnings(texts)
    starts = _needed_starts(texts, beginnings)
    known: list[list[TokenLogprobs | None]] = [[] for _ in texts]
    for number in range(1 + max((b.round for b in beginnings), default=0)):
        places = [i for i, b in enumerate(beginnings) if b.round == number]
        for i in places:
            owner = beginnings[i].owner
            known[i] = [] if owner is None else known[owner][: beginnings[i].length]
        # A text that is another's beginning need not run.
        places = [i for i in places if not texts[i].ids or len(known[i]) < len(texts[i].ids)]
        params = _params_from(max(len(known[i]), starts[i]) for i in places)
        for i, output in zip(places, _outputs(texts, places, params, generate), strict=True):
            known[i] += (output.prompt_logprobs or [])[len(known[i]) :]
    return [
        _text_score(text.ids[text.start :], found[text.start :])
        for text, found in zip(texts, known, strict=True)
    ]


def _needed_starts(texts: Sequence[ScoredText], beginnings: Sequence[_Beginning]) -> list[int]:
    """Returns the first token of each text whose score the text needs, or one that takes over its scores."""
    starts = [text.start for text in texts]
    for place in reversed(range(len(texts))):
        owner, length = beginnings[place].owner, beginnings[place].length
        if owner is not None and starts[place] < length:
            starts[owner] = min(starts[owner], starts[place])
    return starts


def _text_score(ids: list[int], found: Sequence[TokenLogprobs | None]) -> TextScore:
    logprobs = [None if one is None else one.logprob for one in found]
    return TextScore(ids, logprobs, [None if one is None else one.rank for one in found])


def score_separately(texts: Sequence[Any], generate: Generate) -> list[TextScore]:
    """Returns the scores of whole texts, each computed for itself; they need not be encoded here."""
    unshared = [ScoredText(text, []) for text in texts]
    outputs = _outputs(unshared, range(len(texts)), [SCORED] * len(texts), generate)
    return [_text_score(output.prompt_token_ids, output.prompt_logprobs or []) for output in outputs]


def _params_from(starts: Iterable[int]) -> list[GenerationParams]:
    """Returns the parameters that score a prompt from each of these tokens on."""
    known: dict[int, GenerationParams] = {}
    found = []
    for start in starts:
        if start not in known:
            known[start] = SCORED.replace(prompt_logprobs_start=start)
        found.append(known[start])
    return found


def _outputs(
    texts: Sequence[ScoredText], places: Sequence[int], params: list[GenerationParams], generate: Generate
) -> list[RequestOutput]:
    """Returns the outputs of the texts at these places. Raises `RequestError` if one has failed."""
    if not places:
        return []
    # A single prompt that is refused raises; of several, each has its error in its output.
    with _numbered(places[0], texts):
        outputs = generate([texts[i].prompt for i in places], params)
    for i, output in zip(places, outputs, strict=True):
        if output.error is not None:
            raise RequestError(f"text {i + 1} of {len(texts)}: {output.error}")
    return outputs
