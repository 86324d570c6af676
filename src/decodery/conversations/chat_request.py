"""Makes the request for a reply to a conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from decodery.conversations.call_grammar import CallGrammar, schema_of, spaced
from decodery.conversations.chat_prompt import PromptWriter
from decodery.conversations.prompt_options import read_options
from decodery.conversations.reply_check import ReplyCheck
from decodery.decoding.grammar.compiler import GrammarCompiler
from decodery.decoding.grammar.reply_state import ReplyRules, TokenIndex
from decodery.decoding.grammar.schema_forms import SchemaForm
from decodery.decoding.grammar.state import MatcherState
from decodery.decoding.request.grammar_params import LOOSER, JsonSchema
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import GrammarState
from decodery.errors import DecoderyError, ParameterError, RequestError
from decodery.text.chat.messages import read_messages
from decodery.text.chat.reasoning import beginning_after, reasoning_marks
from decodery.text.chat.replies import ReplyFormat
from decodery.text.chat.tools import Tool, read_choice, read_tools
from decodery.text.streaming.regions import ReplyMarks
from decodery.text.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Holds what `Intake.prepare_chat` needs for the reply to a conversation, and how to read the reply.

    `calls` is what calls must match, if there may be any; with `must_call` the reply is calls alone. `banned`
    are texts with which calls would begin. `thinking_budget` is the most tokens of reasoning.
    """

    token_ids: list[int]
    params: GenerationParams
    reply: ReplyFormat
    calls: CallGrammar | None = None
    must_call: bool = False
    banned: tuple[str, ...] = ()
    thinking_budget: int | None = None

    @property
    def compiles(self) -> bool:
        """True if a grammar must be compiled."""
        return self.calls is not None or self.params.grammar is not None


