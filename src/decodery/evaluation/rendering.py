"""Makes token ids of prompts and continuations, with exactly one rule for the token of the beginning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

from decodery.errors import ParameterError, RequestError
from decodery.evaluation.contract import Prompt


class Encodes(Protocol):
    """Converts between texts and token ids."""

    @property
    def bos_token_id(self) -> int | None: ...

    @property
    def eos_token_ids(self) -> Any: ...

    @property
    def prefix_ids(self) -> list[int]: ...

    def encode(
        self, text: str, *, add_special_tokens: bool = True, parse_special: bool = True
    ) -> list[int]: ...

    def continuing_ids(self, text: str) -> list[int]: ...


class ChatIds(Protocol):
    """Returns the token ids of a conversation in the model's template, ready for the reply.

    If the last message has the role "assistant", the reply continues it.
    """

    def __call__(self, messages: Sequence[Mapping[str, Any]]) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Joined:
    """Holds the ids of a prompt and of what follows it. `together` is False if they were encoded apart."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    together: bool = True


class Renderer:
    """Renders prompts for one model, as texts, or with `chat` as conversations in its template.

    `bos` says whether a prompt begins with the token of the beginning: exactly once, in texts and
    conversations alike. With None, it does where the tokenizer or the template adds it. Whole texts and
    continuations of an empty prompt follow `prefix_token` whatever `bos` is. Raises `ParameterError` for
    `bos` without such a token.
    """

    def __init__(
        self, tokenizer: Encodes, chat_ids: ChatIds, *, chat: bool = False, bos: bool | None = None
    ) -> None:
        if bos and tokenizer.bos_token_id is None:
            raise ParameterError("bos is True, and the tokenizer has no token of the beginning")
        self._tokenizer = tokenizer
        self._chat_ids = chat_ids
        self.chat = chat
        self._bos = bos
        # The continuations of one prompt are asked for one after another.
        self._remembered_ids = lru_cache(maxsize=8)(self._ids_of_prompt)

    @property
    def prefix_token(self) -> int:
        """Returns the token before the first one of a text that is scored whole."""
        token: int | None = self._tokenizer.bos_token_id
        if token is None:
            token = next(iter(self._tokenizer.eos_token_ids), None)
        if token is None:
            raise ParameterError(
                "the tokenizer has no token of the beginning or the end, to put before a text"
            )
        return token

    def describe_bos(self) -> str:
        """Returns "once" if prompts begin with the token of the beginning, else "none".

        "none" is followed by the token that comes before whole texts and before continuations of an empty
        prompt: these have no log-probability without a token before them.
        """
        ids = self.prompt_ids(Prompt("a"))
        bos = self._tokenizer.bos_token_id
        if bos is not None and ids[:1] == (bos,):
            return "once"
        if bos is None and not list(self._tokenizer.eos_token_ids):
            return "none"
        return f"none; texts without a prompt follow the token of the {'end' if bos is None else 'beginning'}"

    def messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        """Returns the conversation that ends with the question, or with the beginning of the reply.

        White space at the end of that beginning is left out: it belongs to what follows. The description is
        the system message, or the beginning of the first question if the template has no system message.
        """
        found = []
        for shot in prompt.shots:
            found += [
                {"role": "user", "content": shot.question},
                {"role": "assistant", "content": shot.answer},
            ]
        begun = prompt.reply.rstrip()
        reply = [{"role": "assistant", "content": begun}] if begun else []
        found += [{"role": "user", "content": prompt.question}, *reply]
        if not prompt.description:
            return found
        if self._has_system_message:
            return [{"role": "system", "content": prompt.description}, *found]
        return [{"role": "user", "content": prompt.description + found[0]["content"]}, *found[1:]]

    @cached_property
    def _has_system_message(self) -> bool:
        try:
            self._chat_ids([{"role": "system", "content": "a"}, {"role": "user", "content": "a"}])
        except RequestError:
            return False
        return True

    def text(self, prompt: Prompt) -> str:
        """Returns the text of a prompt, without the delimiter before the answer."""
        parts = [f"{shot.question}{prompt.delimiter}{shot.answer}{prompt.separator}" for shot in prompt.shots]
        reply = f"{prompt.delimiter}{prompt.reply}" if prompt.reply else ""
        return prompt.description + "".join(parts) + prompt.question + reply

    def prompt_ids(self, prompt: Prompt, *, keep_end: bool = False) -> tuple[int, ...]:
        """Returns the ids of a prompt: of a text without the white space at its end, unless it is kept."""
        if keep_end and not self.chat:
            return self._text_ids(self.text(prompt))
        return self._remembered_ids(prompt)

    def _ids_of_prompt(self, prompt: Prompt) -> tuple[int, ...]:
        if self.chat:
            return self.begun(self._chat_ids(self.messages(prompt)))
        return self._text_ids(self.text(prompt).rstrip())

    def joined(self, prompt: Prompt, continuation: str) -> Joined:
        """Returns the ids of a prompt and of a continuation after its delimiter.

        White space at the end of a text belongs to the continuation. The two are encoded as one, unless the
        tokens of the prompt would change: then apart, so that no character of the continuation is lost.
        Raises `ParameterError` for a continuation without tokens.
        """
        if self.chat:
            before = self.prompt_ids(prompt)
            rest = continuation.lstrip()
            if begun := prompt.reply.rstrip():
                rest = prompt.reply[len(begun) :] + prompt.delimiter + continuation
            return Joined(before, self._some(self._after(rest), continuation))
        text = self.text(prompt)
        kept = text.rstrip()
        rest = text[len(kept) :] + prompt.delimiter + continuation
        if not kept:
            ids = self._tokenizer.encode(rest, add_special_tokens=False, parse_special=False)
            return Joined((self.prefix_token,), self._some(ids, continuation))
        before = self.prompt_ids(prompt)
        whole = self._with_rest(prompt, kept, rest, before)
        if whole[: len(before)] == before and len(whole) > len(before):
            return Joined(before, whole[len(before) :])
        return Joined(before, self._some(self._after(rest), continuation), together=False)

    def _with_rest(self, prompt: Prompt, kept: str, rest: str, before: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the ids of the text of a prompt and of what follows, encoded as one.

        The shots are not encoded again: if the last question, with the separator before it, has the same
        tokens alone as within the prompt, then so it has with the rest after it.
        """
        if prompt.shots:
            start = len(self.text(replace(prompt, question="", reply="")).rstrip())
            last, both = self.whole_ids(kept[start:]), self.whole_ids(kept[start:] + rest)
            if last and before[-len(last) :] == last:
                return before[: -len(last)] + both
        return self._text_ids(kept + rest)

    def whole_ids(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a text that is scored whole, without the token before it."""
        ids = self._tokenizer.encode(text, add_special_tokens=False, parse_special=False)
        return tuple(ids)

    def begun(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Returns ids with the token of the beginning once, or without it."""
        bos = self._tokenizer.bos_token_id
        start = 0
        while bos is not None and ids[start : start + 1] == [bos]:
            start += 1
        wanted = self._bos if self._bos is not None else start > 0
        return tuple([bos] if wanted and bos is not None else []) + tuple(ids[start:])

    def cut(self, ids: Sequence[int], most: int) -> tuple[int, ...]:
        """Returns the last `most` ids. The first is the token of the beginning, if that began them."""
        if len(ids) <= most:
            return tuple(ids)
        first = tuple(ids[:1]) if ids[0] == self._tokenizer.bos_token_id and most > 1 else ()
        return first + tuple(ids[len(ids) - most + len(first) :])

    def _after(self, text: str) -> list[int]:
        return self._tokenizer.continuing_ids(text) if text else []

    def _text_ids(self, text: str) -> tuple[int, ...]:
        ids = self._tokenizer.encode(text, add_special_tokens=False, parse_special=False)
        return self.begun([*self._tokenizer.prefix_ids, *ids])

    @staticmethod
    def _some(ids: Sequence[int], continuation: str) -> tuple[int, ...]:
        if not ids:
            raise ParameterError(f"the continuation {continuation!r} has no tokens")
        return tuple(ids)
