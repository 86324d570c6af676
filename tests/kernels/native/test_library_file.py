"""Checks the file of the compiled kernels: what it needs, and which processors can run it."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from decodery.kernels.native import library
from tests.kernels.native.fixtures import built

needs_binutils = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("objdump", "readelf")), reason="needs objdump and readelf"
)
pytestmark = [built, needs_binutils]
LIBRARIES = r"libstdc\+\+\.so\.6|libc\+\+\.so\.1|libm\.so\.6|libgcc_s\.so\.1|libc\.so\.6|ld-linux.*"


def printed(*command: str) -> str:
    return subprocess.run([*command, str(library.PATH)], capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Function:
    """Holds a function's address, its mangled name and its instructions."""

    address: int
    name: str
    body: str

    def references(self) -> set[int]:
        """Returns the addresses that it calls, jumps to or loads."""
        return {int(found, 16) for found in re.findall(r"([0-9a-f]+) <[^>]+>$", self.body, re.MULTILINE)}

    def newer(self) -> bool:
        """True if it has an instruction of AVX or later."""
        return re.search(r"\tv|%[yz]mm|%k\d", self.body) is not None


def functions() -> Iterator[Function]:
    for part in printed("objdump", "-d", "--no-show-raw-insn").split("\n\n"):
        head, _, body = part.strip().partition("\n")
        if found := re.match(r"([0-9a-f]+) <(.+)>:$", head):
            yield Function(int(found[1], 16), found[2], body)


def test_the_library_needs_the_system_alone() -> None:
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", printed("readelf", "-d"))
    assert needed
    assert [name for name in needed if not re.fullmatch(LIBRARIES, name)] == []
    symbols = re.findall(r"UND (\S+)", printed("readelf", "--dyn-syms", "--wide"))
    assert symbols
    assert [name for name in symbols if re.match("_?Py|.*(torch|c10|at6Tensor)", name)] == []


def test_the_library_loads_with_every_glibc_that_torch_runs_with() -> None:
    symbols = printed("readelf", "--dyn-syms", "--wide")
    newer = re.findall(r"\S+@GLIBC_2\.(?:29|[3-9]\d)\b", symbols)
    assert newer == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs a processor of x86")
def test_what_every_processor_runs_has_no_instruction_of_newer_ones() -> None:
    code = {function.address: function for function in functions()}
    # The functions of an instruction set have its name in theirs, and are reached through its table alone.
    reached = [f for f in code.values() if f.name.startswith("decodery_") or "8Portable" in f.name]
    assert len(reached) > 50
    seen = {function.address for function in reached}
    while reached:
        for address in reached.pop().references() & code.keys() - seen:
            seen.add(address)
            reached.append(code[address])
    assert [code[address].name for address in seen if code[address].newer()] == []
    assert any(function.newer() for function in code.values() if "6Avx512" in function.name)
