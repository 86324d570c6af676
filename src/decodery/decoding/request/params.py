"""Defines the parameters of one request. Importing this needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from decodery.decoding.request import checks, hf_config
from decodery.decoding.request.checks import COLDEST, flag, normalise, phrase, real, whole
from decodery.decoding.request.combinations import check_combinations
from decodery.decoding.request.grammar_params import GRAMMARS, Grammar
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.request.speculation_params import SPECULATIONS, Auto, Speculation
from decodery.decoding.request.strategy_params import STRATEGIES, Phrase, Sampling, Strategy
from decodery.decoding.request.watermark_params import Watermark
from decodery.errors import ParameterError
from decodery.token_ids import plain


def _field(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


_SAMPLING = Sampling()
_AUTO = Auto()
_BREAKERS = ("\n", ":", '"', "*")


@dataclass(frozen=True)
class GenerationParams:
    """Says how one request is decoded; immutable, validated when built.

    Raises `ParameterError` naming the field. Checks that depend on the model (token ids against its
    vocabulary, lengths against its context, grammars) are made when the request is added. Phrases may be
    texts or lists of token ids; `LLM` turns texts into ids.
    """

    max_tokens: int | None = _field(256, "Most tokens to generate; None generates until the context is full.")
    max_length: int | None = _field(None, "Most tokens of prompt and text together.")
    max_time: float | None = _field(None, "Seconds after which the text ends, from the first step on.")
    min_tokens: int = _field(
        0, "Tokens to generate before an end token or stop string may end the text; a complete grammar may."
    )
    min_length: int = _field(0, "The same for prompt and text together; end tokens only.")
    temperature: float = _field(
        1.0, "Divides the logits; 0 takes the most likely token (greedy), and truncations do nothing then."
    )
    dynatemp_range: float = _field(0.0, "Let the temperature go this far down and up with the entropy.")
    dynatemp_exponent: float = _field(1.0, "Power of the normalised entropy in dynamic temperature.")
    top_k: int = _field(0, "Keep the k most likely tokens; 0 or -1 keeps all.")
    top_p: float = _field(1.0, "Keep the fewest tokens whose probabilities sum to at least this.")
    min_p: float = _field(0.0, "Keep tokens at least this fraction as likely as the most likely one.")
    typical_p: float = _field(1.0, "Keep the most typical tokens whose probabilities sum to at least this.")
    epsilon_cutoff: float = _field(0.0, "Keep tokens of at least this probability.")
    eta_cutoff: float = _field(0.0, "Keep tokens of at least this probability, or less when entropy is high.")
    top_n_sigma: float = _field(0.0, "Keep logits within this many standard deviations of the largest.")
    top_a: float = _field(0.0, "Keep tokens of at least this times the squared largest probability.")
    tfs_z: float = _field(1.0, "Tail-free: keep this share of the sorted distribution's curvature.")
    xtc_probability: float = _field(0.0, "How often to leave out the top choices above xtc_threshold.")
    xtc_threshold: float = _field(0.1, "Probability from which a token is a top choice.")
    mirostat_mode: int = _field(0, "1 or 2 controls the surprise of the text with mirostat v1 or v2.")
    mirostat_tau: float = _field(5.0, "The surprise that mirostat aims at, in bits a token.")
    mirostat_eta: float = _field(0.1, "Mirostat's learning rate.")
    repetition_penalty: float = _field(
        1.0, "Divide positive and multiply negative logits of tokens seen in prompt or text."
    )
    presence_penalty: float = _field(0.0, "Subtract this from the logit of every token already generated.")
    frequency_penalty: float = _field(0.0, "Subtract this times its count from a generated token's logit.")
    penalty_range: int = _field(0, "How many last tokens these penalties look at; 0 is all.")
    penalize_prompt: bool = _field(True, "Whether repetition_penalty counts the prompt's tokens too.")
    encoder_repetition_penalty: float = _field(
        1.0, "Make tokens of the source (the prompt, where there is no encoder) likelier, against invention."
    )
    no_repeat_ngram_size: int = _field(0, "No n tokens in a row occur twice; 0 is off.")
    encoder_no_repeat_ngram_size: int = _field(0, "No n tokens in a row of the source occur in the text.")
    dry_multiplier: float = _field(0.0, "Strength of DRY, the penalty of tokens that extend a repetition.")
    dry_base: float = _field(1.75, "DRY's penalty grows by this factor with each token repeated.")
    dry_allowed_length: int = _field(2, "Repetitions up to this length cost nothing.")
    dry_range: int = _field(0, "How many last tokens DRY looks at; 0 is all.")
    dry_sequence_breakers: tuple[str | int, ...] = _field(
        _BREAKERS, "Texts (or token ids) across which DRY sees no repetition."
    )
    bad_words: tuple[Phrase, ...] = _field((), "Phrases that must not occur.")
    logit_bias: Mapping[int, float] | tuple[tuple[int, float], ...] = _field(
        (), "Add to the logits of token ids (-inf bans one)."
    )
    sequence_bias: Mapping[Phrase, float] | tuple[tuple[Phrase, float], ...] = _field(
        (), "Add to the logit of the token that completes a phrase."
    )
    allowed_token_ids: tuple[int, ...] = _field((), "Only these tokens may occur; none given allows all.")
    suppress_tokens: tuple[int, ...] = _field((), "Tokens that must not occur.")
    begin_suppress_tokens: tuple[int, ...] = _field((), "Tokens that the text must not begin with.")
    forced_bos_token_id: int | None = _field(None, "The token that the text begins with.")
    forced_eos_token_id: int | None = _field(None, "The token that a text of full length ends with.")
    exponential_decay_length_penalty: tuple[int, float] | None = _field(
        None, "From this many tokens on, raise the end tokens' logits by this factor a token."
    )
    guidance_scale: float = _field(1.0, "Classifier-free guidance: how far to go away from negative_prompt.")
    negative_prompt: Phrase | None = field(
        default=None, metadata={"help": "What guidance leads away from; None: the prompt's last token."}
    )
    watermark: Watermark | None = field(
        default=None, metadata={"help": "A detectable pattern in the choices."}
    )
    renormalize_logits: bool = _field(False, "Make the processed logits log-probabilities again (for beams).")
    logits_processors: tuple[Callable[[list[int], Any], Any], ...] = field(
        default=(), metadata={"help": "Functions (token_ids, logits [vocab]) -> logits of one's own."}
    )
    processor_order: tuple[str, ...] | None = field(
        default=None, metadata={"help": "The order of the processors; None is the default order."}
    )
    stop: str | tuple[str, ...] = _field((), "Strings that end the text; the text is cut before them.")
    stop_regex: str | None = _field(None, "A regular expression of RE2; the text ends at its first match.")
    include_stop: bool = _field(False, "Leave the stop string that was met in the text.")
    stop_token_ids: tuple[int, ...] = _field((), "Token ids that end the text, besides the model's own.")
    stop_when: Callable[[list[int]], bool] | None = field(
        default=None, metadata={"help": "A function of the generated token ids that says when to stop."}
    )
    ignore_eos: bool = _field(False, "Let the model's end tokens pass as ordinary ones.")
    skip_special_tokens: bool = _field(True, "Leave special tokens out of the text.")
    echo: bool = _field(
        False, "Put the prompt in front of the text, and score it where log-probabilities are asked for."
    )
    token_healing: bool = _field(
        False, "Let the prompt's last token be chosen again as one that begins with it."
    )
    n: int = _field(1, "How many independent completions of the prompt.")
    best_of: int | None = _field(None, "Generate this many completions and return the n likeliest.")
    seed: int | None = _field(None, "Makes draws repeatable; None or -1 picks one and reports it.")
    logprobs: int | None = _field(None, "Report log-probabilities: of the token and this many alternatives.")
    prompt_logprobs: int | None = _field(None, "The same for the prompt's tokens.")
    prompt_logprobs_start: int = _field(0, "The first of the prompt's tokens that prompt_logprobs reports.")
    grammar: Grammar | None = field(default=None, metadata={"help": "What the text must match."})
    strategy: Strategy = field(default=_SAMPLING, metadata={"help": "How tokens are chosen."})
    speculate: Speculation | Literal["auto"] | None = field(
        default=_AUTO, metadata={"help": "How to draft tokens ahead, so that the same text comes faster."}
    )

    def __post_init__(self) -> None:
        normalise(self, none=("max_tokens", "speculate"))
        for name, unset in _UNSET.items():
            if getattr(self, name) == unset:
                object.__setattr__(self, name, type(self).__dataclass_fields__[name].default)
        for name, canonical in _CANONICAL.items():
            object.__setattr__(self, name, canonical(name, getattr(self, name)))
        for name, (low, none) in WHOLE.items():
            whole(name, getattr(self, name), low, none=none)
        for name, (bound, holds) in REAL.items():
            real(name, getattr(self, name), bound, holds)
        for name in _FLAGS:
            flag(name, getattr(self, name))
        whole("seed", self.seed, -(2**63), 2**64 - 1, none=True)
        whole("mirostat_mode", self.mirostat_mode, 0, 2)
        real("max_time", self.max_time, "above 0", lambda x: x > 0, none=True)
        if self.stop_when is not None and not callable(self.stop_when):
            raise ParameterError(f"stop_when must be a function, not {self.stop_when!r}")
        if self.negative_prompt is not None:
            object.__setattr__(self, "negative_prompt", phrase("negative_prompt", self.negative_prompt))
        for name, kinds in _OBJECTS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) and (value is not None or name == "strategy"):
                known = ", ".join('"auto"' if kind is Auto else kind.__name__ for kind in kinds)
                raise ParameterError(f"{name} must be one of {known}, not {value!r}")
        check_combinations(self)

    @classmethod
    def from_hf(cls, generation_config: Any, **overrides: Any) -> GenerationParams:
        """Returns the parameters that decode as transformers does under its `generation_config`.

        The configuration is a mapping, the path of a generation_config.json or of its folder, or a
        GenerationConfig of transformers 4.48 to 5.x. `overrides` are fields of GenerationParams. What is not
        set has transformers' defaults, 20 new tokens among them. Raises `ParameterError` naming a field that
        is unknown, or that has no counterpart here and would change the text.
        """
        return cls().replace(**{**hf_config.fields(generation_config), **overrides})

    @property
    def greedy(self) -> bool:
        """True if each token is the most likely one and no noise is drawn."""
        return self.temperature == 0

    @property
    def guided(self) -> bool:
        """True if classifier-free guidance moves the logits away from the negative prompt's."""
        return self.guidance_scale != 1

    @property
    def streams(self) -> int:
        """Returns how many completions are generated; of them the best `n` may be returned."""
        count = getattr(self.strategy, "num_return_sequences", None)
        if count is None and not isinstance(self.strategy, Sampling):
            count = getattr(self.strategy, "num_beams", None)
        return int(count or self.best_of or self.n)

    @property
    def choices(self) -> int:
        """Returns how many completions are returned."""
        return self.n if self.best_of is not None else self.streams

    @property
    def width(self) -> int:
        """Returns how many sequences the request holds at once."""
        return self.strategy.width(self.streams)

    def replace(self, **changes: Any) -> GenerationParams:
        """Returns a copy with these fields changed, validated again.

        Raises `ParameterError` for unknown fields.
        """
        unknown = set(changes) - {f.name for f in dataclasses.fields(self)}
        if unknown:
            raise ParameterError(f"unknown parameter: {', '.join(sorted(unknown))}")
        return dataclasses.replace(self, **changes)

    def check_vocabulary(self, size: int) -> None:
        """Raises `ParameterError` if a token id or count exceeds a vocabulary of `size` tokens."""
        for name, token in self._token_ids():
            if not 0 <= token < size:
                raise ParameterError(f"{name} names token {token}; this vocabulary has ids 0 to {size - 1}")
        counts = {name: getattr(self, name) for name in ("top_k", "logprobs", "prompt_logprobs")}
        # Contrastive search compares this many of the likeliest tokens.
        counts["strategy's top_k"] = getattr(self.strategy, "top_k", None)
        for name, count in counts.items():
            if count is not None and count > size:
                raise ParameterError(f"{name} is {count}; this vocabulary has {size} tokens")
        if self.allowed_token_ids and set(self.allowed_token_ids) <= set(self.suppress_tokens):
            raise ParameterError("suppress_tokens bans every token that allowed_token_ids allows")

    def check_conversation(self) -> None:
        """Raises `ParameterError` for parameters without meaning in a conversation."""
        if self.echo:
            raise ParameterError("echo has no meaning in a conversation: its prompt is not a text to go on")

    def _token_ids(self) -> list[tuple[str, int]]:
        ids = [("logit_bias", token) for token, _ in self.logit_bias]  # type: ignore[misc]
        for name in ("stop_token_ids", "allowed_token_ids", "suppress_tokens", "begin_suppress_tokens"):
            ids += [(name, token) for token in getattr(self, name)]
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            ids += [(name, getattr(self, name))] if getattr(self, name) is not None else []
        ids += [("dry_sequence_breakers", t) for t in self.dry_sequence_breakers if isinstance(t, int)]
        lists = {
            "bad_words": self.bad_words,
            "sequence_bias": [item[0] for item in self.sequence_bias],
            "negative_prompt": [self.negative_prompt or ()],
            "force_words": [p for p in getattr(self.strategy, "force_words", ()) if p],
        }
        for name, found in lists.items():
            for item in found:
                ids += [(name, t) for t in _flat(item)]
        return ids


