"""The errors that a caller is meant to catch. Everything else that is raised is a defect."""

from __future__ import annotations


class DecoderyError(Exception):
    """Something asked of the engine cannot be done; the message is one line that says what to do."""


class ParameterError(DecoderyError, ValueError):
    """A generation parameter, or a combination of them, has no meaning; the message names the field."""


class ModelError(DecoderyError):
    """A model cannot be found, read or computed."""


class CheckpointError(ModelError):
    """A checkpoint's files are damaged, incomplete or do not describe the tensors they hold."""


class RequestError(DecoderyError, ValueError):
    """A request can never run here: its prompt is empty, too long, or does not fit the memory."""


class CallbackError(ParameterError):
    """A function that a request brought along failed; `request` is the one to end."""

    def __init__(self, message: str, request: int) -> None:
        super().__init__(message)
        self.request = request
