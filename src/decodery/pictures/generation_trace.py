"""How a text came about: what the engine told while it was generated."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.trace import BeamCandidate, Considered
from decodery.engine.request import Event
from decodery.outputs import Completion, RequestOutput
from decodery.text.streaming.detokenizer import start
from decodery.text.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Step:
    """What one step brought a completion; of `drafts`, the first `accepted` are among the tokens."""

    tokens: tuple[int, ...]
    considered: tuple[Considered, ...] = ()
    drafts: tuple[int, ...] = ()
    accepted: int = 0


@dataclass
class GenerationTrace:
    """One prompt's: `steps` of each stream, and the `beams` of each step where there are any.

    `model` is the model's name for a person. `output` is there at the end.
    """

    prompt: str
    model: str
    params: GenerationParams
    tokenizer: Tokenizer
    steps: dict[int, list[Step]] = field(default_factory=dict)
    beams: list[tuple[BeamCandidate, ...]] = field(default_factory=list)
    output: RequestOutput | None = None

    def take(self, event: Event) -> None:
        """Add what an event tells."""
        if event.beams:
            self.beams.append(event.beams)
        if event.stream is not None and event.tokens:
            step = Step(event.tokens, event.considered, event.drafts, event.accepted)
            self.steps.setdefault(event.stream, []).append(step)

    @property
    def completions(self) -> list[Completion]:
        """The completions, once there are some."""
        return [] if self.output is None else self.output.completions

    def settings(self) -> list[tuple[str, str]]:
        """The parameters that differ from the defaults."""
        plain = GenerationParams()
        return [
            (f.name, _shown(getattr(self.params, f.name)))
            for f in fields(self.params)
            if getattr(self.params, f.name) != getattr(plain, f.name) and f.name != "seed"
        ]

    def pieces(self, tokens: list[int]) -> list[str]:
        """The text that each token completes: "" for one that ends inside a character."""
        state = start(self.tokenizer, skip_special_tokens=False)
        pieces = []
        for token in tokens:
            state = state.after(token)
            pieces.append(state.piece)
        if pieces:
            pieces[-1] += state.flush()
        return pieces

    def label(self, token: int) -> str:
        """A token on one line."""
        return self.tokenizer.token_label(token)


def _shown(value: object) -> str:
    """A value for a person; of an object, the fields that differ from its defaults."""
    if isinstance(value, tuple) and value and all(callable(item) for item in value):
        return ", ".join(getattr(item, "__name__", "a function") for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        given = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}
        told = ", ".join(f"{name}={_shown(item)}" for name, item in given.items())
        return f"{type(value).__name__}({told})"
    return getattr(value, "__name__", repr(value)) if callable(value) else repr(value)
