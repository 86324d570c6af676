"""Defines what a task asks of a model, what it answers, and what becomes of a document. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from decodery.decoding.request.params import GenerationParams
from decodery.metrics.score import Score


@dataclass(frozen=True, slots=True)
class Document:
    """Holds one row of a task's data.

    `id` is unique within the data and does not depend on what else is read: few-shots and seeds are drawn
    with it. `group` names the rows that belong together, such as those of a subject: few-shots come from the
    same group, results are told for each, and standard errors are clustered by `cluster`, where it is not
    empty.
    """

    id: str
    fields: Mapping[str, Any]
    group: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class TaskData:
    """Holds the documents that are asked, in the order of the files, and by group those that shots come from.

    `pools` has the key "" for documents of all groups. `source` describes the files, for the report.
    `settings` are what else of the task the results depend on, such as the form of its prompts.
    """

    documents: tuple[Document, ...]
    pools: Mapping[str, tuple[Document, ...]] = field(default_factory=dict)
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def pool(self, document: Document) -> tuple[Document, ...]:
        """Returns the documents that the shots of this one come from."""
        return self.pools.get(document.group) or self.pools.get("", ())


@dataclass(frozen=True, slots=True)
class Shot:
    """Holds a question with the answer that is shown. The answer does not begin with the delimiter."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Holds a question with what comes before it; `rendering` makes a text or a conversation of it.

    In a text, `description` comes first, the shots follow, each ended by `separator`, and `delimiter` stands
    between a question and its answer. In a conversation the description is the system message, each shot is
    a message of the user and a reply to it, and there is no delimiter. In both, the reply to the question
    begins with `reply`.
    """

    question: str
    shots: tuple[Shot, ...] = ()
    description: str = ""
    reply: str = ""
    delimiter: str = " "
    separator: str = "\n\n"


@dataclass(frozen=True, slots=True)
class Continuation:
    """Asks for the log-probability of a text after a prompt. The text does not begin with the delimiter."""

    prompt: Prompt
    text: str


@dataclass(frozen=True, slots=True)
class Generation:
    """Asks for a text after a prompt.

    The seed of `params` is replaced by one of the run, the task, the document and `sample`. The stop strings
    of `params` hold for a prompt that is a text; after one that is a conversation, the end of the turn ends
    the reply, and `chat_stop` may name more. With `keep_end`, white space at the end of a prompt that is a
    text belongs to it, as the new line does before the body of a function; else the model writes it.
    """

    prompt: Prompt
    params: GenerationParams
    sample: int = 0
    chat_stop: tuple[str, ...] = ()
    keep_end: bool = False


@dataclass(frozen=True, slots=True)
class WholeText:
    """Asks for the log-probability of a whole text. Its first token follows the prefix token."""

    text: str


Request = Continuation | Generation | WholeText


@dataclass(frozen=True, slots=True)
class ContinuationAnswer:
    """Holds the log-probability (natural) of a continuation.

    `greedy` is True if each of its tokens is the likeliest at its place. `joined` is True if the prompt and
    the continuation were encoded as one text; else they were encoded apart, since the tokens of the prompt
    would change. `cut` is the number of tokens of the prompt that did not fit and were left out.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    greedy: bool
    joined: bool = True
    cut: int = 0

    @property
    def logprob(self) -> float:
        """Returns the sum of the tokens' log-probabilities."""
        return sum(self.logprobs)


@dataclass(frozen=True, slots=True)
class GenerationAnswer:
    """Holds a generated text. `reasoning` is the thinking that came before a reply, or None."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    stop_reason: str | int | None = None
    reasoning: str | None = None
    cut: int = 0


@dataclass(frozen=True, slots=True)
class WholeTextAnswer:
    """Holds the log-probability (natural) of each token of a text, each computed once."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    windows: int = 1

    @property
    def logprob(self) -> float:
        """Returns the sum of the tokens' log-probabilities."""
        return sum(self.logprobs)


Answer = ContinuationAnswer | GenerationAnswer | WholeTextAnswer


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds what became of one document.

    `values` are the numbers of this document by metric, None where undefined. `gold`, `predicted` and `why`
    are for people who read the samples, and for metrics of the whole run; they are plain values of JSON.
    `weights` are what values count in the mean of the run, such as the bytes of a text; 1 where not given.
    `counts` are what the report counts, such as "tie" or "unparsed". `details` are further plain values, one
    for each answer or for the document. `kept` is True if judging the same answers again may give another
    outcome, as running a program may: a run stores such an outcome beside the answers.
    """

    values: Mapping[str, float | None]
    gold: Any = None
    predicted: Any = None
    why: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """Holds a document with its outcome."""

    document: Document
    outcome: Outcome


class Task(Protocol):
    """Reads data, asks a model about each document, and judges the answers. Holds no state."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int:
        """Returns a number that changes when the same answers may get another result."""

    @property
    def shots(self) -> int:
        """Returns the published number of few-shots."""

    @property
    def first_shots(self) -> bool:
        """True if the shots are the first of their pool; else they are drawn."""

    def read(self, data: Path | None) -> TaskData:
        """Reads the published layout from a file or folder. Raises `ParameterError` with the file and line.

        With None, reads the data that comes with the task or is fetched, or raises `ParameterError`.
        """

    def requests(self, document: Document, shots: Sequence[Document], repeats: int) -> Sequence[Request]:
        """Returns what is asked about a document. `repeats` is the number of samples of a generated text."""

    def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        """Judges the answers, which are in the order of the requests. Raises `ParameterError` for a NaN."""

    def results(self, samples: Sequence[Sample]) -> Mapping[str, Score]:
        """Returns the metrics of the run; the first one is the main one."""
