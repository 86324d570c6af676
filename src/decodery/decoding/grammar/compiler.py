"""Compiles grammars over one vocabulary, with the llguidance library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from llguidance import LLMatcher, LLTokenizer

from decodery.decoding.grammar.errors import refusal
from decodery.decoding.grammar.llguidance_source import LIMITS, after_text, source_of
from decodery.decoding.grammar.mask_threads import MaskThreads
from decodery.decoding.grammar.schema_forms import SchemaForm, schema_form
from decodery.decoding.grammar.state import CompiledGrammar, MatchedSequence, MatcherState, PrefixState
from decodery.decoding.request.grammar_params import Grammar, JsonSchema
from decodery.decoding.rows import GrammarState
from decodery.errors import ParameterError


@dataclass(frozen=True, slots=True)
class HealedPrompt:
    """Holds a prompt without its last token, and the state that makes the text begin with that token's text.

    `cut` is how many characters of the text repeat the prompt's end. It is 0 if no token was removed; `state`
    is then the grammar's initial state, or None without a grammar.
    """

    prompt: list[int]
    state: GrammarState | None
    cut: int


class GrammarCompiler:
    """Compiles grammars over the vocabulary that `decodery.text.tokenizer.grammar_vocab` makes.

    The grammars compiled last are cached.
    """

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer
        self._size = tokenizer.vocab_size - 1
        self._threads = MaskThreads()
        # Servers see the same few grammars again and again.
        self._compiled = lru_cache(maxsize=64)(self._compile)
        self._schemas = lru_cache(maxsize=64)(schema_form)
        self._compiled_forms = lru_cache(maxsize=64)(self._compile_form)

    def compile(self, grammar: Grammar) -> GrammarState:
        """Returns the initial state of a text that must match the grammar.

        Raises `ParameterError`, naming the grammar's class and the place of the fault, if the grammar cannot
        be read, asks for what is not supported, or is one that no text of this vocabulary matches.
        """
        return self._compiled(grammar, "")

    def form_of(self, grammar: Grammar) -> str:
        """Returns a grammar in the library's form. Raises `ParameterError` for faults known at once."""
        try:
            return self.schema(grammar).form if isinstance(grammar, JsonSchema) else source_of(grammar)
        except ParameterError:
            raise
        except ValueError as error:
            raise refusal(type(grammar).__name__, str(error)) from None

    def schema(self, grammar: JsonSchema) -> SchemaForm:
        """Returns what is made of a JSON schema. Raises `ParameterError` as `schema_form`."""
        return self._schemas(grammar)

    def spelled(self, text: str) -> tuple[int, ...]:
        """Returns the tokens of a text that continues another one."""
        return tuple(self._tokenizer.tokenize_bytes(text.encode()))

    def compile_form(self, name: str, form: str) -> MatcherState:
        """Returns the initial state of a text that must match a grammar in the library's form.

        Raises `ParameterError` that begins with `name`, as `compile`.
        """
        return self._compiled_forms(name, form)

    def heal(self, prompt: Sequence[int], grammar: Grammar | None) -> HealedPrompt:
        """Returns a prompt without its last token, and a state that makes the text begin with its characters.

        A prompt often ends inside a word that the model would split into other tokens. The token that spells
        the prompt's end and goes on is then impossible, unless the prompt's last token is chosen again
        ("token healing", of the guidance library). No token is removed if the last one is special, is not
        whole characters, or is the prompt's only one.
        """
        text = self._healable_text(prompt)
        if not text:
            return HealedPrompt(list(prompt), None if grammar is None else self.compile(grammar), 0)
        start = self._compiled(grammar, text)
        state = PrefixState(start, text.encode()) if grammar is None else start
        return HealedPrompt(list(prompt[:-1]), state, len(text))

    def _healable_text(self, prompt: Sequence[int]) -> str:
        """Returns the text of a prompt's last token; empty if it is not text or is all of the prompt."""
        if len(prompt) < 2 or prompt[-1] >= self._size or self._tokenizer.is_special_token(prompt[-1]):
            return ""
        try:
            text = self._tokenizer.decode_bytes([prompt[-1]]).decode()
        except UnicodeDecodeError:
            return ""
        # The library spells an id without a token like this.
        return "" if text == f"<[{prompt[-1]}]>" else text

    def _compile(self, grammar: Grammar | None, prefix: str) -> MatcherState:
        """Returns the initial state of texts that begin with `prefix` and then match the grammar, if any."""
        name = "token_healing" if grammar is None else type(grammar).__name__
        source = None if grammar is None else self.form_of(grammar)
        form = source if source is not None and not prefix else after_text(prefix, source)
        return self._compile_form(name, form)

    def _compile_form(self, name: str, form: str) -> MatcherState:
        try:
            matcher = LLMatcher(self._tokenizer, form, log_level=0, limits=LIMITS)
        except ValueError as error:
            raise refusal(name, str(error)) from None
        if matcher.is_error():
            raise refusal(name, matcher.get_error())
        compiled = CompiledGrammar(matcher, self._tokenizer, self._threads, self._size)
        start = MatcherState(compiled, MatchedSequence(matcher.deep_copy(), [], shared=True))
        if not start.allowed().any():
            only = "only the empty text" if start.accepting else "no text that this vocabulary can spell"
            raise ParameterError(f"{name} matches {only}: nothing can be generated")
        return start