def _flat(item: Any) -> list[int]:
    if isinstance(item, int):
        return [item]
    return [] if isinstance(item, str) else [token for part in item for token in _flat(part)]


def _breakers(name: str, value: Any) -> tuple[str | int, ...]:
    if isinstance(value, (str, int)):
        value = (value,)
    if not isinstance(value, Iterable):
        raise ParameterError(f"{name} must be a list of texts or token ids, not {value!r}")
    return tuple(
        checks.whole(name, v, 0) if isinstance(v, int) else checks.strings(name, v)[0]
        for v in map(plain, value)
    )


def _decay(name: str, value: Any) -> tuple[int, float] | None:
    if value is None:
        return None
    try:
        start, factor = map(plain, value)
    except (TypeError, ValueError):
        raise ParameterError(f"{name} must be a start and a factor, not {value!r}") from None
    whole(name, start, 0)
    real(name, factor, "above 0", lambda x: x > 0)
    return start, factor


def _order(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = checks.strings(name, value)
    for stage in names:
        if stage not in DEFAULT_ORDER:
            raise ParameterError(f"{name} names {stage!r}; the processors are {', '.join(DEFAULT_ORDER)}")
    missing = [stage for stage in DEFAULT_ORDER if stage not in names]
    if missing or len(names) != len(DEFAULT_ORDER):
        raise ParameterError(
            f"{name} must name each processor once; missing or twice: {', '.join(missing) or '-'}"
        )
    return names


def _speculation(name: str, value: Any) -> Any:
    return Auto() if value == "auto" else value


_CANONICAL: dict[str, Callable[[str, Any], Any]] = {
    "logit_bias": checks.logit_bias,
    "sequence_bias": checks.sequence_bias,
    "stop": checks.strings,
    "stop_regex": checks.regex,
    "bad_words": checks.phrases,
    "dry_sequence_breakers": _breakers,
    "stop_token_ids": checks.token_ids,
    "allowed_token_ids": checks.token_ids,
    "suppress_tokens": checks.token_ids,
    "begin_suppress_tokens": checks.token_ids,
    "exponential_decay_length_penalty": _decay,
    "logits_processors": checks.callables,
    "processor_order": _order,
    "speculate": _speculation,
}
# Values besides None with which vLLM's clients say that a field is not set.
_UNSET = {"top_k": -1, "seed": -1}
# Least value, and whether None passes.
WHOLE: dict[str, tuple[int, bool]] = {
    "max_tokens": (1, True),
    "max_length": (1, True),
    "min_tokens": (0, False),
    "min_length": (0, False),
    "top_k": (0, False),
    "penalty_range": (0, False),
    "no_repeat_ngram_size": (0, False),
    "encoder_no_repeat_ngram_size": (0, False),
    "dry_allowed_length": (1, False),
    "dry_range": (0, False),
    "forced_bos_token_id": (0, True),
    "forced_eos_token_id": (0, True),
    "n": (1, False),
    "best_of": (1, True),
    "logprobs": (0, True),
    "prompt_logprobs": (0, True),
    "prompt_logprobs_start": (0, False),
}


def _share(x: float) -> bool:
    return 0 <= x <= 1


def _part(x: float) -> bool:
    return 0 < x <= 1


def _any(x: float) -> bool:
    return True


def _positive(x: float) -> bool:
    return x > 0


def _natural(x: float) -> bool:
    return x >= 0


# The bound in words, and as a function.
REAL: dict[str, tuple[str, Callable[[float], bool]]] = {
    "temperature": (f"0, or {COLDEST} or more", lambda x: x == 0 or x >= COLDEST),
    "dynatemp_range": ("0 or more", _natural),
    "dynatemp_exponent": ("above 0", _positive),
    "top_p": ("above 0 and at most 1", _part),
    "min_p": ("from 0 to 1", _share),
    "typical_p": ("above 0 and at most 1", _part),
    "epsilon_cutoff": ("from 0 to below 1", lambda x: 0 <= x < 1),
    "eta_cutoff": ("from 0 to below 1", lambda x: 0 <= x < 1),
    "top_n_sigma": ("0 or more", _natural),
    "top_a": ("from 0 to 1", _share),
    "tfs_z": ("above 0 and at most 1", _part),
    "xtc_probability": ("from 0 to 1", _share),
    "xtc_threshold": ("above 0 and at most 1", _part),
    "mirostat_tau": ("above 0", _positive),
    "mirostat_eta": ("above 0", _positive),
    "repetition_penalty": ("above 0", _positive),
    "presence_penalty": ("a finite number", _any),
    "frequency_penalty": ("a finite number", _any),
    "encoder_repetition_penalty": ("above 0", _positive),
    "dry_multiplier": ("0 or more", _natural),
    "dry_base": ("1 or more", lambda x: x >= 1),
    "guidance_scale": ("above 0", _positive),
}
_FLAGS = (
    "penalize_prompt",
    "renormalize_logits",
    "include_stop",
    "ignore_eos",
    "skip_special_tokens",
    "echo",
    "token_healing",
)
_OBJECTS: dict[str, tuple[type, ...]] = {
    "strategy": STRATEGIES,
    "grammar": GRAMMARS,
    "speculate": SPECULATIONS,
    "watermark": (Watermark,),
}
