"""Offers the tokenizer of a server's model."""

from __future__ import annotations

from decodery.client.connection import Connection
from decodery.errors import DecoderyError, ParameterError
from decodery.wire.known_tokens import KnownTokens


class RemoteTokenizer(KnownTokens):
    """Encodes texts by asking the server, and knows the tokens that its answers have spelled."""

    def __init__(self, connection: Connection, model: str | None, vocab_size: int) -> None:
        super().__init__(vocab_size)
        self._connection = connection
        self._model = model

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Returns the ids of a text, as `Tokenizer.encode` does."""
        if not isinstance(text, str):
            raise ParameterError(f"text must be a str, not {type(text).__name__}")
        return self.ids({"prompt": text, "add_special_tokens": add_special_tokens})

    def ids(self, body: dict[str, object]) -> list[int]:
        """Returns the token ids that the server answers to a body of `/tokenize`."""
        model = {} if self._model is None else {"model": self._model}
        tokens = self._connection.post("/tokenize", {**model, **body}).get("tokens")
        if not isinstance(tokens, list) or any(type(token) is not int for token in tokens):
            raise DecoderyError("the server's answer to /tokenize is not understood")
        return tokens
