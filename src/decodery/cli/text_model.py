"""Declares what the commands need of a model, wherever it runs."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol

from decodery.decoding.request.params import GenerationParams
from decodery.outputs import Observer, RequestOutput, StreamEvent, TextScore
from decodery.text.streaming.token_texts import TokenTexts


class EncodingTokenizer(TokenTexts, Protocol):
    """Offers the token ids of texts, beside the texts of tokens."""

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a prompt."""


class TextModel(Protocol):
    """Offers a model in this process (`LLM`) or one of a server (`Client`)."""

    @property
    def tokenizer(self) -> EncodingTokenizer:
        """Returns the tokenizer."""

    @property
    def default_params(self) -> GenerationParams:
        """Returns the parameters that the checkpoint recommends."""

    @property
    def capacity(self) -> int:
        """Returns how many tokens a prompt and its text may have together."""

    @property
    def has_chat_template(self) -> bool:
        """True if the model can render conversations."""

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        params: GenerationParams | Sequence[GenerationParams],
        *,
        generated: int | Sequence[int] = 0,
        observer: Observer | None = None,
        candidates: int = 10,
        progress: bool | None = None,
    ) -> list[RequestOutput]:
        """Returns one output for each prompt."""

    def stream(
        self, prompt: str | Sequence[int], params: GenerationParams, *, generated: int = 0
    ) -> Generator[StreamEvent, None, None]:
        """Returns a generator of what each step adds; closing it drops the request."""

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
        """Returns the token ids of a conversation, ready for the reply."""

    def score(self, texts: Sequence[str], *, prefix: str | None = None) -> list[TextScore]:
        """Returns the log-probability of every token of each text, as it follows the prefix."""
