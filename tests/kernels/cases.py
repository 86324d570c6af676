"""Holds a call of every native kernel in odd shapes, with its formula: the laws of kernels are checked on
these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from decodery.kernels.contract import Activation, PositionGrowth
from decodery.kernels.kv_formats import restored, stored
from decodery.kernels.native.native_attention import NativePlan
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import GROUP, Codes, Format, pack
from decodery.kernels.reference import torch_kernels
from decodery.kernels.relative_bias import RelativeBias
from tests.kernels.paged import Shape, empty_cache, plain_attention, random_sequence
from tests.kernels.rows import rows

ACTIVATIONS: tuple[Activation, ...] = ("silu", "gelu", "gelu_tanh", "relu")
ROWS = 19  # Enough for row kernels to use several threads.


@dataclass(frozen=True)
class Case:
    """Calls a kernel, and computes its formula in the precision of its arguments.

    `run(kernels, *arguments)` is the call. The first `rowwise` arguments have a row for each row of the
    result.
    """

    name: str
    run: Callable[..., Tensor]
    formula: Callable[..., Tensor]
    arguments: tuple[Tensor, ...]
    rowwise: int = 1

    def of(self, chosen: Tensor) -> tuple[Tensor, ...]:
        """Returns the arguments with these rows alone."""
        parts = (argument[chosen] for argument in self.arguments[: self.rowwise])
        return (*parts, *self.arguments[self.rowwise :])

    def exact(self) -> Tensor:
        """Returns the formula in float64."""
        wide = (a.double() if a.dtype == torch.float32 else a for a in self.arguments)
        return self.formula(*wide)


def all_cases() -> Iterator[Case]:
    for form in Format:
        for ins, outs in ((1, 1), (33, 5), (100, 70), (40, 33)):
            yield from products(form, ins, outs)
    for width in (1, 6, 17, 63, 64, 65, 576):
        yield norm(width)
        yield norm_of_heads(width)
        yield layer_norm(width)
        yield layer_norm_of_heads(width)
        yield gate(width)
        yield joined(width)
        yield multiplied(width)
    for dim in (2, 6, 32, 40, 80, 96, 128, 256):
        yield rotary(dim)
        yield rotary(dim, dim + 19)
        yield angles(dim // 2)
        yield angles_of_two_sets(dim // 2)
    for name in ACTIVATIONS:
        yield activation(name, 1)
        yield activation(name, 37)
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int8):
        for dim in (32, 40, 80, 96, 128, 256):
            yield attention(Shape(6, 2, dim), dtype, 1)
        yield attention(Shape(4, 4, 12), dtype, 33, window=20)
        yield attention(Shape(5, 1, 40), dtype, 275)
        yield attention(Shape(2, 2, 40), dtype, 530, window=261)
        yield attention(Shape(3, 3, 20), dtype, 290, bias=relative_bias(3, 17))
        yield attention(Shape(4, 2, 24, 16), dtype, 30, softcap=2.0, scale=0.4)
        yield attention(Shape(4, 2, 12, 40), dtype, 290, sinks=rows(4, torch.float32, 1, seed=8)[0])
        yield attention(Shape(2, 1, 20), dtype, 300, chunk=23, softcap=1.5, bias=relative_bias(2, 17))
        yield attention(Shape(3, 1, 33, 20), dtype, 530, causal=False, window=100)
        for source in (5, 300):
            yield cross_attention(Shape(4, 2, 20, 12), dtype, source)


def relative_bias(heads: int, reach: int) -> RelativeBias:
    return RelativeBias(rows(reach, torch.float32, heads, seed=7), reach // 2)


def random_codes(form: Format, outs: int, ins: int) -> Codes:
    """Returns a weight whose codes take every value and whose scales have both signs."""
    traits = form.value
    if traits.scale is None:
        matrix = rows(ins, torch.float32, outs, seed=1)
        return Codes(form, matrix.bfloat16() if form is Format.BFLOAT16 else matrix)
    generator = torch.Generator().manual_seed(ins * outs)
    codes = torch.randint(0, 2**traits.bits, (outs, ins), generator=generator).to(torch.uint8)
    parts = -(-ins // GROUP) * traits.parts
    scales, minima = (torch.randn(2, outs, parts, generator=generator) * 0.1).to(traits.scale)
    return Codes(form, codes, scales, minima if traits.minimum else None)


def dequantised(codes: Codes) -> tuple[Tensor, Tensor]:
    """Returns the values of the codes in float64, as factor times integer and as addend."""
    if codes.scales is None:
        return codes.codes.double(), torch.zeros_like(codes.codes, dtype=torch.float64)
    ins, width = codes.shape[1], GROUP // codes.format.value.parts
    table = codes.format.value.table
    if table is None:
        steps = codes.codes.double() - codes.format.zero
    else:
        steps = torch.tensor(table, dtype=torch.float64)[codes.codes.long()]

    def spread(factors: Tensor) -> Tensor:
        return factors.double().repeat_interleave(width, 1)[:, :ins]

    added = torch.zeros_like(steps) if codes.minima is None else spread(codes.minima)
    return steps * spread(codes.scales), added


def rounded(x: Tensor) -> Tensor:
    """Returns x in multiples of the 127th part of each group's largest, in float32 as the kernels take it."""
    groups = torch.nn.functional.pad(x.float(), (0, -x.shape[1] % GROUP)).view(len(x), -1, GROUP)
    largest = groups.abs().amax(-1, keepdim=True)
    steps = (groups * torch.where(largest > 0, 127 / largest, 0)).round()
    return (steps.to(x.dtype) * (largest / 127).to(x.dtype)).flatten(1)[:, : x.shape[1]]


