"""Checks that a captured run is refused if it contains anything that its replay would skip."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decodery.errors import CaptureError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.native.recorded_step import KernelsOnly
from decodery.kernels.relative_bias import RelativeBias
from tests.kernels.native.fixtures import built
from tests.kernels.paged import Shape, empty_cache, random_sequence
from tests.kernels.rows import rows

pytestmark = built

X = rows(24, torch.float32, 6).view(6, 2, 12)
IDS = torch.tensor([2, 0, 1])
INTEGERS = torch.arange(12)
PLAIN = rows(64, torch.float32, 64)

VIEWS: dict[str, Callable[[], object]] = {
    "view": lambda: X.view(6, 24),
    "split_with_sizes": lambda: X.split_with_sizes((1, 1), -2),
    "split, chunk, unbind": lambda: (X.split(4), X.chunk(2, -1), X.unbind(1)),
    "expand": lambda: X[:, :1].expand(6, 5, 12),
    "transpose, permute, movedim": lambda: (X.transpose(0, 1), X.permute(2, 0, 1), X.movedim(0, 1)),
    "indices": lambda: (X[0], X[1:3], X[..., 0], X[:, None], X[:, 1:, :5]),
    "unflatten and flatten": lambda: X.unflatten(-1, (3, 4)).flatten(-2),
    "narrow, unsqueeze, squeeze": lambda: X.narrow(0, 1, 2).unsqueeze(0).squeeze(0),
    "detach": lambda: X.detach(),
    "a reshape that copies nothing": lambda: X.reshape(12, 12),
    "contiguous of what is contiguous": lambda: X.contiguous(),
    "a cast to the same type": lambda: (X.float(), X.to(torch.float32), X.to("cpu")),
    "an address, sizes and strides": lambda: (X.data_ptr(), X.shape, X.stride(), X.is_contiguous(), len(X)),
    "a tensor without elements": lambda: torch.empty(0, 5),
}
# By the operator that the error names.
OPERATIONS: dict[str, Callable[[], object]] = {
    "aten.mul.Tensor": lambda: X * 12.0,
    "aten.add.Tensor": lambda: X + X,
    "aten.add_.Tensor": lambda: X.add_(0),
    "aten.copy_.default": lambda: X.copy_(X),
    "aten.clone.default": lambda: X.clone(),
    "aten.contiguous.default": lambda: X.transpose(0, 1).contiguous(),
    "aten.reshape.default": lambda: X.transpose(0, 1).reshape(12, 12),
    "aten.flatten.using_ints": lambda: X.transpose(0, 1).flatten(),
    "aten.to.dtype": lambda: X.bfloat16(),
    "aten.cat.default": lambda: torch.cat((X, X)),
    "aten.index.Tensor": lambda: X[IDS],
    "aten.index_select.default": lambda: X.index_select(0, IDS),
    "aten.item.default": lambda: IDS[0].item(),
    "aten.resolve_conj.default": lambda: IDS.tolist(),
    "aten.equal.default": lambda: torch.equal(X, X),
    "aten.nonzero.default": lambda: X.nonzero(),
    "aten.lift_fresh.default": lambda: torch.tensor([1.0, 2.0]),
    "aten.zeros.default": lambda: torch.zeros(3),
    "aten.arange.default": lambda: torch.arange(3),
    "aten.empty.memory_format": lambda: torch.empty(3),
    "aten.narrow.Tensor": lambda: X.narrow(0, IDS[1], 1),
    "aten.rms_norm.default": lambda: torch.nn.functional.rms_norm(X, (12,)),
}
# Ways to the operators above by which tensors are made of Python objects, and the reverse.
CROSSINGS: dict[str, Callable[[], object]] = {
    "from_numpy": lambda: torch.from_numpy(np.ones(3)),
    "as_tensor": lambda: torch.as_tensor([1.0]),
    "FloatTensor": lambda: torch.FloatTensor([1.0]),
    "new_tensor": lambda: X.new_tensor([1.0]),
    "numpy": lambda: X.numpy(),
    "asarray": lambda: np.asarray(X),
    "int": lambda: int(IDS[0]),
    "a condition": lambda: 1 if X[0, 0, 0] > 0 else 0,
    "a slice by a tensor": lambda: X[: IDS[2]],
}


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_captured(name: str, mode: Callable[[], AbstractContextManager[None]]) -> None:
    with mode():
        _, replay = NativeKernels().capture(VIEWS[name])
    replay()


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_torch_operation_is_an_error_that_names_it_and_its_caller(name: str) -> None:
    with torch.inference_mode(), pytest.raises(CaptureError) as caught:
        NativeKernels().capture(OPERATIONS[name])
    message = str(caught.value)
    assert f"the torch operation {name} in <lambda> (native/test_capture.py:" in message
    assert "use a kernel" in message
    assert "\n" not in message


@pytest.mark.parametrize("operation", [*OPERATIONS.values(), *CROSSINGS.values()])
def test_it_is_an_error_also_where_gradients_might_be_wanted(operation: Callable[[], object]) -> None:
    with torch.no_grad(), pytest.raises(CaptureError):
        NativeKernels().capture(operation)


@pytest.mark.parametrize("operation", CROSSINGS.values(), ids=CROSSINGS)
def test_numbers_neither_come_from_python_nor_go_there(operation: Callable[[], object]) -> None:
    with torch.inference_mode(), pytest.raises(CaptureError, match=r"native/test_capture\.py"):
        NativeKernels().capture(operation)


def attending(kernels: NativeKernels, **features: Any) -> Callable[[], Tensor]:
    shape = Shape()
    layer = shape.layer(**features)
    q, _, _ = random_sequence(3, shape, 0, torch.float32)
    cache = empty_cache(1, shape, torch.float16)
    plan = kernels.plan_attention([[0]], [0], [3], kind=layer.kind, dtype=q.dtype, device="cpu")
    return lambda: kernels.paged_attention(q, *cache, plan, layer)


FALLBACKS: dict[str, tuple[Callable[[NativeKernels], Callable[[], object]], str]] = {
    "a plain weight": (lambda k: lambda: k.linear(PLAIN, PLAIN), "pack the weight"),
    "a plain gated weight": (lambda k: lambda: k.gated_linear(PLAIN, PLAIN), "pack the weight"),
    "a plain embedding": (lambda k: lambda: k.embedding(IDS, PLAIN), "pack the weight"),
    "attention over sequences": (lambda k: lambda: k.attention(*[X[None]] * 3, None, 1.0), "over pages"),
    "columns": (lambda k: lambda: k.gated(PLAIN.T), "float32 whose rows are contiguous"),
    "another type": (lambda k: lambda: k.activation(IDS, "relu"), "float32 whose rows are contiguous"),
    "heads of columns": (lambda k: lambda: k.rms_norm(X.mT, X[0, 0, :2], 1e-5), "float32 whose rows"),
    "a weight of another type": (
        lambda k: lambda: k.rms_norm(X, X[0, 0].view(torch.int32), 1e-5),
        "float32 whose",
    ),
    "one angle for all rows": (lambda k: lambda: k.rotary(X, X[0, 0], X[0, 1]), "float32 whose rows"),
    "a bias of another type": (
        lambda k: attending(k, bias=RelativeBias(rows(4, torch.bfloat16, 6), 2)),
        "float32 whose rows are contiguous",
    ),
    "sinks of another type": (
        lambda k: attending(k, sinks=torch.zeros(6, dtype=torch.bfloat16)),
        "float32 whose rows are contiguous",
    ),
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_a_kernel_that_needs_torch_says_what_to_do_while_captured_and_works_otherwise(name: str) -> None:
    kernels = NativeKernels()
    make, remedy = FALLBACKS[name]
    run = make(kernels)
    for guarded in (True, False):
        with pytest.raises(CaptureError, match=remedy) as caught:
            kernels.capture(run, guarded=guarded)
        assert "native/test_capture.py" in str(caught.value)
    assert run() is not None


def test_after_an_error_the_next_capture_and_torch_itself_work() -> None:
    kernels, weight = NativeKernels(), NativeKernels().pack(PLAIN)
    with pytest.raises(CaptureError):
        kernels.capture(lambda: kernels.linear(PLAIN * 2, weight))
    found, replay = kernels.capture(lambda: kernels.linear(PLAIN, weight))
    expected = found * 1.0
    with torch.inference_mode():
        found.zero_()
    replay()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("place", ["__enter__", "__exit__"])
def test_an_interrupt_as_the_guard_begins_or_ends_leaves_torch_usable(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(KernelsOnly, place)

    def interrupted(guard: KernelsOnly, *arguments: object) -> None:
        if place == "__enter__":
            whole(guard)
        raise KeyboardInterrupt

    kernels = NativeKernels()
    with monkeypatch.context() as patched:
        patched.setattr(KernelsOnly, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            kernels.capture(lambda: torch.empty(0))
    assert torch.ones(2).sum() == 2
    assert kernels.capture(lambda: torch.empty(0))[0].numel() == 0


def test_a_capture_does_not_import_the_compiler_of_torch() -> None:
    program = (
        "import sys; from decodery.kernels.native.native_kernels import *;"
        "x = torch.ones(2, 4); NativeKernels().capture(lambda: x.view(4, 2).reshape(8));"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
