"""Holds how the folder of an encoder says that vectors of texts are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from decodery.errors import ParameterError

Metric = Literal["cosine", "dot", "euclidean", "manhattan"]
METRICS: Mapping[str, Metric] = {
    "cosine": "cosine",
    "dot": "dot",
    "dot_product": "dot",
    "euclidean": "euclidean",
    "manhattan": "manhattan",
}
"""The metrics by the names that folders use."""
QUERY = ("query",)
DOCUMENT = ("document", "passage", "corpus")
"""The names of the prompts of queries, and of the documents in which they are searched."""


@dataclass(frozen=True)
class VectorSettings:
    """Holds how a text becomes a vector: `pooling` of the states, then `layers`, then its length made 1.

    `reads_prompt` is False if the tokens of a prompt are not pooled. `normalizes`: the vector has the length
    1. `width` is its size, and `truncate_dim` how many of its dimensions are kept if the caller does not say
    (None: all). `limit` is the largest number of a text's tokens, with special tokens and prompt.
    `prompts` are texts that stand before a text, by their names; `default_prompt` is the name of the one that
    is used if none is asked for. `lowers`: texts are in lower case. `metric` compares two vectors.
    """

    width: int
    limit: int
    pooling: tuple[str, ...] = ("mean",)
    reads_prompt: bool = True
    layers: tuple[Callable[[Tensor], Tensor], ...] = ()
    normalizes: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    lowers: bool = False
    metric: Metric = "cosine"
    truncate_dim: int | None = None

    @property
    def tells_queries(self) -> bool:
        """True if the folder has prompts for queries and for documents, one of which is not empty."""
        both = all(any(name in self.prompts for name in names) for names in (QUERY, DOCUMENT))
        return both and any(self.prompts.get(name) for name in (*QUERY, *DOCUMENT))

    def prompt(
        self,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        query: bool = False,
        document: bool = False,
    ) -> str:
        """Returns the text before each text: a given one, one of the folder's, or the default one.

        `query` and `document` choose the folder's prompt for those, and none where the folder has none.
        Raises `ParameterError` if more than one is asked for, and for a name that the folder lacks.
        """
        names = {"prompt": prompt is not None, "prompt_name": prompt_name is not None}
        asked = [name for name, given in {**names, "query": query, "document": document}.items() if given]
        if len(asked) > 1:
            raise ParameterError(
                f"give one of {' and '.join(asked)}: each chooses the text before the others"
            )
        if prompt is not None:
            if not isinstance(prompt, str):
                raise ParameterError(f"prompt must be a str, not {type(prompt).__name__}")
            return prompt
        if query or document:
            names_of_role = QUERY if query else DOCUMENT
            return next((self.prompts[name] for name in names_of_role if name in self.prompts), "")
        name = self.default_prompt if prompt_name is None else prompt_name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in self.prompts:
            known = ", ".join(map(repr, self.prompts)) or "none"
            raise ParameterError(
                f"prompt_name must name a prompt of the folder, which has {known}, not {name!r}"
            )
        return self.prompts[name]