def products(form: Format, ins: int, outs: int) -> Iterator[Case]:
    """Yields linear with bias and residual, gated linear, and embedding, also scaled, of one weight."""
    codes, both = random_codes(form, outs, ins), random_codes(form, 2 * outs, ins)
    x, residual = rows(ins, torch.float32, ROWS), rows(outs, torch.float32, ROWS, seed=3)
    bias, second = (rows(n, torch.float32, 1, seed=2)[0] for n in (outs, 2 * outs))
    packed, gated = pack(codes), pack(both, gated=True)

    def product(x: Tensor, codes: Codes) -> Tensor:
        activations = x if codes.scales is None else rounded(x)
        steps, added = (part.to(x.dtype) for part in dequantised(codes))
        total = x.new_zeros(len(x), len(steps))
        for k in range(ins):
            total = torch.addcmul(total, activations[:, k, None], steps[None, :, k])
            total = torch.addcmul(total, activations[:, k, None], added[None, :, k])
        return total

    name = f"{form.name} {ins} {outs}"
    yield Case(
        f"linear {name}",
        lambda k, x, r, b: k.linear(x, packed, b, r),
        lambda x, r, b: r + (product(x, codes) + b),
        (x, residual, bias),
        rowwise=2,
    )
    yield Case(
        f"gated {name}",
        lambda k, x, b: k.gated_linear(x, gated, b),
        lambda x, b: torch_kernels.gated(product(x, both) + b),
        (x, second),
    )
    yield Case(
        f"embedding {name}",
        lambda k, ids, like: k.embedding(ids, k.pack([codes])),
        lambda ids, like: sum(dequantised(codes))[ids].to(like.dtype),  # type: ignore[index]
        (torch.arange(ROWS) % outs, x.new_zeros(1)),
    )
    yield Case(
        f"embedding scaled {name}",
        lambda k, ids, r: k.embedding(ids, k.pack([codes]), 1.7, r),
        lambda ids, r: r + sum(dequantised(codes))[ids].to(r.dtype) * 1.7,  # type: ignore[index]
        (torch.arange(ROWS) % outs, rows(ins, torch.float32, ROWS, seed=3)),
        rowwise=2,
    )


def norm(width: int) -> Case:
    x, residual = rows(width, torch.float32, ROWS), rows(width, torch.float32, ROWS, seed=3)
    return Case(
        f"norm {width}",
        lambda k, x, r, w: k.rms_norm(x, w, 1e-5, r),
        lambda x, r, w: torch_kernels.rms_norm(x, w, 1e-5, r),
        (x, residual, rows(width, torch.float32, 1, seed=1)[0]),
        rowwise=2,
    )


def layer_norm(width: int) -> Case:
    x, residual = rows(width, torch.float32, ROWS) + 3, rows(width, torch.float32, ROWS, seed=3)
    weight, bias = (rows(width, torch.float32, 1, seed=seed)[0] for seed in (1, 2))
    return Case(
        f"layer_norm {width}",
        lambda k, x, r, w, b: k.layer_norm(x, w, b, 1e-5, r),
        lambda x, r, w, b: torch_kernels.layer_norm(x, w, b, 1e-5, r),
        (x, residual, weight, bias),
        rowwise=2,
    )


def some_heads(seed: int, width: int) -> Tensor:
    """Returns rows of 5 heads with numbers between them, of which `inner_heads` takes 3."""
    return rows(5 * (width + 3), torch.float32, ROWS, seed).view(ROWS, 5, width + 3)


def inner_heads(x: Tensor) -> Tensor:
    """Returns heads in the middle of a row, with larger strides of rows and heads than they need."""
    return x[:, 1:4, : x.shape[-1] - 3]


