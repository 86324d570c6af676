"""Measures the native kernels on the default model's products and steps (`python -m bench.kernels`).

The products are those of all layers of one step, one after the other, so that the weights are read from
memory as in a step. The table has milliseconds, then the bytes read and the multiply-adds done in a second as
shares of the machine's limits, which `--bandwidth` and `--peak` give. Last are whole steps of the engine,
with the share of their time that Python and torch take outside the kernels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any, cast

import torch

from bench.contenders.decodery import SAMPLING
from bench.workloads import prompts
from decodery import LLM, GenerationParams
from decodery.kernels.native.library import library
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import PackedWeight
from decodery.models.decoders.llama import Llama
from decodery.models.layers.attention import Attention, PagedAttend, plan_layers
from decodery.models.layers.blocks import PreNormBlock
from decodery.weights.sources.locate import resolve

KEYS = 64  # The keys that each stream has already, in a step of one token.


def best(action: Callable[[], object], most: float = 0.3) -> float:
    """Returns the milliseconds of the fastest run, of at least three and at least `most` seconds in all."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < most:
        start = perf_counter()
        action()
        times.append(perf_counter() - start)
    return min(times) * 1000


def weights(model: Llama) -> dict[str, list[PackedWeight]]:
    """Returns the matrices of all layers in the order of a step, and the head's."""
    blocks = [cast(PreNormBlock, layer) for layer in model.layers]
    attentions = [cast(Attention, block.attn) for block in blocks]
    linears = [m for a, b in zip(attentions, blocks, strict=True) for m in (a.qkv, a.out, *b.mlp.children())]
    head = model.embedding if model.head is None else model.head
    return {
        "layers": [cast(PackedWeight, linear.weight) for linear in linears],
        "head": [cast(PackedWeight, head.weight)],
    }


def product(matrices: list[PackedWeight], rows: int) -> Callable[[], object]:
    """Returns an action that multiplies random rows by all matrices."""
    kernels = NativeKernels()
    inputs = {matrix.columns: torch.randn(rows, matrix.columns) for matrix in matrices}

    def run() -> dict[int, torch.Tensor]:
        for matrix in matrices:
            (kernels.gated_linear if matrix.gated else kernels.linear)(inputs[matrix.columns], matrix)
        return inputs

    return replayed(kernels, run)


def replayed(kernels: NativeKernels, run: Callable[[], object]) -> Callable[[], object]:
    """Returns an action that repeats the kernel calls of `run` without Python.

    The tensors that the calls read must be kept alive by the result of `run` or by `run` itself.
    """
    result, replay = kernels.capture(run)
    assert replay is not None

    def again() -> object:
        replay()
        return run, result

    return again


def step(model: Llama, streams: int, length: int) -> Callable[[], object]:
    """Returns an action that runs all layers on `length` tokens of each stream.

    The kernel calls of a single token are replayed; those of a prompt are made from Python.
    """
    kernels = cast(NativeKernels, model.kernels)
    start = KEYS if length == 1 else 0
    pages = -(-(start + length) // 16)
    cache = model.kv_shape.allocate(streams * pages, kernels.cache_dtype(torch.float32), whole_pages=True)
    plans = plan_layers(
        kernels,
        [layer.kind for layer in model.attention_layers],
        [range(i * pages, (i + 1) * pages) for i in range(streams)],
        [start] * streams,
        [length] * streams,
        dtype=torch.float32,
        device="cpu",
    )
    positions = torch.arange(start, start + length).repeat(streams)
    tokens = positions + 100
    attend = PagedAttend(kernels, cache, plans)

    def run() -> torch.Tensor:
        return model.hidden(tokens, positions, attend)

    return run if length > 1 else replayed(kernels, run)


@contextmanager
def kernels_timed() -> Iterator[list[float]]:
    """Yields a list to which the seconds of each call of the kernels are added."""
    kernels: Any = library()
    times: list[float] = []
    run: Callable[[bytes, int], None] = kernels.decodery_run

    def timed(program: bytes, count: int) -> None:
        start = perf_counter()
        run(program, count)
        times.append(perf_counter() - start)

    kernels.decodery_run = timed
    try:
        yield times
    finally:
        kernels.decodery_run = run


def step_shares(llm: LLM, streams: int, params: GenerationParams) -> tuple[float, float]:
    """Returns the median time of the engine's steps in ms, and the share of it outside the kernels."""
    steps: list[tuple[float, float]] = []
    requests = [llm.engine.add(prompt, params) for prompt in prompts(streams, 16, 0)]
    with kernels_timed() as times:
        while llm.engine.has_work():
            times.clear()
            start = perf_counter()
            llm.engine.step()
            steps.append((perf_counter() - start, sum(times)))
    assert requests
    # The first steps read the prompts and record the calls.
    whole, inside = zip(*steps[8:], strict=True)
    return median(whole) * 1000, median(1 - i / w for w, i in zip(whole, inside, strict=True))


@torch.inference_mode()
def main() -> None:
    """Measures and prints all figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 512])
    parser.add_argument("--bandwidth", type=float, default=43, help="GB/s that all threads read together")
    parser.add_argument("--peak", type=float, default=940, help="multiply-adds of bytes, in 10^9/s")
    arguments = parser.parse_args()
    llm = LLM(resolve(None), backend="native")
    model = cast(Llama, llm.model)
    print(f"{'products':10}{'rows':>5}{'ms':>10}{'of bandwidth':>14}{'of peak':>10}")
    for rows in arguments.rows:
        for name, matrices in weights(model).items():
            count = 1 if name == "head" and rows > 32 else rows
            taken = best(product(matrices, count))
            read = sum(w.nbytes for w in matrices) / taken / 1e6 / arguments.bandwidth
            done = sum(w.rows * w.columns for w in matrices) * count / taken / 1e6 / arguments.peak
            print(f"{name:10}{count:5}{taken:10.3f}{read:14.2f}{done:10.2f}")
    print(f"{'step':10}{'rows':>5}{'ms':>10}")
    for rows in arguments.rows:
        prompt = rows > 32
        taken = best(step(model, 1 if prompt else rows, rows if prompt else 1))
        print(f"{'a prompt' if prompt else 'streams':10}{rows:5}{taken:10.3f}")
    print(f"{'engine':10}{'rows':>5}{'ms':>10}{'outside kernels':>17}")
    for name, settings in (("greedy", {"temperature": 0}), ("sampling", SAMPLING)):
        params = GenerationParams(max_tokens=200, ignore_eos=True, speculate=None, **settings)
        for rows in (1, 8):
            taken, share = step_shares(llm, rows, params)
            print(f"{name:10}{rows:5}{taken:10.3f}{share:17.1%}")


if __name__ == "__main__":
    main()
