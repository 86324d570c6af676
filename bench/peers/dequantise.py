"""Writes a GGUF as a hub folder with its tokenizer: `python -m bench.peers.dequantise FILE DTYPE FOLDER`.

Runs in the environment that has transformers and gguf.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench.contenders.transformers import from_gguf


def main() -> None:
    """Writes the folder."""
    import torch
    from transformers import AutoTokenizer

    source, dtype, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    from_gguf(source, getattr(torch, dtype)).save_pretrained(target)
    tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    main()
