"""Holds the request for a reply to a conversation."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.decoding.request.params import GenerationParams
from decodery.text.chat.replies import ReplyFormat


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Holds what `Intake.prepare_chat` needs for the reply to a conversation, and how to read the reply."""

    token_ids: list[int]
    params: GenerationParams
    reply: ReplyFormat
