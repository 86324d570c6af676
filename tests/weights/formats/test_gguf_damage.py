from __future__ import annotations

import contextlib
import struct
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from decodery.errors import CheckpointError, DecoderyError
from decodery.weights.formats.opening import open_checkpoint
from tests.weights.files import ARRAY, BOOL, STRING, U32, array, entry, gguf_bytes, tensor, text, write_gguf

HUGE = (1 << 64) - 1
MEMORY = 64 << 20
SECONDS = 1.0


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def outcome(path: Path) -> str | None:
    """Opens the file and reads all of it; returns the error's message, or None if it is readable."""
    tracemalloc.reset_peak()
    start = time.perf_counter()
    message = None
    try:
        with open_checkpoint(path) as checkpoint:
            for name in checkpoint.tensors:
                with contextlib.suppress(DecoderyError):
                    checkpoint.read(name, torch.float32)
    except DecoderyError as error:
        message = str(error)
        assert "\n" not in message
        assert str(path) in message
    assert time.perf_counter() - start < SECONDS
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    return message


def alignment(value: int) -> bytes:
    return entry("general.alignment", U32, struct.pack("<I", value))


DEEP = array(ARRAY, 1) * 50 + array(U32, 0)
LIES = {
    "nothing": (b"", "is empty"),
    "other magic": (b"GGML" + gguf_bytes()[4:], "not a GGUF file"),
    "a few bytes": (b"GGUF\3\0", "truncated"),
    "version 1": (gguf_bytes(version=1), "version 1 is not supported"),
    "version 4": (gguf_bytes(version=4), "version 4 is not supported"),
    "big-endian": (gguf_bytes(version=3 << 24), "big-endian"),
    "absurd number of entries": (gguf_bytes(entry_count=HUGE), f"{HUGE} metadata entries"),
    "more entries than there are": (gguf_bytes(entry_count=4, data=bytes(128)), "unknown|twice|damaged"),
    "absurd number of tensors": (gguf_bytes(tensor_count=HUGE), f"{HUGE} tensors"),
    "absurd key length": (gguf_bytes((struct.pack("<Q", HUGE) + bytes(16),)), f"{HUGE} bytes"),
    "absurd string": (gguf_bytes((entry("k", STRING, struct.pack("<Q", HUGE)),)), "a string of"),
    "absurd array": (gguf_bytes((entry("k", ARRAY, array(U32, HUGE)),)), f"{HUGE} array elements"),
    "absurd string array": (gguf_bytes((entry("k", ARRAY, array(STRING, HUGE)),)), f"{HUGE} strings"),
    "absurd nested array": (gguf_bytes((entry("k", ARRAY, array(ARRAY, HUGE)),)), f"{HUGE} arrays"),
    "absurd truths": (gguf_bytes((entry("k", ARRAY, array(BOOL, HUGE)),)), f"{HUGE} bytes"),
    "array a little too long": (gguf_bytes((entry("k", ARRAY, array(U32, 20)),)), "20 array elements"),
    "deep nesting": (gguf_bytes((entry("k", ARRAY, DEEP),)), "nested more than"),
    "unknown value type": (gguf_bytes((entry("k", 13, bytes(8)),)), "unknown metadata type 13"),
    "unknown element type": (gguf_bytes((entry("k", ARRAY, array(99, 0)),)), "unknown metadata type 99"),
    "truth that is neither": (gguf_bytes((entry("k", BOOL, b"\2"),)), "neither 0 nor 1"),
    "key not UTF-8": (gguf_bytes((entry(b"\xff", U32, bytes(4)),)), "a metadata key at byte 32 is not UTF-8"),
    "key twice": (gguf_bytes((entry("k", U32, bytes(4)),) * 2), "metadata key 'k' appears twice"),
    "name not UTF-8": (gguf_bytes((), (tensor(b"\xff"),)), "name at byte 32 is not UTF-8"),
    "name twice": (gguf_bytes((), (tensor("w"), tensor("w", offset=32))), "tensor 'w' appears twice"),
    "no dimensions": (gguf_bytes((), (tensor("w", ()), b"")), "0 dimensions"),
    "five dimensions": (gguf_bytes((), (tensor("w", (1, 1, 1, 1, 8)),)), "5 dimensions"),
    "absurd dimensions": (
        gguf_bytes((), (text("w") + struct.pack("<I", 1 << 31) + bytes(64),)),
        "dimensions",
    ),
    "empty dimension": (gguf_bytes((), (tensor("w", (0, 8)),)), "a dimension of 0"),
    "product beyond 64 bits": (gguf_bytes((), (tensor("w", (1 << 62,) * 4),)), "after the file's end"),
    "product that wraps to 0": (gguf_bytes((), (tensor("w", (1 << 32, 1 << 32)),)), "after the file's end"),
    "unknown tensor type": (gguf_bytes((), (tensor("w", kind=4),)), "unknown type 4"),
    "row not of whole blocks": (gguf_bytes((), (tensor("w", (4, 8), 2),)), "blocks of 32"),
    "offset after the end": (gguf_bytes((), (tensor("w", offset=64),)), "after the file's end"),
    "absurd offset": (gguf_bytes((), (tensor("w", offset=HUGE - 31),)), "after the file's end"),
    "misaligned offset": (gguf_bytes((), (tensor("w", offset=4),)), "multiple of 32"),
    "overlap": (gguf_bytes((), (tensor("a", (9,)), tensor("b", offset=32))), "overlaps"),
    "same place": (gguf_bytes((), (tensor("a"), tensor("b"))), "overlaps"),
    "alignment 0": (gguf_bytes((alignment(0),)), "general.alignment is 0"),
    "alignment 24": (gguf_bytes((alignment(24),)), "general.alignment is 24"),
    "alignment 1": (gguf_bytes((alignment(1),)), "general.alignment is 1"),
    "alignment a word": (gguf_bytes((entry("general.alignment", STRING, text("32")),)), "alignment is '32'"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_with_its_reason(lie: str, tmp_path: Path) -> None:
    content, reason = LIES[lie]
    path = tmp_path / "lie.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        open_checkpoint(path)
    assert outcome(path) is not None


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = write_gguf(tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    last = len(content.rstrip(b"\0")) - 32  # The file ends in padding that no tensor needs.
    for size in {*range(0, 1200, 3), *range(1200, last, 101)}:
        path.write_bytes(content[:size])
        assert outcome(path) is not None, size


def test_a_flipped_bit_in_the_header_gives_an_error_or_a_readable_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "flipped.gguf")
    content = path.read_bytes()
    header = content.index(b"q4_k") + 40
    refused = 0
    with path.open("r+b", buffering=0) as file:
        for place in range(header):
            for bit in range(place % 2, 8, 2):
                file.seek(place)
                file.write(bytes([content[place] ^ 1 << bit]))
                refused += outcome(path) is not None
                file.seek(place)
                file.write(content[place : place + 1])
    assert refused > 100
    assert outcome(path) is None


def test_random_bytes_after_a_sound_start_are_refused(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "noise.gguf"
    for size in range(8, 208):
        noise = torch.randint(0, 256, (size,), generator=generator, dtype=torch.uint8)
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2, 2) + bytes(noise.tolist()))
        assert outcome(path) is not None
