"""Measures the peak memory of a process."""

from __future__ import annotations

import subprocess
import sys

from bench.remote import ROOT

_PROGRAM = """
import sys
from bench.worker import memory
from decodery import LLM, GenerationParams
llm = LLM(dtype=sys.argv[1], backend="torch", context_length=int(sys.argv[2]))
prompt = [i * 7919 % 40000 + 100 for i in range(int(sys.argv[2]) - 64)]
llm.generate([prompt], GenerationParams(max_tokens=64, temperature=0, ignore_eos=True))
print(memory())
"""


def peak_memory(dtype: str, context_length: int) -> int:
    """Returns the peak in bytes of a fresh process that loads the default model and fills a whole context."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, dtype, str(context_length)],
        check=True,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    return int(done.stdout)
