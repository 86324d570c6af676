"""Compiles the kernels with the C++ compiler of this machine: `python native/make.py [target [flags]]`.

Only a C++20 compiler (`$CXX`, c++, g++ or clang++) is needed: no Python headers, no torch. Each instruction
set has a translation unit with its own flags; the library selects one when it is loaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE.parent / "src" / "decodery" / "kernels" / "native" / "_native.so"

# No contraction: a kernel's bits must not depend on which products and sums a compiler fuses.
FLAGS = [
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-DNDEBUG",
]
UNITS: dict[str, list[str]] = {"library": [], "team": [], "drafting": [], "portable": []}
X86_UNITS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma", "-mf16c"],
}
ARM_UNITS = {"neon": [], "neon_dot": ["-march=armv8.2-a+dotprod"]}
# The flags and units of an architecture, by its name in the compiler.
ARCHITECTURES: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    **dict.fromkeys(("x86_64", "amd64"), (["-DDECODERY_X86"], X86_UNITS)),
    **dict.fromkeys(("aarch64", "arm64"), (["-DDECODERY_ARM"], ARM_UNITS)),
}


class BuildError(Exception):
    """Reports why there is no library; the message is for people."""


def compiler() -> str:
    """Returns the name of the C++ compiler to use; raises `BuildError` if there is none."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return name
    raise BuildError("no C++ compiler was found")


def machine(cxx: str) -> str:
    """Returns the architecture that a compiler compiles for, such as "x86_64" or "aarch64"."""
    return _run([cxx, "-dumpmachine"]).partition("-")[0].strip()


def wheel_tag(cxx: str) -> str:
    """Returns the tag of a wheel with the library inside, which serves every Python: it calls none of it."""
    system = sysconfig.get_platform().rpartition("-")[0]
    return "py3-none-" + f"{system}-{machine(cxx)}".replace("-", "_").replace(".", "_")


def build(target: Path = TARGET, extra: tuple[str, ...] = ()) -> Path:
    """Compiles and links the library; raises `BuildError` and keeps an older `target` if that fails."""
    cxx = compiler()
    own_flags, own_units = ARCHITECTURES.get(machine(cxx), ([], {}))
    flags = [*FLAGS, *extra, *own_flags]
    units = {**UNITS, **own_units}
    with tempfile.TemporaryDirectory() as folder:

        def compiled(unit: tuple[str, list[str]]) -> str:
            name, own = unit
            out = str(Path(folder) / f"{name}.o")
            _run([cxx, *flags, *own, "-c", str(HERE / f"{name}.cpp"), "-o", out])
            return out

        # The largest unit first, so that it does not finish alone at the end.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compiled, reversed(units.items())))[::-1]
        # Of functions that several units define, such as std::sort, the linker takes the first definition. It
        # must run on every processor, so the units are linked in the order above.
        linked = Path(folder) / "linked.so"
        _run([cxx, "-shared", *extra, *objects, "-o", str(linked), "-pthread"])
        # The target is replaced, never overwritten: a process may have the old one mapped.
        staged = target.with_suffix(".new")
        shutil.copy(linked, staged)
        staged.replace(target)
    return target


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stderr[:4000]}")
    return done.stdout


if __name__ == "__main__":
    try:
        print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET, tuple(sys.argv[2:])))
    except BuildError as error:
        sys.exit(str(error))
