"""Holds a call of every kernel over the vocabulary, as tests/kernels/cases.py does for those of a model."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decodery.kernels.vocabulary import reference as reference
from decodery.kernels.vocabulary.choices import BORDERS, ChoiceArgs, ChoiceDescription, FusedSamplingArgs
from tests.kernels.cases import ROWS, Case
from tests.kernels.rows import rows

VOCABULARIES = (1, 15, 70, 2101)
SEEN = 9


def vocabulary_cases() -> Iterator[Case]:
    for vocab in VOCABULARIES:
        yield from selections(vocab)
        yield from sums(vocab)
        yield from changes(vocab)
        yield choice(vocab)
        yield description(vocab)
        yield fused_description(vocab)
    yield noise()


def case(
    name: str, run: Callable[..., Any], *arguments: Tensor, rowwise: int | None = None, formula: Any = None
) -> Case:
    """Returns a case of a kernel whose formula, unless given, is the same call of the reference."""

    def found(kernels: Any, *parts: Tensor) -> Tensor:
        result = run(kernels, *parts)
        return result if isinstance(result, Tensor) else torch.tensor(result)

    plain = formula or (lambda *parts: found(reference, *parts))
    return Case(name, found, plain, arguments, len(arguments) if rowwise is None else rowwise)


def changed(kernel: str) -> Callable[..., Tensor]:
    """Returns a call that modifies its first argument and returns it."""

    def run(kernels: Any, logits: Tensor, *others: Any) -> Tensor:
        logits = logits.clone()
        getattr(kernels, kernel)(logits, *others)
        return logits

    return run


def selections(vocab: int) -> Iterator[Case]:
    logits = rows(vocab, torch.float32, ROWS)
    keys = torch.arange(2 * ROWS, dtype=torch.int32).view(ROWS, 2)
    least = torch.linspace(-2, 2, ROWS)
    count = min(vocab, 70)
    yield case(f"largest {vocab}", lambda k, x: k.largest(x), logits)
    marks = torch.randint(
        -(2**31), 2**31, (ROWS, -(-vocab // 32)), generator=torch.Generator().manual_seed(1)
    )
    yield case(f"largest marked {vocab}", lambda k, x, w: k.largest(x, w.int().numpy()), logits, marks)
    yield case(f"leaders {vocab}", lambda k, x: torch.cat(k.leaders(x, count), -1), logits)
    yield case(f"leading_logprobs {vocab}", lambda k, x: _flat(k.leading_logprobs(x, count)), logits)
    yield case(f"count_above {vocab}", lambda k, x, b: k.count_above(x, b.tolist()), logits, least)
    yield case(f"draw {vocab}", lambda k, x, keys: k.draw(x.float(), keys.tolist()), logits, keys)


def sums(vocab: int) -> Iterator[Case]:
    logits = rows(vocab, torch.float32, ROWS)
    logprobs = logits.log_softmax(-1)
    mass = torch.linspace(0.05, 0.95, ROWS)
    yield case(f"log_softmax {vocab}", lambda k, x: k.log_softmax(x), logits)
    yield case(f"log_normalizers {vocab}", lambda k, x: k.log_normalizers(x), logits)
    yield case(f"entropy {vocab}", lambda k, x: k.entropy(x), logprobs)
    yield case(f"nucleus {vocab}", lambda k, x, p, m: k.nucleus_border(x, p, m), logits, logprobs, mass)


def changes(vocab: int) -> Iterator[Case]:
    logits = rows(vocab, torch.float32, ROWS)
    scores = rows(vocab, torch.float32, ROWS, seed=1)
    least = torch.linspace(-2, 2, ROWS)[:, None]
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(-(2**31), 2**31, (ROWS, -(-vocab // 32)), generator=generator)
    order = torch.stack([torch.randperm(vocab, generator=generator)[:SEEN] for _ in range(ROWS)])
    seen = torch.randint(0, vocab, (ROWS, SEEN), generator=generator)
    cut, mask, only = (changed(n) for n in ("cut_where_below", "keep_marked", "keep_only"))
    share, repeated, often = (changed(n) for n in ("divide", "penalise_repetition", "penalise_frequency"))

    yield case(f"cut {vocab}", cut, logits, scores, least)
    yield case(f"mask {vocab}", lambda k, x, w: mask(k, x, w.int().numpy()), logits, words)
    values = logits[:, : order.shape[1]].clone()
    yield case(f"keep_only {vocab}", only, logits, values, order)
    yield case(f"divide {vocab}", lambda k, x, d: share(k, x, d[:, 0].abs().add(1).tolist()), logits, least)

    def copied(kernels: Any, source: Tensor, target: Tensor) -> Tensor:
        target, places = target.clone(), range(len(source))
        kernels.copy_rows(source, list(places), target, list(places))
        return target

    yield case(f"copy {vocab}", copied, logits, scores)
    one = [1.5] * ROWS
    yield case(f"repetition {vocab}", lambda k, x, s: repeated(k, x, _lists(s), one[: len(s)]), logits, seen)
    half = [0.5] * ROWS
    yield case(
        f"frequency {vocab}",
        lambda k, x, s: often(k, x, _lists(s), half[: len(s)], half[: len(s)]),
        logits,
        seen,
    )


def _flat(found: tuple[list[list[float]], list[list[int]]]) -> Tensor:
    values, places = found
    return torch.cat([torch.tensor(values), torch.tensor(places)], -1)


def _lists(seen: Tensor) -> list[Any]:
    """Returns the tokens of each row; none if the first is even."""
    return [np.array(each if each[0] % 2 else [], dtype=np.int64) for each in seen.tolist()]


def choice(vocab: int) -> Case:
    """Returns a case of tokens by arguments of all kinds, against the separate kernels in order."""
    logits = rows(vocab, torch.float32, ROWS)
    seen = torch.randint(0, vocab + 2, (ROWS, SEEN), generator=torch.Generator().manual_seed(1))

    def args_of(numbers: list[int], seen: Tensor) -> list[FusedSamplingArgs]:
        tokens = [array("q", each) for each in seen.tolist()]
        return [_args(number, own, vocab) for number, own in zip(numbers, tokens, strict=True)]

    def run(kernels: Any, x: Tensor, seen: Tensor, numbers: Tensor) -> Tensor:
        before = x.clone()
        found = kernels.choose(x, args_of(numbers.tolist(), seen))
        assert torch.equal(x.view(torch.int32), before.view(torch.int32)), "the logits are not as before"
        return torch.tensor(found)

    def formula(x: Tensor, seen: Tensor, numbers: Tensor) -> Tensor:
        each = zip(x.float(), args_of(numbers.tolist(), seen), strict=True)
        return torch.tensor([_stage_by_stage(row[None], args) for row, args in each])

    return Case(f"choose {vocab}", run, formula, (logits, seen, torch.arange(ROWS)), 3)


def _args(number: int, tokens: array[int], vocab: int) -> FusedSamplingArgs:
    top_k = (0, 3, 70)[number % 3]
    return FusedSamplingArgs(
        tokens=tokens,
        seen=number % 4,
        generated=SEEN - number % 5,
        repetition=1.5,
        presence=0.5,
        frequency=0.25,
        temperature=(0.7, 1.0, 0.0, 2.0)[number % 4],
        top_p=(1.0, 0.6)[number % 2],
        min_p=(-math.inf, -2.0)[number // 2 % 2],
        top_k=top_k,
        width=top_k + 9 if 0 < top_k + 9 <= vocab and top_k else 0,
        key=(number, -number),
    )


def _stage_by_stage(x: Tensor, args: FusedSamplingArgs, versions: list[Tensor] | None = None) -> int:
    """Returns the token, and adds to `versions` the logits after each stage that changes them."""

    def note(x: Tensor) -> None:
        if versions is not None and not torch.equal(x[0], versions[-1].to(x.dtype)):
            versions.append(x[0].clone())

    x = x.clone()
    seen = np.array(args.tokens[args.seen :], dtype=np.int64)
    generated = np.array(args.tokens[args.generated :], dtype=np.int64)
    reference.penalise_repetition(x, [seen[seen < x.shape[1]]], [args.repetition])
    note(x)
    often = generated[generated < x.shape[1]]
    reference.penalise_frequency(x, [often], [args.presence], [args.frequency])
    note(x)
    if args.temperature == 0:
        return int(reference.largest(x)[0])
    reference.divide(x, [args.temperature])
    note(x)
    if args.top_k:
        reference.cut_below(x, reference.leaders(x, min(args.top_k, x.shape[1]))[0][:, -1:])
        note(x)
    if args.top_p < 1:
        border = reference.nucleus_border(x, reference.log_softmax(x), torch.tensor([args.top_p]))
        reference.cut_below(x, border)
        note(x)
    reference.cut_below(x, x.amax(-1, keepdim=True) + args.min_p)
    note(x)
    return int(reference.draw(x, [args.key])[0])


def description(vocab: int) -> Case:
    """Returns a case of descriptions of choices; every second one has a stage that changes nothing."""
    logits = rows(vocab, torch.float32, ROWS)
    after = torch.where(logits >= logits.amax(-1, keepdim=True) - 3, logits * 1.5, -math.inf)
    after[::2] = logits[::2]
    shown = min(vocab, 5)

    def run(kernels: Any, x: Tensor, after: Tensor, numbers: Tensor) -> Tensor:
        choices = [
            ChoiceArgs(i, number % vocab, shown, (number, 1), ((0, i),))
            for i, number in enumerate(numbers.tolist())
        ]
        found = kernels.described(x.float(), choices, [after.float()])
        return torch.stack([_numbers(each, shown, 1) for each in found])

    def formula(x: Tensor, after: Tensor, numbers: Tensor) -> Tensor:
        found = []
        for row, changed, number in zip(x, after, numbers.tolist(), strict=True):
            versions = [row] if torch.equal(row, changed) else [row, changed]
            found.append(_formula(versions, number % vocab, shown, 1))
        return torch.stack(found)

    return Case(f"describe {vocab}", run, formula, (logits, after, torch.arange(ROWS)), 3)


def fused_description(vocab: int) -> Case:
    """Returns a case of descriptions of choices whose stages the kernel computes itself."""
    logits = rows(vocab, torch.float32, ROWS)
    seen = torch.randint(0, vocab + 2, (ROWS, SEEN), generator=torch.Generator().manual_seed(1))
    shown = min(vocab, 5)

    def run(kernels: Any, x: Tensor, seen: Tensor, numbers: Tensor) -> Tensor:
        tokens = [array("q", each) for each in seen.tolist()]
        args = [_args(number, own, vocab) for number, own in zip(numbers.tolist(), tokens, strict=True)]
        borders = array("f", bytes(4 * BORDERS * len(args)))
        chosen = kernels.choose(x, args, borders)
        choices = [
            ChoiceArgs(i, max(token, 0), shown, None, (), args[i], borders[BORDERS * i : BORDERS * (i + 1)])
            for i, token in enumerate(chosen)
        ]
        return torch.stack([_numbers(each, shown, 7) for each in kernels.described(x, choices)])

    def formula(x: Tensor, seen: Tensor, numbers: Tensor) -> Tensor:
        found = []
        for row, own, number in zip(x, seen.tolist(), numbers.tolist(), strict=True):
            args = _args(number, array("q", own), vocab)
            versions: list[Tensor] = [row]
            token = _stage_by_stage(row[None].float(), args, versions)
            found.append(_formula([v.to(x.dtype) for v in versions], max(token, 0), shown, 7))
        return torch.stack(found)

    return Case(f"describe_fused {vocab}", run, formula, (logits, seen, torch.arange(ROWS)), 3)


def _numbers(found: ChoiceDescription, shown: int, stages: int) -> Tensor:
    """Returns a description as numbers, without the chosen token's beside those of the `shown` likeliest."""
    columns = [found.before, *(shares for _, _, shares in found.stages)]
    columns += [(0.0,) * shown] * (1 + stages - len(columns))
    each = [value for column in columns for value in column[:shown]]
    return torch.tensor([found.entropy, found.tail, *each], dtype=torch.float64)


