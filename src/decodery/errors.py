"""Defines the errors that a caller should catch. Any other exception is a defect of the package."""

from __future__ import annotations


class DecoderyError(Exception):
    """Is the base of all errors here. The message is one line that says what to do.

    `param` is the place of the cause in what the caller gave, such as "messages[2].content", if it is known.
    """

    def __init__(self, message: str = "", *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ParameterError(DecoderyError, ValueError):
    """Reports a parameter or a combination of parameters without meaning; the message names the field."""


class ModelError(DecoderyError):
    """Reports a model that cannot be found, read or computed."""


class CheckpointError(ModelError):
    """Reports a checkpoint whose files are damaged, incomplete or do not describe their tensors."""


class CaptureError(ModelError):
    """Reports a model whose steps cannot be replayed; the message names the operation and the caller."""


class RequestError(DecoderyError, ValueError):
    """Reports a request that can never run here: its prompt is empty, too long, or exceeds the memory."""


class CallbackError(ParameterError):
    """Reports that a callback of a request failed; `request` is the id of the request to end."""

    def __init__(self, message: str, request: int) -> None:
        super().__init__(message)
        self.request = request


class ModelWarning(UserWarning):
    """Tells that a fault in a model's files was corrected; the message names the file."""
