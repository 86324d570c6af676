"""Asks a model for a verdict that a grammar forces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from decodery.decoding.request.grammar_params import JsonSchema
from decodery.decoding.request.params import GenerationParams
from decodery.errors import DecoderyError, ParameterError
from decodery.evaluation.contract import Answer, GenerationAnswer
from decodery.evaluation.runs.answer_store import AnswerStore
from decodery.outputs import RequestOutput

# Verdicts that are asked for together.
BLOCK = 32
LONGEST_REASON = 400


class Chats(Protocol):
    """Renders conversations and generates, as `LLM` and `Client` do."""

    @property
    def has_chat_template(self) -> bool: ...

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]: ...

    def generate(
        self, prompts: Any, params: Any = None, *, progress: bool | None = None
    ) -> list[RequestOutput]: ...


@dataclass(frozen=True, slots=True)
class JudgingModel:
    """Holds a judge: its name for the report, and `identity`, all of the model that its verdicts depend on.

    With `reasons`, it writes a reason of at most 400 characters before the verdict. `instructions` replace
    the judge's own, and stand before the texts.
    """

    name: str
    model: Chats
    identity: Mapping[str, Any]
    reasons: bool = True
    instructions: str | None = None

    def __post_init__(self) -> None:
        if not self.model.has_chat_template:
            raise ParameterError(f"the judge {self.name} has no chat template: give one that can converse")

    def answers(
        self,
        conversations: Sequence[Sequence[Mapping[str, str]]],
        verdict: Mapping[str, Any],
        store: AnswerStore,
        advance: Callable[[], None] = lambda: None,
    ) -> list[str | None]:
        """Returns the text of each verdict, a JSON object with `verdict`; None where the judge failed.

        `verdict` is the JSON schema of the verdict. Verdicts that `store` has are not asked again; a request
        that failed is not kept. Raises `DecoderyError` if the judge cannot be reached.
        """
        grammar = JsonSchema(self._schema(verdict))
        tokens = 64 + LONGEST_REASON * self.reasons
        params = GenerationParams(max_tokens=tokens, temperature=0, grammar=grammar)
        asked = [self.model.chat_prompt(conversation) for conversation in conversations]
        keys = [self._key(ids, params) for ids in asked]
        missing = {key: ids for key, ids in zip(keys, asked, strict=True) if store.get(key) is None}
        left = list(missing)
        for start in range(0, len(left), BLOCK):
            block = left[start : start + BLOCK]
            outputs = self._outputs([missing[key] for key in block], params)
            for key, output in zip(block, outputs, strict=True):
                if output.error is None and output.completions:
                    store.put(key, _answer(missing[key], output))
                advance()
        return [_text(store.get(key)) for key in keys]

    def _outputs(self, prompts: list[list[int]], params: GenerationParams) -> list[RequestOutput]:
        try:
            return self.model.generate(prompts, params, progress=False)
        except (OSError, DecoderyError) as error:
            raise DecoderyError(f"the judge {self.name} does not answer: {error}") from error

    def _schema(self, verdict: Mapping[str, Any]) -> dict[str, Any]:
        reason = {"reason": {"type": "string", "maxLength": LONGEST_REASON}} if self.reasons else {}
        properties = {**reason, "verdict": dict(verdict)}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def _key(self, ids: Sequence[int], params: GenerationParams) -> str:
        asked = [dict(self.identity), list(ids), repr(params)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _answer(ids: Sequence[int], output: RequestOutput) -> GenerationAnswer:
    first = output.completions[0]
    return GenerationAnswer(tuple(ids), tuple(first.token_ids), first.text, first.finish_reason)


def _text(answer: Answer | None) -> str | None:
    """Returns the text of a verdict; None for a request that failed, and for a text that was cut."""
    ended = isinstance(answer, GenerationAnswer) and answer.finish_reason == "stop"
    return answer.text if ended and isinstance(answer, GenerationAnswer) else None
