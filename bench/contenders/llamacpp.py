"""Runs llama.cpp through the low-level calls of llama-cpp-python: batches of sequences, numpy's argmax.

Single texts are written by its class `Llama`, which has prompt lookup.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contenders.contender import Arrival, Prompt, Stamps, Timing, Writing

BATCH = 2048
SLOTS = 32
# The context of single texts, for which prompt lookup keeps the logits of every position.
WRITTEN = 1024


def prepare() -> None:
    """Imports the library."""
    import llama_cpp  # noqa: F401
    import numpy  # noqa: F401


@dataclass
class Slot:
    """Holds a sequence of a context.

    `prompt` is the part of the prompt that has not run, `left` how many tokens are still to generate.
    """

    request: int
    prompt: list[int]
    left: int
    position: int = 0
    newest: int | None = None


class LlamaCpp:
    """Runs llama.cpp with a new context for each number of sequences and their length."""

    serving = "continuous batching, written with its batch calls"

    def __init__(self, model: Path, threads: int) -> None:
        import llama_cpp

        self.lib: Any = llama_cpp
        self.path = model
        self.writers: dict[bool, Any] = {}
        self.threads = threads
        self.log = self.lib.llama_log_callback(lambda level, text, data: None)
        self.lib.llama_log_set(self.log, None)
        self.lib.llama_backend_init()
        self.model = self.lib.llama_model_load_from_file(
            str(model).encode(), self.lib.llama_model_default_params()
        )
        assert self.model, f"{model} cannot be opened"
        self.vocabulary: int = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model))
        self.batch = self.lib.llama_batch_init(BATCH, 0, 1)
        self.context: Any = None
        self.shape = (0, 0)

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        self._open(len(prompts), len(prompts[0]) + tokens)
        slots = [Slot(i, list(prompt), tokens) for i, prompt in enumerate(prompts)]
        stamps = Stamps(len(prompts))
        start = time.perf_counter()
        for _ in range(tokens):
            # First all prompts run, in as few batches as hold them; then each batch has a token a sequence.
            while self._step(slots, BATCH):
                pass
            now = time.perf_counter() - start
            for times in stamps.times:
                times.append(now)
        return stamps.timing()

    def write(self, writing: Writing, drafts: bool) -> Timing:
        """Writes a text plainly, or with the library's own prompt lookup."""
        llama = self._writer(drafts)
        llama.set_seed(writing.seed)
        grammar = None
        if writing.schema is not None:
            grammar = self.lib.LlamaGrammar.from_json_schema(json.dumps(writing.schema), verbose=False)
        times: list[float] = []
        start = time.perf_counter()
        tokens = llama.generate(
            list(writing.prompt),
            top_k=0,
            top_p=writing.top_p,
            min_p=0.0,
            temp=writing.temperature,
            repeat_penalty=writing.repetition_penalty,
            grammar=grammar,
        )
        for token in tokens:
            times.append(time.perf_counter() - start)
            if len(times) == writing.tokens or (token == llama.token_eos() and not writing.ignore_end):
                break
        return Timing(times[0], times[-1], len(times) - 1)

    def _writer(self, drafts: bool) -> Any:
        if drafts not in self.writers:
            from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

            self.writers[drafts] = self.lib.Llama(
                str(self.path),
                n_ctx=WRITTEN,
                n_threads=self.threads,
                n_threads_batch=self.threads,
                draft_model=LlamaPromptLookupDecoding() if drafts else None,
                verbose=False,
            )
        return self.writers[drafts]

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        raise NotImplementedError("llama.cpp has no beam search")

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        self._open(SLOTS, max(len(a.prompt) + a.tokens for a in arrivals))
        stamps = Stamps(len(arrivals))
        waiting = sorted(range(len(arrivals)), key=lambda i: arrivals[i].at)
        slots: list[Slot | None] = [None] * SLOTS
        start = time.perf_counter()
        while waiting or any(slots):
            now = time.perf_counter() - start
            while waiting and arrivals[waiting[0]].at <= now and None in slots:
                request = waiting.pop(0)
                arrival = arrivals[request]
                slots[slots.index(None)] = Slot(request, list(arrival.prompt), arrival.tokens)
            if not any(slots):
                time.sleep(arrivals[waiting[0]].at - now)
                continue
            before = [slot.left if slot else 0 for slot in slots]
            self._step(slots, 512)
            now = time.perf_counter() - start
            for index, slot in enumerate(slots):
                if slot is not None and slot.left < before[index]:
                    stamps.times[slot.request].append(now)
                    if slot.left == 0:
                        self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(self.context), index, -1, -1)
                        slots[index] = None
        return stamps.times

    def _open(self, sequences: int, length: int) -> None:
        """Opens a context for so many sequences of so many tokens; it is empty and has run once."""
        length = -(-length // 256) * 256
        if self.shape != (sequences, length):
            if self.context is not None:
                self.lib.llama_free(self.context)
            params = self.lib.llama_context_default_params()
            params.n_ctx, params.n_seq_max = sequences * length, sequences
            params.n_batch, params.n_ubatch = BATCH, 512
            params.n_threads = params.n_threads_batch = self.threads
            self.context = self.lib.llama_init_from_model(self.model, params)
            assert self.context, "llama.cpp gave no context"
            self.shape = (sequences, length)
            self._step([Slot(0, [1] * 8, 1)], BATCH)
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), False)

    def _step(self, slots: Sequence[Slot | None], budget: int) -> bool:
        """Runs a batch: the newest token of each decoding sequence, then prompts within the budget of tokens.

        A sequence gets a token if it decodes or if its prompt ends in this batch. Returns True if some prompt
        has not ended yet.
        """
        import numpy

        batch, size = self.batch, 0
        scored: list[Slot] = []
        decoding = [s is not None and not s.prompt for s in slots]
        for decodes in (True, False):
            for index, slot in enumerate(slots):
                if slot is None or decoding[index] is not decodes:
                    continue
                tokens = [slot.newest or 0] if decodes else slot.prompt[: budget - size]
                for token in tokens:
                    batch.token[size] = token
                    batch.pos[size] = slot.position
                    batch.n_seq_id[size] = 1
                    batch.seq_id[size][0] = index
                    batch.logits[size] = False
                    slot.position += 1
                    size += 1
                if not decodes:
                    slot.prompt = slot.prompt[len(tokens) :]
                if tokens and not slot.prompt:
                    batch.logits[size - 1] = True
                    scored.append(slot)
        batch.n_tokens = size
        done = self.lib.llama_decode(self.context, batch)
        assert done == 0, f"llama_decode returned {done}"
        if scored:
            found = self.lib.llama_get_logits(self.context)
            logits = numpy.ctypeslib.as_array(found, shape=(len(scored), self.vocabulary))
            for slot, token in zip(scored, logits.argmax(1).tolist(), strict=True):
                slot.newest = token
                slot.left -= 1
        return any(slot is not None and slot.prompt for slot in slots)


def load(model: Path, threads: int) -> LlamaCpp:
    """Loads the model and returns the contender."""
    return LlamaCpp(model, threads)
