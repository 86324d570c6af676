"""Translates the parameters that a user gives for an engine: texts to token ids, names to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import BeamSearch, DoLa, Phrase, Strategy
from decodery.decoding.strategies.dola import candidate_layers
from decodery.errors import ParameterError
from decodery.models.contract import CausalModel
from decodery.text.tokenizer.tokenizer import Tokenizer


class Resolver:
    """Resolves the parameters of requests for one model."""

    def __init__(self, tokenizer: Tokenizer, model: CausalModel) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._breakers: dict[str, tuple[int, ...]] = {}

    def resolved(self, params: GenerationParams) -> GenerationParams:
        """Returns the parameters with token ids and layer numbers. Raises `ParameterError` with the field."""
        changes: dict[str, Any] = {}
        strategy = self._strategy(params.strategy)
        if strategy is not params.strategy:
            changes["strategy"] = strategy
        if any(isinstance(phrase, str) for phrase in params.bad_words):
            changes["bad_words"] = [ids for p in params.bad_words for ids in self._spellings("bad_words", p)]
        biases: list[tuple[Phrase, float]] = list(params.sequence_bias)  # type: ignore[arg-type]
        if any(isinstance(phrase, str) for phrase, _ in biases):
            changes["sequence_bias"] = {
                ids: bias for phrase, bias in biases for ids in self._spellings("sequence_bias", phrase)
            }
        if isinstance(params.negative_prompt, str):
            changes["negative_prompt"] = self._tokenizer.encode(params.negative_prompt)
        if params.dry_multiplier and any(isinstance(b, str) for b in params.dry_sequence_breakers):
            ids = {token for b in params.dry_sequence_breakers for token in self._breaker(b)}
            changes["dry_sequence_breakers"] = sorted(ids)
        if params.best_of is not None and params.logprobs is None:
            # `best_of` compares log-probabilities.
            changes["logprobs"] = 0
        return params.replace(**changes) if changes else params

    def _strategy(self, strategy: Strategy) -> Strategy:
        if isinstance(strategy, DoLa):
            layers = candidate_layers(strategy.layers, self._model.depth, self._model.tied_head)
            return replace(strategy, layers=layers)
        if isinstance(strategy, BeamSearch) and strategy.force_words:
            return replace(strategy, force_words=tuple(self._forced(word) for word in strategy.force_words))
        return strategy

    def _forced(self, word: Phrase | tuple[Phrase, ...]) -> Phrase | tuple[Phrase, ...]:
        if isinstance(word, str):
            return self._spellings("force_words", word)
        if any(isinstance(part, str) for part in word):
            return tuple(ids for part in word for ids in self._spellings("force_words", part))  # type: ignore[arg-type]
        return word

    def _spellings(self, name: str, phrase: Phrase) -> tuple[tuple[int, ...], ...]:
        """Returns the ids of a phrase; those of a text both at the start of a line and after a space."""
        if not isinstance(phrase, str):
            return (phrase,)
        texts = [phrase] if phrase[0].isspace() else [f" {phrase}", phrase]
        found = dict.fromkeys(tuple(self._tokenizer.encode(t, add_special_tokens=False)) for t in texts)
        if not all(found):
            raise ParameterError(f"{name} holds {phrase!r}, which has no tokens in this vocabulary")
        return tuple(found)

    def _breaker(self, breaker: str | int) -> Sequence[int]:
        """Returns the tokens that break a repetition: all that contain the breaker, and its last token."""
        if isinstance(breaker, int):
            return (breaker,)
        known = self._breakers.get(breaker)
        if known is None:
            data = breaker.encode("utf-8", "replace")
            tokenizer = self._tokenizer
            holding = {t for t in range(tokenizer.vocab_size) if data in tokenizer.token_bytes(t)}
            own = tokenizer.encode(breaker, add_special_tokens=False)[-1:]
            known = self._breakers[breaker] = tuple(sorted(holding | set(own)))
        return known