def norm_of_heads(width: int) -> Case:
    """Returns the norms of heads that share a weight, and of heads that have one each."""
    weight = rows(width, torch.float32, 3, seed=1)

    def both(k: Any, x: Tensor, r: Tensor, w: Tensor) -> Tensor:
        x, r = inner_heads(x), inner_heads(r)
        return torch.cat((k.rms_norm(x, w[0], 1e-5, r), k.rms_norm(x, w, 1e-5, r)), -1)

    tensors = some_heads(0, width), some_heads(3, width), weight
    return Case(f"norm of heads {width}", both, partial(both, torch_kernels), tensors, rowwise=2)


def layer_norm_of_heads(width: int) -> Case:
    """Returns the norms of heads that share weight and bias, and of heads that have their own."""
    weight, bias = (rows(width, torch.float32, 3, seed=seed) for seed in (1, 2))

    def both(k: Any, x: Tensor, r: Tensor, w: Tensor, b: Tensor) -> Tensor:
        x, r = inner_heads(x), inner_heads(r)
        shared, own = k.layer_norm(x, w[0], b[0], 1e-5, r), k.layer_norm(x, w, b, 1e-5, r)
        return torch.cat((shared, own, k.layer_norm(x, w, None, 1e-5)), -1)

    tensors = some_heads(0, width) + 3, some_heads(3, width), weight, bias
    return Case(f"layer_norm of heads {width}", both, partial(both, torch_kernels), tensors, rowwise=2)


def joined(width: int) -> Case:
    """Returns heads beside others with strides of their own, and beside one head that is repeated."""

    def both(k: Any, x: Tensor, y: Tensor, one: Tensor) -> Tensor:
        return torch.cat((k.joined([inner_heads(x), y]), k.joined((one[:, None], y))), -1)

    own = rows(3 * width, torch.float32, ROWS, seed=1).view(ROWS, 3, width)
    tensors = some_heads(0, width), own, rows(5, torch.float32, ROWS, seed=2)
    return Case(f"joined {width}", both, partial(both, torch_kernels), tensors, rowwise=3)


def multiplied(width: int) -> Case:
    """Returns a part of rows times another, then times one row, then times one number."""

    def all_three(k: Any, x: Tensor, y: Tensor, row: Tensor, one: Tensor) -> Tensor:
        return k.multiply(k.multiply(k.multiply(x, y), row), one)

    wide = rows(2 * width + 3, torch.float32, ROWS)
    row, one = (rows(n, torch.float32, 1, seed=5)[0] for n in (width, 1))
    return Case(
        f"multiplied {width}",
        all_three,
        lambda x, y, row, one: x * y * row * one,
        (wide[:, :width], wide[:, width + 3 :], row, one),
        rowwise=2,
    )


def gate(width: int) -> Case:
    x = rows(2 * width, torch.float32, ROWS) * 4
    return Case(f"swiglu {width}", lambda k, x: k.gated(x), torch_kernels.gated, (x,))


def activation(name: Activation, width: int) -> Case:
    """Returns the activation of plain elements, of the gated ones of a product, and of a gated product."""
    x = rows(2 * width, torch.float32, ROWS) * 2
    weight = rows(2 * width, torch.float32, 10, seed=5) / width
    gating = pack(Codes(Format.FLOAT32, weight), gated=True)

    def product(x: Tensor) -> Tensor:
        total = x.new_zeros(len(x), len(weight))
        for k in range(2 * width):
            total = torch.addcmul(total, x[:, k, None], weight[None, :, k].to(x.dtype))
        return total

    return Case(
        f"activation {name} {width}",
        lambda k, x: torch.cat(
            (k.activation(x, name), k.gated(x, name), k.gated_linear(x, gating, None, name)), -1
        ),
        lambda x: torch.cat(
            (
                torch_kernels.activation(x, name),
                torch_kernels.gated(x, name),
                torch_kernels.gated(product(x), name),
            ),
            -1,
        ),
        (x,),
    )