class Conversations:
    """Makes the requests for replies to conversations, for one model.

    Several threads may use it at once. `grammars` returns the compiler of the model's vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, grammars: Callable[[], GrammarCompiler]) -> None:
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._prompts = PromptWriter(tokenizer)
        self._index: TokenIndex | None = None

    def text(self, messages: Any, tools: Any = None, **template: Any) -> str:
        """Returns a conversation in the model's chat template, ready for the reply, as text.

        `template` has the arguments of `PromptOptions`, and variables of the template. The text does not say
        which control tokens come from the template: `token_ids` does. The errors are those of
        `read_messages`, `read_tools` and `PromptWriter.write`.
        """
        return self._prompts.write(read_messages(messages), read_tools(tools), template).text

    def token_ids(self, messages: Any, tools: Any = None, **template: Any) -> list[int]:
        """Returns the token ids of a conversation; the arguments and errors are those of `text`."""
        prompt = self._prompts.write(read_messages(messages), read_tools(tools), template)
        return self._prompts.token_ids(prompt)

    def request(
        self,
        messages: Any,
        params: GenerationParams,
        *,
        tools: Any = None,
        tool_choice: Any = "auto",
        parallel_tool_calls: bool = True,
        thinking_token_budget: int | None = None,
        **template: Any,
    ) -> ChatRequest:
        """Returns the request for a reply. The errors are those of `text` and `read_choice`."""
        read, declared = read_messages(messages), read_tools(tools)
        choice = read_choice(tool_choice, declared)
        budget = _checked_budget(thinking_token_budget)
        if not isinstance(parallel_tool_calls, bool):
            raise ParameterError("parallel_tool_calls must be True or False", param="parallel_tool_calls")
        prompt = self._prompts.write(read, declared, template)
        adapted = prompt.adapted
        callable_tools = [t for t in declared if choice.name in (None, t.name) and choice.mode != "none"]
        form = adapted.form
        reasoning = reasoning_marks(prompt.template, self._tokenizer.token_id)
        started = read[-1]["content"] if read_options(template)[0].continue_final_message else None
        marks = ReplyMarks(
            reasoning,
            beginning_after(prompt.text, reasoning, started),
            form.triggers([tool.name for tool in callable_tools]) if callable_tools else (),
            anchored=not form.marked,
        )
        named = choice.name is not None
        calls = None
        if callable_tools:
            calls = CallGrammar(
                form, callable_tools, parallel_tool_calls and not named, self._special(form.tokens)
            )
        return ChatRequest(
            self._prompts.token_ids(prompt),
            params,
            ReplyFormat(marks, form if callable_tools else None, named, adapted.short_ids),
            calls,
            must_call=choice.mode == "required",
            banned=(form.begin,) if declared and choice.mode == "none" and form.marked else (),
            thinking_budget=budget if reasoning is not None else None,
        )

    def shown(self, request: ChatRequest) -> frozenset[int]:
        """Returns the special tokens that are marks of a reply, so that its raw text must contain them."""
        marks = [*(request.reply.marks.reasoning or ())]
        if request.reply.tools is not None:
            marks += request.reply.tools.tokens
        return frozenset(self._special(marks).values())

    def grammar(self, request: ChatRequest) -> GrammarState | None:
        """Returns the state of a reply before its first token, or None if nothing may be banned.

        Raises `ParameterError` for a grammar, and `RequestError` for a schema of a tool, that cannot be
        followed.
        """
        marks = request.reply.marks
        bounded = request.must_call or request.params.grammar is not None
        if not (bounded or request.calls or request.banned or request.thinking_budget is not None):
            return None
        reasons = marks.reasoning is not None and marks.beginning != "content"
        direct = self._content(request, space=False) if bounded and marks.beginning != "reasoning" else None
        if direct is not None and not reasons:
            return direct
        calls = None
        if not bounded and request.calls is not None:
            calls = self._compiled_calls(request.calls, space=False, content=None)
        triggers = () if bounded else (*marks.calls, *request.banned)
        begin = None if request.calls is None else request.calls.tokens.get(request.calls.form.begin)
        tokenizer = self._tokenizer
        hidden = frozenset(tokenizer.special_ids) | frozenset(tokenizer.eos_token_ids)
        visible = {*self.shown(request), *self._special(request.banned).values()}
        reasoning = marks.reasoning
        rules = ReplyRules(
            marks=ReplyMarks(
                None if reasoning is None else (_latin(reasoning[0]), _latin(reasoning[1])),
                marks.beginning,
                tuple(map(_latin, triggers)),
                marks.anchored,
            ),
            index=self._tokens(),
            hidden=hidden - visible,
            calls=calls,
            begin_token=begin,
            content=self._content(request, space=True) if bounded else None,
            direct=direct,
            budget=request.thinking_budget,
            closing=() if reasoning is None else self._mark(reasoning[1]),
        )
        return rules.start()

    def _content(self, request: ChatRequest, *, space: bool) -> MatcherState:
        """Returns the grammar of a reply without its reasoning."""
        grammar, compiler = request.params.grammar, self._grammars()
        form = None if grammar is None or request.must_call else compiler.form_of(grammar)
        if request.calls is not None:
            return self._compiled_calls(request.calls, space=space, content=form)
        assert form is not None
        return compiler.compile_form(type(grammar).__name__, spaced(form) if space else form)

    def check(self, request: ChatRequest) -> tuple[ReplyCheck | None, tuple[str, ...]]:
        """Returns the check of a reply that has ended, if it must match schemas, and warnings for the user.

        The errors are those of `grammar`.
        """
        compiler, grammar = self._grammars, request.params.grammar
        content = compiler().schema(grammar) if isinstance(grammar, JsonSchema) else None
        tools = request.calls.tools if request.calls is not None else ()
        forms = {tool.name: self._arguments(tool) for tool in tools}
        if content is None and not forms:
            return None, ()
        found = [*forms.values(), *([] if content is None else [content])]
        warnings = dict.fromkeys(warning for form in found for warning in form.warnings)
        check = ReplyCheck(
            request.reply,
            None if content is None or request.must_call else content.check,
            {name: form.check for name, form in forms.items()},
        )
        return check, tuple(warnings)

    def _arguments(self, tool: Tool) -> SchemaForm:
        """Returns what is made of the schema of a tool's arguments. Raises `RequestError` with its place."""
        try:
            return self._grammars().schema(schema_of(tool))
        except ParameterError as error:
            # A declaration has a form of its own.
            message = str(error).replace(LOOSER, '"strict": false')
            raise RequestError(message, param=tool.place) from None

    def _compiled_calls(self, calls: CallGrammar, *, space: bool, content: str | None) -> MatcherState:
        """Returns the grammar of calls, or of calls or content. Raises `RequestError` with the tool."""
        compiler = self._grammars()
        forms = [self._arguments(tool).form for tool in calls.tools]
        try:
            return compiler.compile_form("tools", calls.source(forms, space=space, content=content))
        except ParameterError:
            for tool, form in zip(calls.tools, forms, strict=True):
                single = CallGrammar(calls.form, [tool], False, calls.tokens)
                _check_schema(compiler, single.source([form]), tool)
            raise

    def _special(self, texts: Sequence[str]) -> dict[str, int]:
        """Returns the ids of those texts that are special tokens."""
        found = {text: self._tokenizer.token_id(text) for text in texts}
        return {t: id_ for t, id_ in found.items() if id_ is not None and id_ in self._tokenizer.special_ids}

    def _mark(self, text: str) -> tuple[int, ...]:
        token = self._tokenizer.token_id(text)
        return (token,) if token is not None else self._grammars().spelled(text)

    def _tokens(self) -> TokenIndex:
        if self._index is None:
            tokenizer = self._tokenizer
            self._index = TokenIndex([tokenizer.token_bytes(t) for t in range(tokenizer.vocab_size)])
        return self._index


def _checked_budget(budget: Any) -> int | None:
    if budget is not None and (type(budget) is not int or budget < 0):
        raise ParameterError(
            "thinking_token_budget must be a whole number from 0 on, or None", param="thinking_token_budget"
        )
    return budget


def _check_schema(compiler: GrammarCompiler, form: str, tool: Tool) -> None:
    try:
        compiler.compile_form(tool.place, form)
    except DecoderyError as error:
        raise RequestError(str(error), param=tool.place) from None


def _latin(text: str) -> str:
    """Returns a character for each byte of a text."""
    return text.encode().decode("latin-1")
