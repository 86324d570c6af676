"""Implements `decodery eval bertscore-baseline`."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from decodery.cli.flags.line_options import EncoderOptions
from decodery.cli.load_encoder import encoder_settings, load_encoder
from decodery.cli.resumable_file import check_outputs, replace_file
from decodery.cli.terminal import aligned, emit, note
from decodery.errors import ParameterError
from decodery.evaluation.layouts.text_files import read_texts
from decodery.llm import LLM
from decodery.metrics.score import Score
from decodery.metrics.unrelated_texts import BLOCK, Pair, PairTotals, baseline_of, random_pairs, with_pairs
from decodery.progress import counting


def bertscore_baseline(
    lines: Path,
    model: EncoderOptions,
    out: Path,
    *,
    field: str,
    layers: str,
    limit: int | None,
    seed: int,
) -> None:
    """Writes the BERTScore of unrelated texts for each layer, in the layout of bert-score's files.

    What a stopped command has measured stands in `out`.part.json, from which the same command goes on.
    """
    if limit is not None and limit < 2:
        raise ParameterError(f"limit must be 2 or more, not {limit}")
    check_outputs([out], [lines])
    texts = list(dict.fromkeys(text for text in read_texts(lines, field) if text.strip()))[:limit]
    if len(texts) < 2:
        raise ParameterError(f"{lines} has {len(texts)} different texts that are not empty; two are needed")
    wanted = None if layers == "all" else _numbers(layers)
    llm = load_encoder(model)
    depth = llm.encoder.model.depth
    numbers = wanted or list(range(depth + 1))
    if max(numbers) > depth:
        raise ParameterError(f"layers must be from 0 to {depth}, the layers of {llm.path.name}, not {layers}")
    pairs = random_pairs(texts, seed)
    digest = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    settings = {"pairs": digest, "layers": numbers, **encoder_settings(model, llm)}
    totals = _measured(llm, numbers, pairs, out.with_name(f"{out.name}.part.json"), settings)
    rows = ["LAYER,P,R,F"]
    for number, total in zip(numbers, totals, strict=True):
        rows.append(",".join([str(number), *(f"{value:.8f}" for value in baseline_of(total))]))
    replace_file(out, "".join(f"{row}\n" for row in rows))
    out.with_name(f"{out.name}.part.json").unlink(missing_ok=True)
    emit(_table(numbers, totals))


def _numbers(layers: str) -> list[int]:
    """Returns the numbers in "6" or "0,5,6", in their order."""
    try:
        found = sorted({int(number) for number in layers.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 0:
        raise ParameterError(f"layers must be all, or numbers from 0 such as 5,6, not {layers!r}")
    return found


def _measured(
    llm: LLM, numbers: Sequence[int], pairs: Sequence[Pair], state: Path, settings: dict[str, Any]
) -> tuple[PairTotals, ...]:
    """Returns the totals of each layer over all pairs, from those in the file `state` on."""
    done, totals = _begun(state, settings, len(numbers))
    if done:
        note(f"decodery: {done} of {len(pairs)} pairs are measured already")
    shown = counting("pairs", len(pairs)) if sys.stderr.isatty() else nullcontext(lambda: None)
    with shown as advance:
        for _ in range(done):
            advance()
        for start in range(done, len(pairs), BLOCK):
            block = pairs[start : start + BLOCK]
            totals = with_pairs(
                totals, block, lambda texts: llm.embed_token_layers(texts, numbers, long="cut")
            )
            content = {"settings": settings, "done": start + len(block), "totals": list(map(asdict, totals))}
            replace_file(state, json.dumps(content))
            for _ in block:
                advance()
    return totals


def _begun(state: Path, settings: dict[str, Any], layers: int) -> tuple[int, tuple[PairTotals, ...]]:
    """Returns the number of pairs that are done, and their totals."""
    if not state.exists():
        return 0, (PairTotals(),) * layers
    try:
        found = json.loads(state.read_text(encoding="utf-8"))
        same = found["settings"] == json.loads(json.dumps(settings))
        totals = tuple(
            PairTotals(one["counted"], one["undefined"], _triple(one["sums"]), _triple(one["squares"]))
            for one in found["totals"]
        )
        done = int(found["done"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ParameterError(f"{state} is damaged: remove it to begin again ({error})") from error
    if not same:
        raise ParameterError(
            f"{state} was begun with other texts or settings: give the same ones, or remove it to begin again"
        )
    return done, totals


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _table(numbers: Sequence[int], totals: Sequence[PairTotals]) -> str:
    rows = [["layer", "P", "R", "F", "pairs", "without a value"]]
    for number, total in zip(numbers, totals, strict=True):
        cells = [_shown(score) for score in total.scores()]
        rows.append([str(number), *cells, str(total.counted), str(total.undefined)])
    return aligned(rows, right=(0, 4, 5)) + "± is the standard error of the mean over pairs\n"


def _shown(score: Score) -> str:
    return f"{score.value:.4f}" + ("" if score.error is None else f" ± {score.error:.4f}")
