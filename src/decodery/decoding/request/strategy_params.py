"""Defines the strategies that a request can ask for; immutable, validated when built. Needs no torch.

`width(streams)` returns how many sequences a request holds at once. `runs_last` says whether the model
computes even the last token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from decodery.decoding.request.checks import flag, normalise, phrase, phrases, real, whole
from decodery.decoding.request.checks import model as checked_model
from decodery.errors import ParameterError
from decodery.token_ids import plain

Phrase = str | tuple[int, ...]


def _field(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Sampling:
    """Draws each token from the processed distribution; with `temperature=0`, takes its most likely token."""

    runs_last = False

    def width(self, streams: int) -> int:
        """Returns the number of sequences: one for each completion."""
        return streams


@dataclass(frozen=True)
class BeamSearch:
    """Keeps the `num_beams` likeliest sequences at each step, and returns the best that ended.

    A sequence's score is its sum of log-probabilities divided by its generated length to the power
    `length_penalty`. `early_stopping` True ends the search when `num_beams` sequences have ended; False ends
    it when no live sequence scores better than the worst of them; "never" ends it when none can become
    better. With `num_beam_groups` the groups choose their tokens in turn, and a token costs
    `diversity_penalty` for each beam of earlier groups that chose it. `force_words` are phrases that the text
    must hold; a list of phrases requires one of them. With `sample`, beams are drawn from the processed
    distribution in place of taking the likeliest. Completions are the best `num_return_sequences`, each with
    its score.

    `rules` says by which version of transformers texts end and the search stops. By "transformers-5", texts
    that are cut off at the limit compete with those that ended, and the best live sequence decides if the
    search stops. By "transformers-4", the best candidate decides, live or ended, and a search that is
    decided at the limit returns no text that is cut off. None is "transformers-5"; with groups or
    `force_words`, which only version 4 has, it is "transformers-4".
    """

    num_beams: int = _field(4, "How many sequences to keep.")
    length_penalty: float = _field(1.0, "Power of the length that divides a sequence's score.")
    early_stopping: bool | Literal["never"] = _field(False, "When to stop: True, False or 'never'.")
    num_return_sequences: int = _field(1, "How many completions to return.")
    num_beam_groups: int = _field(1, "Groups of beams that keep apart.")
    diversity_penalty: float = _field(0.0, "Cost of a token for each earlier group that took it.")
    force_words: tuple[Phrase | tuple[Phrase, ...], ...] = _field((), "Phrases that the text must hold.")
    sample: bool = _field(False, "Draw beams in place of taking the likeliest.")
    rules: Literal["transformers-5", "transformers-4"] | None = _field(
        None,
        "Whose rules end texts and searches: transformers-5, or transformers-4 (the default with groups and"
        " forced phrases).",
    )

    runs_last = False

    def __post_init__(self) -> None:
        normalise(self)
        whole("num_beams", self.num_beams, 1)
        # Outside these bounds, powers of a length overflow.
        real("length_penalty", self.length_penalty, "from -50 to 50", lambda x: -50 <= x <= 50)
        if self.early_stopping not in (True, False, "never") or isinstance(
            self.early_stopping, (int, float)
        ) != (isinstance(self.early_stopping, bool)):
            raise ParameterError(
                f"early_stopping must be True, False or 'never', not {self.early_stopping!r}"
            )
        whole("num_return_sequences", self.num_return_sequences, 1)
        whole("num_beam_groups", self.num_beam_groups, 1)
        real("diversity_penalty", self.diversity_penalty, "0 or more", lambda x: x >= 0)
        flag("sample", self.sample)
        if self.rules not in (None, "transformers-5", "transformers-4"):
            raise ParameterError(f"rules must be 'transformers-5' or 'transformers-4', not {self.rules!r}")
        object.__setattr__(self, "force_words", _force_words(self.force_words))
        self._check_together()

    def _check_together(self) -> None:
        if self.num_return_sequences > self.num_beams:
            raise ParameterError(
                f"num_return_sequences is {self.num_return_sequences}, more than num_beams {self.num_beams}"
            )
        if self.num_beams % self.num_beam_groups:
            raise ParameterError(
                f"num_beams is {self.num_beams}, which {self.num_beam_groups} groups (num_beam_groups)"
                " cannot share equally"
            )
        if self.diversity_penalty and self.num_beam_groups == 1:
            raise ParameterError("diversity_penalty has no meaning without num_beam_groups of 2 or more")
        if self.force_words and self.num_beam_groups > 1:
            raise ParameterError(
                "force_words and num_beam_groups have no meaning together: banks are one group's"
            )
        if self.force_words and self.sample:
            raise ParameterError(
                "force_words and sample have no meaning together: banks need the likeliest beams"
            )
        if self.rules == "transformers-5" and self._only_by_4:
            raise ParameterError(
                f"{self._only_by_4} and rules='transformers-5' have no meaning together: version 5 has no"
                " such beams; leave rules out or give 'transformers-4'"
            )

    @property
    def _only_by_4(self) -> str | None:
        """Returns the name of the field, if one is set, that only transformers 4 has."""
        if self.num_beam_groups > 1:
            return "num_beam_groups"
        return "force_words" if self.force_words else None

    @property
    def rules_in_force(self) -> Literal["transformers-5", "transformers-4"]:
        """Returns `rules`, or what None stands for."""
        return self.rules or ("transformers-4" if self._only_by_4 else "transformers-5")

    def width(self, streams: int) -> int:
        """Returns the number of sequences: one for each beam."""
        return self.num_beams


@dataclass(frozen=True)
class StochasticBeamSearch:
    """Samples `num_beams` different sequences without replacement (Kool et al. 2019).

    Completions are the `num_beams` sequences in the order in which they were drawn, each with its
    log-probability as score.
    """

    num_beams: int = _field(4, "How many different sequences to sample.")

    runs_last = False

    def __post_init__(self) -> None:
        normalise(self)
        whole("num_beams", self.num_beams, 1)

    def width(self, streams: int) -> int:
        """Returns the number of sequences: one for each beam."""
        return self.num_beams


@dataclass(frozen=True)
class ContrastiveSearch:
    """Takes, of the `top_k` likeliest tokens, the one whose hidden state repeats the text least.

    A token's score is (1 - `penalty_alpha`) times its probability minus `penalty_alpha` times the largest
    cosine similarity of its hidden state with those before it (Su et al. 2022).
    """

    top_k: int = _field(4, "How many tokens to compare.")
    penalty_alpha: float = _field(0.6, "Weight of the similarity, from 0 to 1.")

    runs_last = True

    def __post_init__(self) -> None:
        normalise(self)
        whole("top_k", self.top_k, 1)
        real("penalty_alpha", self.penalty_alpha, "from 0 to 1", lambda x: 0 <= x <= 1)

    def width(self, streams: int) -> int:
        """Returns the number of sequences: one fork for each compared token."""
        return self.top_k


@dataclass(frozen=True)
class ContrastiveDecoding:
    """Prefers tokens that `amateur`, a smaller model over the same vocabulary, finds unlikely.

    Only tokens at least `alpha` times as likely as the likeliest are possible. Their logits are (1 + `beta`)
    times the model's minus `beta` times the amateur's (Li et al. 2022). `amateur` is what LLM takes as a
    model, or an LLM.
    """

    amateur: Any = field(default=None, metadata={"help": "The weaker model: a folder, a file or a hub id."})
    alpha: float = _field(0.1, "Least share of the likeliest token's probability, from 0 to 1.")
    beta: float = _field(0.5, "Strength of the contrast.")

    runs_last = False

    def __post_init__(self) -> None:
        normalise(self)
        if self.amateur is None:
            raise ParameterError("amateur is missing: ContrastiveDecoding needs a second, weaker model")
        checked_model("amateur", self.amateur)
        real("alpha", self.alpha, "above 0 and at most 1", lambda x: 0 < x <= 1)
        real("beta", self.beta, "0 or more", lambda x: x >= 0)

    def width(self, streams: int) -> int:
        """Returns the number of sequences: one for each completion."""
        return streams


@dataclass(frozen=True)
class DoLa:
    """Contrasts the last layer's logits with those of an earlier layer (Chuang et al. 2023).

    `layers` are the candidates for the earlier layer: "low" or "high" for every second layer of that half, or
    a list. At each step the candidate that differs most from the last layer is used.
    """

    layers: Literal["low", "high"] | tuple[int, ...] = _field(
        "high", "Earlier layers: low, high, or numbers."
    )

    runs_last = False

    def __post_init__(self) -> None:
        normalise(self)
        if isinstance(self.layers, str):
            if self.layers not in ("low", "high"):
                raise ParameterError(f"layers must be 'low', 'high' or a list of layers, not {self.layers!r}")
            return
        if not isinstance(self.layers, Iterable):
            raise ParameterError(f"layers must be 'low', 'high' or a list of layers, not {self.layers!r}")
        object.__setattr__(self, "layers", tuple(whole("layers", layer, 0) for layer in self.layers))
        if not self.layers:
            raise ParameterError("layers names no layer")

    def width(self, streams: int) -> int:
        """Returns the number of sequences: one for each completion."""
        return streams


STRATEGIES = (Sampling, BeamSearch, StochasticBeamSearch, ContrastiveSearch, ContrastiveDecoding, DoLa)
Strategy = Sampling | BeamSearch | StochasticBeamSearch | ContrastiveSearch | ContrastiveDecoding | DoLa


def _force_words(value: Any) -> tuple[Phrase | tuple[Phrase, ...], ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ParameterError(f"force_words must be a list of phrases, not {value!r}")
    words: list[Any] = []
    for word in value:
        word = plain(word)
        word = word if isinstance(word, str) or not isinstance(word, Iterable) else tuple(map(plain, word))
        if not isinstance(word, (str, tuple)):
            raise ParameterError(f"force_words must hold texts or lists of token ids, not {word!r}")
        if not isinstance(word, str) and any(not isinstance(part, int) for part in word):
            words.append(phrases("force_words", word))
        else:
            words.append(phrase("force_words", word))
    return tuple(words)