def rotary(turned: int, dim: int | None = None) -> Case:
    """Returns the rotation of the first `turned` elements of heads of `dim`, None: of all."""
    dim = dim or turned
    turns = rows(turned // 2, torch.float32, ROWS, seed=4)
    cos, sin = torch.cat([turns.cos()] * 2, -1), torch.cat([-turns.sin(), turns.sin()], -1)
    x = rows(3 * dim, torch.float32, ROWS).view(ROWS, 3, dim)
    name = f"rotary {turned} of {dim}"
    return Case(name, lambda k, *a: k.rotary(*a), torch_kernels.rotary, (x, cos, sin), rowwise=3)


def angles(pairs: int) -> Case:
    positions = torch.cat((torch.arange(ROWS - 3), torch.tensor([8191, 40000, 131071])))
    frequencies = 10000.0 ** -(torch.arange(pairs) / pairs)

    def formula(positions: Tensor, frequencies: Tensor) -> Tensor:
        # The angle itself is a float32 product in every backend, so its rounding is part of the formula.
        angle = (positions[:, None].float() * frequencies.float()).to(frequencies.dtype)
        cos, sin = angle.cos() * 1.25, angle.sin() * 1.25
        return torch.cat((cos, cos, -sin, sin), -1)

    return Case(
        f"angles {pairs}",
        lambda k, p, f: torch.cat(k.angles(p, f, 1.25), -1),
        formula,
        (positions, frequencies),
    )


def angles_of_two_sets(pairs: int) -> Case:
    """Returns angles of two sets of frequencies, whose magnitudes grow with the position."""
    positions = torch.cat((torch.arange(ROWS - 3), torch.tensor([8191, 40000, 131071])))
    sets = torch.arange(ROWS) % 3 % 2
    slow = 10000.0 ** -(torch.arange(pairs) / pairs)
    frequencies, growth = torch.stack((slow, slow / 3)), PositionGrowth(0.1, 100, 1)

    def formula(positions: Tensor, sets: Tensor, frequencies: Tensor) -> Tensor:
        angle = (positions[:, None].float() * frequencies.float()[sets]).to(frequencies.dtype)
        magnitude = torch.tensor([1.25, 1.5], dtype=frequencies.dtype)[sets]
        magnitude = magnitude * (1 + 0.1 * (1 + (positions + 1) // 100).to(frequencies.dtype).log())
        cos, sin = angle.cos() * magnitude[:, None], angle.sin() * magnitude[:, None]
        return torch.cat((cos, cos, -sin, sin), -1)

    return Case(
        f"angles of two sets {pairs}",
        lambda k, p, s, f: torch.cat(k.angles(p, f, (1.25, 1.5), sets=s, growth=growth), -1),
        formula,
        (positions, sets, frequencies),
        rowwise=2,
    )


def attention(shape: Shape, dtype: torch.dtype, length: int, **features: Any) -> Case:
    """Returns a case of sequences of one length, each a row: its keys and values are written and its last
    queries attend.
    """
    count, last, layer = 4, min(length, 3), shape.layer(**features)
    q, k, v = kept_sequences(count, length, shape, dtype)
    pages = -(-length // 16)

    def run(kernels: NativeKernels, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cache = empty_cache(len(q) * pages + 1, shape, dtype)
        tables = [range(i * pages + 1, (i + 1) * pages + 1) for i in range(len(q))]

        def plan(start: int) -> NativePlan:
            starts, lengths = [start] * len(q), [length - start] * len(q)
            return kernels.plan_attention(
                tables, starts, lengths, kind=layer.kind, dtype=torch.float32, device="cpu"
            )

        kernels.write_kv(*cache, plan(0), k.flatten(0, 1), v.flatten(0, 1))
        asked = q[:, length - last :].flatten(0, 1)
        return kernels.paged_attention(asked, *cache, plan(length - last), layer).view(len(q), last, -1)

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        each = [plain_attention(s, q.dtype, layer) for s in zip(q, k, v, strict=True)]
        return torch.stack(each)[:, length - last :]

    return Case(f"attention {shape} {dtype} {length} {[*features]}", run, formula, (q, k, v), rowwise=3)


def cross_attention(shape: Shape, dtype: torch.dtype, length: int) -> Case:
    """Returns a case of two queries a row over all positions of the row's source."""
    layer = shape.layer(causal=False, softcap=3.0)
    q, k, v = kept_sequences(4, length, shape, dtype)
    pages = -(-length // 16)

    def run(kernels: NativeKernels, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        count, cache = len(q), empty_cache(len(q) * pages, shape, dtype)
        tables = [range(i * pages, (i + 1) * pages) for i in range(count)]
        common = {"kind": layer.kind, "dtype": torch.float32, "device": "cpu"}
        written = kernels.plan_attention(tables, [0] * count, [length] * count, **common)
        kernels.write_kv(*cache, written, k.flatten(0, 1), v.flatten(0, 1))
        plan = kernels.plan_attention(tables, [7] * count, [2] * count, **common, sources=[length] * count)
        return kernels.paged_attention(q.flatten(0, 1), *cache, plan, layer).view(count, 2, -1)

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.stack([plain_attention(s, q.dtype, layer) for s in zip(q, k, v, strict=True)])

    return Case(f"attention across {shape} {dtype} {length}", run, formula, (q[:, :2], k, v), rowwise=3)


def kept_sequences(
    count: int, length: int, shape: Shape, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns q, k and v of sequences [count, length, ...], k and v as a cache of `dtype` returns them."""
    sequences = [random_sequence(length, shape, seed, torch.float32) for seed in range(count)]
    q, k, v = (torch.stack(part) for part in zip(*sequences, strict=True))
    return q, *(restored(stored(part, dtype), torch.float32) for part in (k, v))
