"""Makes traces by hand, for the tests of the pictures."""

from __future__ import annotations

import random
from collections.abc import Sequence

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.trace import BeamCandidate, Candidate, Considered, Stage
from decodery.outputs import Completion, RequestOutput
from decodery.pictures.generation_trace import GenerationTrace
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.text.tokenizer.vocabulary import Vocabulary
from tests.cli.conftest import byte_tokenizer

HOSTILE = [
    *("</script>", "<b>", '"', "&amp;", "]]>", "<!--", "\x00", "\x1b[2J", "\n", "\n\n", "\t", " "),
    *(
        " مرحبا",
        "العالم",
        "שלום",
        " 世界",
        "👩‍👩‍👧",
        "é",
        "e\u0301",
        "\u202e",
        "W" * 60,
        "`",
        "'",
        "\\",
        "{{",
        "--",
    ),
]
WORDS = [
    *(" the", " city", " of", " Nova", " Haven", " was", " a", " thriving", " metropolis", ",", "."),
    *(" with", " towering", " sky", "scr", "apers", " and", " bustling", " streets", " But", " as"),
    *(" years", " went", " by", " it", " began", " to", " lose", " its", " original", " essence", " once"),
]


def tokenizer_of(words: Sequence[str | bytes]) -> Tokenizer:
    """Returns a tokenizer with these tokens, which can decode but not encode."""
    spelled = [word.encode() if isinstance(word, str) else word for word in words]
    return Tokenizer(
        Vocabulary(
            backend=byte_tokenizer(),
            spell=spelled.__getitem__,
            size=len(spelled),
            special_ids=frozenset(),
            bos_token_id=None,
            eos_token_ids=(),
            pad_token_id=None,
            bos_token="",
            eos_token="",
            prefix=(),
            suffix=(),
            chat_templates={},
            named_ids={},
        )
    )


def considered(token: int, count: int, vocabulary: int, seed: int, **more: object) -> Considered:
    """Returns a choice of `token` among `count` candidates, with two stages."""
    drawn = random.Random(seed)
    weights = sorted((drawn.random() ** 4 + 1e-4 for _ in range(count + 3)), reverse=True)
    total = sum(weights)
    before = [w / total for w in weights[:count]]
    others = [t for t in range(vocabulary) if t != token]
    drawn.shuffle(others)
    place = min(int(drawn.expovariate(0.9)), count - 1)
    tokens = others[: count - 1]
    tokens.insert(place, token)
    kept = max(place + 1, count // 2)
    sharp = [w**1.4 for w in before]
    cut = [w / sum(sharp[:kept]) if k < kept else 0.0 for k, w in enumerate(sharp)]
    stages = (
        Stage("temperature", vocabulary, tuple(w / sum(sharp) for w in sharp)),
        Stage("top_p", kept, tuple(cut)),
    )
    return Considered(
        token=token,
        before=before[place],
        after=cut[place],
        rank=place + 1,
        entropy=drawn.uniform(0.1, 6),
        kept=kept,
        candidates=tuple(Candidate(t, b, a) for t, b, a in zip(tokens, before, cut, strict=True)),
        stages=stages,
        **more,  # type: ignore[arg-type]
    )


def sampled_trace(
    words: Sequence[str | bytes] = WORDS,
    tokens: Sequence[int] | None = None,
    *,
    prompt: str = "Once upon a time",
    drafts: bool = False,
    grammar: bool = False,
) -> GenerationTrace:
    """Returns the trace of a sampled text of these tokens; without `tokens`, of all words in order."""
    tokenizer = tokenizer_of(words)
    chosen = list(range(len(words))) if tokens is None else list(tokens)
    params = GenerationParams(temperature=0.7, top_p=0.9, max_tokens=len(chosen), seed=1)
    trace = GenerationTrace(prompt, "a-model", params, tokenizer)
    place, step = 0, 0
    while place < len(chosen):
        count = step % 4 + 1 if drafts else 1
        new = tuple(chosen[place : place + count])
        accepted = len(new) - 1
        more = [
            {"allowed": 1 + k % 3, "forced": k % 3 == 0} if grammar else {}
            for k in range(place, place + len(new))
        ]
        choices = tuple(
            considered(t, min(8, len(words)), len(words), place + k, **m)
            for k, (t, m) in enumerate(zip(new, more, strict=True))
        )
        tried = (*new[:-1], *chosen[: step % 3]) if drafts and step % 4 else ()
        trace.add(Event(0, 0, new, drafts=tried, accepted=accepted if tried else 0, considered=choices))
        place += len(new)
        step += 1
    text = tokenizer.decode(chosen)
    trace.output = RequestOutput(prompt, [1], [Completion(0, text, chosen, "length")], 1)
    return trace


def beam_trace(
    words: Sequence[str | bytes] = WORDS, *, steps: int = 12, width: int = 4, returned: int = 2, seed: int = 0
) -> GenerationTrace:
    """Returns the trace of a beam search over these words, in which some hypotheses end early."""
    drawn = random.Random(seed)
    tokenizer = tokenizer_of(words)
    trace = GenerationTrace("Once upon a time", "a-model", GenerationParams(seed=1), tokenizer)
    totals, paths = [0.0], [[]]
    ended: list[tuple[float, list[int]]] = []
    for step in range(steps):
        found = []
        for parent, total in enumerate(totals):
            for token in drawn.sample(range(len(words)), width + 1):
                logprob = -drawn.expovariate(0.8) - 0.05
                found.append((total + logprob, parent, token, logprob))
        found = sorted(found, reverse=True)[: 2 * width]
        candidates, kept = [], []
        for rank, (total, parent, token, logprob) in enumerate(found):
            if step > 2 and rank < width and drawn.random() < 0.12:
                candidates.append(BeamCandidate(parent, token, logprob, total, "finished"))
                ended.append((total / (step + 1), [*paths[parent], token]))
            elif len(kept) < width:
                candidates.append(BeamCandidate(parent, token, logprob, total, "kept", len(kept)))
                kept.append((total, [*paths[parent], token]))
            else:
                candidates.append(BeamCandidate(parent, token, logprob, total, "pruned"))
        trace.add(Event(0, None, beams=tuple(candidates)))
        totals, paths = [total for total, _ in kept], [path for _, path in kept]
    ended += [(total / steps, path) for total, path in zip(totals, paths, strict=True)]
    best = sorted(ended, reverse=True)[:returned]
    completions = [
        Completion(k, tokenizer.decode(path), path, "length" if len(path) == steps else "stop", score=score)
        for k, (score, path) in enumerate(best)
    ]
    trace.output = RequestOutput(trace.prompt, [1], completions, 1)
    return trace
