"""`python -m bench.perplexity`: what packed weights cost on a real text, beside float32 sums of the file.

The text are newspaper reports in the wheel of gensim, which is fetched once through pip; a hash is checked.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from bench.peers.machine import processor
from bench.shuffled import shuffle_channels
from decodery import LLM
from decodery.weights.sources.locate import resolve
from decodery.weights.sources.wheels import PackagedFile, PackagedModel, fetch_packaged

TEXT = PackagedModel(
    name="lee-background",
    distribution="gensim",
    version="4.3.3",
    wheel_size=26_662_669,
    files=(
        PackagedFile(
            member="gensim/test/test_data/lee_background.cor",
            size=360_082,
            sha256="5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
        ),
    ),
)
WINDOW = 1024


@dataclass(frozen=True)
class Way:
    """A file, and how it is computed."""

    name: str
    shuffled: bool
    settings: dict[str, Any]


REFERENCE = Way("float32 sums of the file", False, {"dtype": "float32", "backend": "reference"})
WAYS = (
    Way("as stored", False, {"backend": "native"}),
    Way("bf16", False, {"quantization": "bf16"}),
    Way("int8", False, {"quantization": "int8"}),
    Way("int4", False, {"quantization": "int4"}),
    Way("shuffled, float32", True, {"backend": "native"}),
    Way("shuffled, bf16", True, {"quantization": "bf16"}),
    Way("shuffled, int8", True, {"quantization": "int8"}),
    Way("shuffled, int4", True, {"quantization": "int4"}),
)


@dataclass(frozen=True)
class Row:
    """`ratio` is to the reference's perplexity, `error` its standard error over the windows."""

    name: str
    perplexity: float
    ratio: float
    error: float


def window_losses(model: Path, settings: dict[str, Any], windows: int) -> list[float]:
    """The mean loss of each window, whose first token is given."""
    llm = LLM(model, context_length=WINDOW + 1, kv_memory="512MB", **settings)
    text = (TEXT.folder / TEXT.files[0].name).read_text(encoding="utf-8")
    ids = llm.tokenizer.encode(text)
    losses = []
    for start in range(0, windows * WINDOW, WINDOW):
        (score,) = llm.score([ids[start : start + WINDOW]])
        losses.append(-statistics.fmean(x for x in score.logprobs if x is not None))
    return losses


def compared(name: str, losses: list[float], reference: list[float]) -> Row:
    """A way beside the reference, window by window."""
    more = [a - b for a, b in zip(losses, reference, strict=True)]
    ratio = math.exp(statistics.fmean(more))
    error = ratio * statistics.stdev(more) / math.sqrt(len(more)) if len(more) > 1 else math.inf
    return Row(name, math.exp(statistics.fmean(losses)), ratio, error)


@contextmanager
def both_files(model: Path) -> Iterator[dict[bool, Path]]:
    """The model's file, and a shuffled one."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "shuffled.gguf"
        shuffle_channels(model, other)
        yield {False: model, True: other}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=20, help=f"how many windows of {WINDOW} tokens")
    parser.add_argument("--only", help="leave out ways whose names do not begin so")
    parser.add_argument(
        "--reference", type=Path, help="keep the reference's losses here, and take them from it"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    fetch_packaged(TEXT)
    model = resolve(None)
    kept = arguments.reference
    if kept is not None and kept.exists():
        reference = json.loads(kept.read_text(encoding="utf-8"))
    else:
        reference = window_losses(model, REFERENCE.settings, arguments.windows)
        if kept is not None:
            kept.write_text(json.dumps(reference), encoding="utf-8")
    reference = reference[: arguments.windows]
    rows = [compared(REFERENCE.name, reference, reference)]
    print(f"{'':28}{'perplexity':>12}{'ratio':>10}{'+-':>9}")
    print(f"{rows[0].name:28}{rows[0].perplexity:12.4f}", flush=True)
    with both_files(model) as files:
        for way in WAYS:
            if way.name.startswith(arguments.only or ""):
                losses = window_losses(files[way.shuffled], way.settings, len(reference))
                rows.append(compared(way.name, losses, reference))
                print(
                    f"{way.name:28}{rows[-1].perplexity:12.4f}{rows[-1].ratio:10.5f}{rows[-1].error:9.5f}",
                    flush=True,
                )
    if arguments.json is not None:
        about = {
            "date": datetime.now(timezone.utc).isoformat(),
            "processor": processor(),
            "torch": torch.__version__,
        }
        found = {**about, "model": model.name, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
