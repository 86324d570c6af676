from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from decodery.errors import CheckpointError
from decodery.weights.formats import dequantise
from decodery.weights.formats.opening import open_checkpoint
from tests.weights.files import random_blocks

PLAIN = {"F16", "F32", "F64", "BF16", "I8", "I16", "I32", "I64"}


def is_decoded_by_the_package(kind: gguf.GGMLQuantizationType) -> bool:
    try:
        gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


BLOCKS = [kind for kind in gguf.GGMLQuantizationType if kind.name not in PLAIN]
QUANTISED = [kind for kind in BLOCKS if is_decoded_by_the_package(kind)]
UNREADABLE = [kind for kind in BLOCKS if kind not in QUANTISED]


def one_tensor(folder: Path, kind: gguf.GGMLQuantizationType, blocks: np.ndarray) -> Path:
    writer = gguf.GGUFWriter(folder / "one.gguf", "llama")
    writer.add_tensor("w", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "one.gguf"


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_every_quantised_type_reads_as_the_gguf_package_decodes_it(
    kind: gguf.GGMLQuantizationType, tmp_path: Path
) -> None:
    blocks = random_blocks(kind, 6, 512, seed=int(kind))
    expected = torch.from_numpy(gguf.dequantize(blocks, kind))
    checkpoint = open_checkpoint(one_tensor(tmp_path, kind, blocks))
    assert checkpoint.tensors["w"].dtype == kind.name
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.equal(checkpoint.read("w", dtype), expected.to(dtype))


def test_bfloat16_and_float64_read_exactly(tmp_path: Path) -> None:
    values = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    raw = values.bfloat16().view(torch.uint8).numpy()
    path = one_tensor(tmp_path, gguf.GGMLQuantizationType.BF16, raw)
    assert torch.equal(open_checkpoint(path).read("w", torch.float32), values.bfloat16().float())
    raw = values.double().view(torch.uint8).numpy()
    path = one_tensor(tmp_path, gguf.GGMLQuantizationType.F64, raw)
    assert torch.equal(open_checkpoint(path).read("w", torch.float32), values)


@pytest.mark.parametrize("kind", UNREADABLE, ids=lambda kind: kind.name)
def test_a_type_that_nobody_decodes_is_refused_when_read(
    kind: gguf.GGMLQuantizationType, tmp_path: Path
) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    checkpoint = open_checkpoint(one_tensor(tmp_path, kind, np.zeros((2, size), np.uint8)))
    assert checkpoint.tensors["w"].shape == (2, block)
    with pytest.raises(CheckpointError, match=f"w is stored as {kind.name}, which cannot be read"):
        checkpoint.read("w", torch.float32)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_our_decoders_equal_the_package_over_many_steps(kind: str) -> None:
    blocks = random_blocks(gguf.GGMLQuantizationType[kind], 300, 2048)
    expected = torch.from_numpy(gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind]))
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    assert expected.numel() > 2 * dequantise.STEP
    for dtype in (torch.float32, torch.bfloat16):
        out = torch.empty(300, 2048, dtype=dtype)
        assert dequantise.dequantise(torch.from_numpy(blocks).view(-1, size), kind, out.view(-1, 32))
        assert torch.equal(out, expected.to(dtype))


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0"])
@pytest.mark.parametrize("half", [b"\x00\x7c", b"\x00\xfc", b"\x01\x7e"], ids=["inf", "-inf", "nan"])
def test_one_scale_that_is_not_finite_is_noticed(kind: str, half: bytes) -> None:
    blocks = random_blocks(gguf.GGMLQuantizationType[kind], 2000, 256)
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    blocks[1999, -size:][:2] = np.frombuffer(half, np.uint8)
    out = torch.empty(16000, 32)
    assert not dequantise.dequantise(torch.from_numpy(blocks).view(-1, size), kind, out)


def test_values_that_are_finite_though_their_sum_is_not_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dequantise.DECODERS, "Q8_0", lambda raw, out: out.fill_(3e38))
    assert dequantise.dequantise(torch.zeros(4, 34, dtype=torch.uint8), "Q8_0", torch.empty(4, 32))


def test_a_narrow_result_never_stands_beside_a_whole_float32_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def decode(raw: torch.Tensor, out: torch.Tensor) -> None:
        assert out.dtype == torch.float32
        steps.append(out.untyped_storage().nbytes())
        out.zero_()

    monkeypatch.setitem(dequantise.DECODERS, "Q8_0", decode)
    out = torch.empty(40_000, 32, dtype=torch.bfloat16)
    dequantise.dequantise(torch.zeros(40_000, 34, dtype=torch.uint8), "Q8_0", out)
    assert len(steps) == -(-out.numel() // dequantise.STEP)
    assert max(steps) == 4 * dequantise.STEP
