"""Measures how packed weights change the perplexity of a real text (`python -m bench.perplexity`).

The reference computes the file's weights in float32. The text is the newspaper reports in the wheel of
gensim, which is fetched once through pip; its hash is checked.
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
from datetime import UTC, datetime
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
class Variant:
    """Names a file, shuffled or not, and the settings of `LLM` that compute it."""

    name: str
    shuffled: bool
    settings: dict[str, Any]


REFERENCE = Variant("float32 sums of the file", False, {"dtype": "float32", "backend": "torch"})
VARIANTS = (
    Variant("as stored", False, {"backend": "native"}),
    Variant("bf16", False, {"quantization": "bf16"}),
    Variant("int8", False, {"quantization": "int8"}),
    Variant("int4", False, {"quantization": "int4"}),
    Variant("shuffled, float32", True, {"backend": "native"}),
    Variant("shuffled, bf16", True, {"quantization": "bf16"}),
    Variant("shuffled, int8", True, {"quantization": "int8"}),
    Variant("shuffled, int4", True, {"quantization": "int4"}),
)


@dataclass(frozen=True)
class Row:
    """Holds a variant's perplexity and its `ratio` to the reference's.

    `error` is the standard error of the ratio over the windows.
    """

    name: str
    perplexity: float
    ratio: float
    error: float


def window_losses(model: Path, settings: dict[str, Any], windows: int) -> list[float]:
    """Returns the mean loss in nats of each window of `WINDOW` tokens, without its first token."""
    llm = LLM(model, context_length=WINDOW + 1, kv_memory="512MB", **settings)
    text = (TEXT.folder / TEXT.files[0].name).read_text(encoding="utf-8")
    ids = llm.tokenizer.encode(text)
    losses = []
    for start in range(0, windows * WINDOW, WINDOW):
        (score,) = llm.score([ids[start : start + WINDOW]])
        losses.append(-statistics.fmean(x for x in score.logprobs if x is not None))
    return losses


def compare_losses(name: str, losses: list[float], reference: list[float]) -> Row:
    """Returns the figures of a variant; its losses are compared with the reference's window by window."""
    more = [a - b for a, b in zip(losses, reference, strict=True)]
    ratio = math.exp(statistics.fmean(more))
    error = ratio * statistics.stdev(more) / math.sqrt(len(more)) if len(more) > 1 else math.inf
    return Row(name, math.exp(statistics.fmean(losses)), ratio, error)


@contextmanager
def both_files(model: Path) -> Iterator[dict[bool, Path]]:
    """Yields the model's file under False, and a file with shuffled channels under True."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "shuffled.gguf"
        shuffle_channels(model, other)
        yield {False: model, True: other}


def main() -> None:
    """Measures the variants and prints their perplexities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=20, help=f"how many windows of {WINDOW} tokens")
    parser.add_argument("--only", help="measure only variants whose names begin with this")
    parser.add_argument(
        "--reference", type=Path, help="read the reference's losses from this file; write it if it is missing"
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
    rows = [compare_losses(REFERENCE.name, reference, reference)]
    print(f"{'':28}{'perplexity':>12}{'ratio':>10}{'+-':>9}")
    print(f"{rows[0].name:28}{rows[0].perplexity:12.4f}", flush=True)
    with both_files(model) as files:
        for variant in VARIANTS:
            if variant.name.startswith(arguments.only or ""):
                losses = window_losses(files[variant.shuffled], variant.settings, len(reference))
                rows.append(compare_losses(variant.name, losses, reference))
                print(
                    f"{variant.name:28}{rows[-1].perplexity:12.4f}{rows[-1].ratio:10.5f}{rows[-1].error:9.5f}",
                    flush=True,
                )
    if arguments.json is not None:
        about = {
            "date": datetime.now(UTC).isoformat(),
            "processor": processor(),
            "torch": torch.__version__,
        }
        found = {**about, "model": model.name, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