def _formula(versions: Sequence[Tensor], token: int, shown: int, stages: int) -> Tensor:
    """Returns the same by the formula, in the precision of the logits and of their versions after stages."""
    places = versions[0].topk(shown).indices
    shares = versions[0].softmax(-1)
    others = shares.clone()
    others[places] = 0
    others[token] = 0
    entropy = torch.special.entr(shares).sum() / math.log(2)
    columns = [version.softmax(-1)[places] for version in versions]
    columns += [torch.zeros_like(columns[0])] * (1 + stages - len(columns))
    return torch.cat([entropy[None], others.sum()[None], *columns])


def noise() -> Case:
    keys = torch.randint(-(2**31), 2**31, (5000, 2), generator=torch.Generator().manual_seed(2)).int()
    tokens = torch.arange(5000, dtype=torch.int32) * 31

    def formula(keys: Tensor, tokens: Tensor, like: Tensor) -> Tensor:
        if like.dtype == torch.float32:
            return reference.gumbel_noise(keys, tokens)
        bits = reference._hashed(keys[:, 0], keys[:, 1], tokens)
        return -torch.log(-torch.log1p(-(bits.double() + 2147483648.5) * 2.0**-32))

    return case(
        "noise",
        lambda k, keys, tokens, like: k.gumbel_noise(keys, tokens),
        keys,
        tokens,
        torch.zeros(1),
        rowwise=2,
        formula=formula,
    )
