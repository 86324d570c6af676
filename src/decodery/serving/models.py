"""Holds the models of a server, by the names under which clients ask for them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from decodery.errors import DecoderyError
from decodery.llm import LLM
from decodery.serving.errors import ApiError

log = logging.getLogger("decodery.serving")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Holds an open model, its name for clients, and when it was opened (seconds since 1970)."""

    name: str
    llm: LLM
    created: int


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Holds a model's name for clients, and the function that opens it."""

    name: str
    open: Callable[[], LLM]


class Models:
    """Opens the models on a thread of its own, and finds them by name."""

    def __init__(self, sources: Sequence[ModelSource]) -> None:
        self._sources = {source.name: source for source in sources}
        self._open: dict[str, ServedModel] = {}
        self.failure: Exception | None = None

    def load(self, ended: Callable[[], None]) -> None:
        """Opens the models in the background; calls `ended`, in that thread, when all are open or one fails.

        The error of the one that fails is in `failure`.
        """

        def work() -> None:
            try:
                for source in self._sources.values():
                    self._open[source.name] = ServedModel(source.name, source.open(), int(time.time()))
            except Exception as error:
                if not isinstance(error, DecoderyError):
                    log.exception("a model cannot be opened")
                self.failure = error
            ended()

        threading.Thread(target=work, name="decodery-loader", daemon=True).start()

    @property
    def names(self) -> list[str]:
        """Returns the names of all models."""
        return list(self._sources)

    @property
    def opened(self) -> list[ServedModel]:
        """Returns the models that are open."""
        return list(self._open.values())

    def get(self, name: object) -> ServedModel:
        """Returns the model of this name, or the first one if a request names none.

        Raises `ApiError`: 404 for an unknown name, 503 while the model is being opened.
        """
        if name is None:
            name = next(iter(self._sources))
        if not isinstance(name, str):
            raise ApiError(400, "model must be a text", param="model")
        if name not in self._sources:
            known = ", ".join(self._sources)
            raise ApiError(
                404, f"there is no such model here; there is {known}", param="model", code="model_not_found"
            )
        found = self._open.get(name)
        if found is None:
            raise ApiError(503, "the model is being opened", code="model_loading", retry_after=2)
        return found
