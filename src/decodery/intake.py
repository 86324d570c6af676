"""Turns what a user asks for into a request for an engine: token ids, states of text and grammar, models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Number
from typing import Any, TypeVar

from decodery.conversations.chat_request import ChatRequest, Conversations
from decodery.decoding.grammar.compiler import GrammarCompiler, HealedPrompt
from decodery.decoding.grammar.state import DEAD
from decodery.decoding.json_schema.schema_check import Problem
from decodery.decoding.request.grammar_params import JsonSchema
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import DraftModel
from decodery.decoding.request.strategy_params import BeamSearch, ContrastiveDecoding, DoLa, Phrase, Strategy
from decodery.decoding.rows import GrammarState
from decodery.decoding.strategies.dola import candidate_layers
from decodery.engine.embedded_prompt import EmbeddedPrompt
from decodery.engine.pages import encode_salt
from decodery.errors import ModelError, ParameterError, RequestError
from decodery.loading.open_model import SecondModels
from decodery.models.contract import CausalModel
from decodery.text.infill import infill_tokens
from decodery.text.streaming.detokenizer import TextState, start
from decodery.text.streaming.prompt_text import prompt_text
from decodery.text.tokenizer.grammar_vocab import grammar_vocabulary
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.token_ids import plain

Prompt = str | Sequence[int] | EmbeddedPrompt
Message = Mapping[str, Any]
Added = TypeVar("Added")
# Characters that no token has; a text with more for each token of the context need not be encoded.
LONGEST_TOKEN = 256


@dataclass(frozen=True, slots=True)
class Prepared:
    """Holds a request as an engine takes it, and what is needed to read its output.

    `text` is the prompt if it was given as text, `token_ids` are its tokens. `prompt` is what runs: a healed
    prompt lacks the last token. `text_state` and `grammar` are the states before the first generated token.
    `end_ids` are the tokens that end the text. `check` returns what is wrong with a text that has ended, if
    it must match a JSON schema. `warnings` say which part of the request has no effect. `echoed` is the
    prompt's text if it is put in front of each completion, else "". The last `generated` tokens of the prompt
    are the beginning of the text, which the states have seen, and have released as `generated_text`.
    """

    text: str | None
    token_ids: list[int]
    prompt: Sequence[int] | EmbeddedPrompt
    params: GenerationParams
    text_state: TextState
    grammar: GrammarState | None
    contrast_model: CausalModel | None
    draft_model: CausalModel | None
    end_ids: frozenset[int]
    salt: bytes
    check: Callable[[str], Problem | None] | None = None
    warnings: tuple[str, ...] = ()
    echoed: str = ""
    generated: int = 0
    generated_text: str = ""

    def add_with(self, add: Callable[..., Added], explain: int = 0) -> Added:
        """Returns the result of `add`, a function that takes what `Engine.add` takes, on this request."""
        # A text state that cannot stop the row is not needed in the engine.
        watched = bool(self.params.stop) or self.params.stop_regex is not None
        return add(
            self.prompt,
            self.params,
            self.text_state if watched else None,
            grammar=self.grammar,
            contrast_model=self.contrast_model,
            draft_model=self.draft_model,
            explain=explain,
            salt=self.salt,
            generated=self.generated,
        )


class Intake:
    """Prepares the requests for one model.

    It depends on no engine and keeps nothing of a request, so several threads may use it at once, beside the
    thread of the engine. An engine checks the sizes of a request when it is added.
    """

    def __init__(self, tokenizer: Tokenizer, model: CausalModel, second_models: SecondModels) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = model.vocab_size
        self._context_length = model.context_length
        self._longest = model.context_length * LONGEST_TOKEN
        self._second_models = second_models
        self._resolver = Resolver(tokenizer, model)
        self._grammars: GrammarCompiler | None = None
        self.conversations = Conversations(tokenizer, self._compiler)

    @property
    def second_models(self) -> tuple[str, ...]:
        """Returns the names of second models that requests may use."""
        return self._second_models.names

    def prepare(
        self, prompt: Prompt, params: GenerationParams, *, salt: bytes = b"", generated: int = 0
    ) -> Prepared:
        """Returns a request for this prompt, with a salt of `encode_salt` for its pages.

        The last `generated` ids of the prompt are text that the same request generated before: what follows
        is what followed there.

        Raises `RequestError` for a malformed prompt, `ParameterError` for parameters that this model or its
        vocabulary cannot have, and `ModelError` if a second model cannot be opened.
        """
        if not generated:
            return self._prepared(prompt, params, salt, None)
        prompt = _checked(prompt)
        if isinstance(prompt, (str, EmbeddedPrompt)) or not 0 < generated < len(prompt):
            raise RequestError(
                f"generated is {generated!r}: it counts ids at the end of a prompt of ids, less than all"
            )
        # All of it is replayed, so that what can never run is refused first.
        if len(prompt) > self._context_length:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, and the context holds {self._context_length}"
            )
        split = len(prompt) - generated
        return _continued(self._prepared(prompt[:split], params, salt, None), prompt[split:])

    def _prepared(
        self, prompt: Prompt, params: GenerationParams, salt: bytes, chat: ChatRequest | None
    ) -> Prepared:
        prompt = _checked(prompt)
        if not isinstance(params, GenerationParams):
            raise ParameterError(f"params must be GenerationParams, not {type(params).__name__}")
        if chat is not None:
            params.check_conversation()
        ids = self.token_ids(prompt)
        if not ids:
            raise RequestError("the prompt is empty: give some text")
        params.check_vocabulary(self._vocab_size)
        asked = self._resolver.resolved(params)
        embedded = prompt if isinstance(prompt, EmbeddedPrompt) else None
        contrast_model, draft_model = self._models(asked, embedded)
        healed = self._healed(asked, ids) if chat is None else self._chat_start(asked, ids, chat)
        stop = asked.stop if isinstance(asked.stop, tuple) else (asked.stop,)
        text_state = start(
            self._tokenizer,
            stop,
            stop_regex=asked.stop_regex,
            skip_special_tokens=asked.skip_special_tokens,
            include_stop=asked.include_stop,
            min_tokens=asked.min_tokens,
            cut=healed.cut,
            marks=None if chat is None or chat.reply.plain else chat.reply.marks,
            shown=frozenset() if chat is None else self.conversations.shown(chat),
        )
        check, warnings = self._check(asked, chat)
        ends = () if asked.ignore_eos else self._tokenizer.eos_token_ids
        text = prompt if isinstance(prompt, str) else None
        return Prepared(
            text=text,
            token_ids=ids,
            prompt=healed.prompt if embedded is None else embedded.with_tokens(healed.prompt),
            params=asked,
            text_state=text_state,
            grammar=healed.state,
            contrast_model=contrast_model,
            draft_model=draft_model,
            end_ids=frozenset((*asked.stop_token_ids, *ends)),
            salt=salt,
            check=check,
            warnings=warnings,
            echoed=prompt_text(self._tokenizer, ids, text)[0] if asked.echo else "",
        )

    def _check(
        self, params: GenerationParams, chat: ChatRequest | None
    ) -> tuple[Callable[[str], Problem | None] | None, tuple[str, ...]]:
        """Returns the check of texts that have ended, if there is one, and warnings for the user."""
        if chat is not None:
            reply, warnings = self.conversations.check(chat)
            return None if reply is None else reply.problem, warnings
        if not isinstance(params.grammar, JsonSchema):
            return None, ()
        schema = self._compiler().schema(params.grammar)
        return schema.check.problem, schema.warnings

    def chat_request(
        self,
        messages: Sequence[Message],
        params: GenerationParams,
        *,
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        thinking_token_budget: int | None = None,
        **template: Any,
    ) -> ChatRequest:
        """Returns the request for a reply to a conversation, for `prepare_chat`.

        `tools` are functions that the reply may call: Python functions, whose hints and docstrings declare
        them (`declaration_of`), or declarations in OpenAI's shape. `tool_choice` is "auto", "none",
        "required" (or "any"), or the function that it must call. After `thinking_token_budget` tokens of
        reasoning, its end is forced. `template` has the arguments of `PromptOptions`, and variables of the
        template. Raises `RequestError` with the place of a fault, and `ModelError` as `render_chat`.
        """
        return self.conversations.request(
            messages,
            params,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            thinking_token_budget=thinking_token_budget,
            **template,
        )

    def prepare_chat(self, request: ChatRequest, *, salt: bytes = b"") -> Prepared:
        """Returns a request for this reply, as `prepare` does. A grammar begins after reasoning.

        Raises `RequestError` if the schema of a tool cannot be followed.
        """
        return self._prepared(request.token_ids, request.params, salt, request)

    def chat_prompt(self, messages: Sequence[Message], **template: Any) -> list[int]:
        """Returns the token ids of a conversation in the model's chat template, ready for the reply.

        The texts of control tokens in messages are plain text. `template` and the errors are those of
        `Conversations.text`.
        """
        return self.conversations.token_ids(messages, **template)

    def chat_text(self, messages: Sequence[Message], **template: Any) -> str:
        """Returns a conversation in the model's chat template as text, for people to read.

        The text does not say which texts of control tokens are such tokens; the ids of `chat_prompt` do.
        """
        return self.conversations.text(messages, **template)

    @property
    def can_infill(self) -> bool:
        """True if the model has the tokens that `infill_prompt` needs."""
        try:
            infill_tokens(self._tokenizer)
        except ModelError:
            return False
        return True

    def infill_prompt(self, prefix: str, suffix: str) -> tuple[list[int], tuple[int, ...]]:
        """Returns the token ids of a prompt that asks for the text between `prefix` and `suffix`, and the
        tokens that end it.

        The texts of special tokens in them are plain text. Raises `RequestError` if neither is a text with
        characters, and `ModelError` if the model cannot fill in.
        """
        for name, text in (("prefix", prefix), ("suffix", suffix)):
            if not isinstance(text, str):
                raise RequestError(f"{name} must be a text, not {type(text).__name__}")
        if not prefix and not suffix:
            raise RequestError("prefix and suffix are both empty: give some text")
        tokens = infill_tokens(self._tokenizer)
        before = self._tokenizer.encode(prefix, add_special_tokens=False, parse_special=False)
        after = self._tokenizer.continuing_ids(suffix)
        return [*self._tokenizer.prefix_ids, *tokens.prompt(before, after)], tokens.ends

    def token_ids(self, prompt: Prompt, *, add_special_tokens: bool = True) -> list[int]:
        """Returns the token ids of a prompt: none for an empty one.

        A text may get special tokens, such as that of its beginning. Raises `RequestError` for a malformed
        prompt, and for a text so long that no context holds it.
        """
        prompt = _checked(prompt)
        if not isinstance(prompt, str):
            return list(prompt.token_ids if isinstance(prompt, EmbeddedPrompt) else prompt)
        if len(prompt) > self._longest:
            raise RequestError(
                f"the prompt has {len(prompt)} characters, which do not fit into the context: shorten it"
            )
        return self._tokenizer.encode(prompt, add_special_tokens=add_special_tokens)

    def _models(
        self, params: GenerationParams, embedded: EmbeddedPrompt | None
    ) -> tuple[CausalModel | None, CausalModel | None]:
        """Returns the second models of contrastive decoding and of speculation."""
        contrast_model = draft_model = None
        strategy, speculation = params.strategy, params.speculate
        if isinstance(strategy, ContrastiveDecoding):
            _refuse_embedded(embedded, "ContrastiveDecoding")
            contrast_model = self._second_models.named("amateur", strategy.amateur)
        if isinstance(speculation, DraftModel):
            _refuse_embedded(embedded, "DraftModel")
            draft_model = self._second_models.named("DraftModel's model", speculation.model)
        return contrast_model, draft_model

    def _healed(self, params: GenerationParams, ids: list[int]) -> HealedPrompt:
        """Returns the tokens after which generation starts, and the state of the grammar there."""
        if params.grammar is None and not params.token_healing:
            return HealedPrompt(ids, None, 0)
        grammars = self._compiler()
        if params.token_healing:
            return grammars.heal(ids, params.grammar)
        state = None if params.grammar is None else grammars.compile(params.grammar)
        return HealedPrompt(ids, state, 0)

    def _chat_start(self, params: GenerationParams, ids: list[int], chat: ChatRequest) -> HealedPrompt:
        """Returns the same for the reply to a conversation."""
        state = self.conversations.grammar(chat)
        if state is None:
            return self._healed(params, ids)
        if params.token_healing:
            raise ParameterError(
                "token_healing does not go together with tools, a grammar or a budget in a conversation"
            )
        return HealedPrompt(ids, state, 0)

    def _compiler(self) -> GrammarCompiler:
        if self._grammars is None:
            # Two threads may both get here; either compiler serves.
            self._grammars = GrammarCompiler(grammar_vocabulary(self._tokenizer))
        return self._grammars


def _continued(start: Prepared, tokens: Sequence[int]) -> Prepared:
    """Returns a request whose text begins with these tokens. Raises `RequestError` if its grammar does not
    allow them."""
    state, grammar, released = start.text_state, start.grammar, ""
    for token in tokens:
        if token not in start.end_ids:
            state = state.after(token)
            released += state.piece
        if grammar is not None:
            grammar = grammar.after(token)
            if grammar == DEAD:
                raise RequestError(f"the grammar does not allow token {token} where the prompt has it")
    assert not isinstance(start.prompt, EmbeddedPrompt)
    return replace(
        start,
        token_ids=[*start.token_ids, *tokens],
        prompt=[*start.prompt, *tokens],
        text_state=state,
        grammar=grammar,
        echoed=start.echoed + released if start.params.echo else "",
        check=None if start.check is None else _whole_text_check(start.check, released),
        generated=len(tokens),
        generated_text=released,
    )


def _whole_text_check(check: Callable[[str], Problem | None], before: str) -> Callable[[str], Problem | None]:
    """Returns the check of a text of which the first part was released before."""
    return lambda text: check(before + text)


def salt_of(cache_salt: str | None) -> bytes:
    """Returns the salt of requests with this `cache_salt`; those with None share the common cache.

    Raises `ParameterError` for anything else.
    """
    if cache_salt is None:
        return encode_salt(())
    if not isinstance(cache_salt, str):
        raise ParameterError(f"cache_salt must be a text or None, not {cache_salt!r}")
    return encode_salt((b"cache_salt", cache_salt.encode("utf-8", "surrogatepass")))


def _checked(prompt: Any) -> Prompt:
    """Returns the prompt. Raises `RequestError` if it is none."""
    if isinstance(prompt, (str, EmbeddedPrompt)):
        return prompt
    kind, prompt = type(prompt).__name__, plain(prompt)
    if not isinstance(prompt, Sequence) or isinstance(prompt, (bytes, bytearray)):
        raise RequestError(f"a prompt must be a text or a list of token ids, not {kind}")
    ids = [token if type(token) is int else plain(token) for token in prompt]
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool):
            shown = repr(token) if isinstance(token, Number) else type(token).__name__
            raise RequestError(f"a prompt's token ids must be whole numbers, not {shown}")
    return ids


def _refuse_embedded(embedded: EmbeddedPrompt | None, name: str) -> None:
    if embedded is not None:
        raise ParameterError(
            f"{name} and an EmbeddedPrompt do not go together: the vectors mean nothing to a second model"
        )


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
        if params.echo and params.prompt_logprobs is None and params.logprobs is not None:
            changes["prompt_logprobs"] = params.logprobs
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
