"""Makes vectors of texts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.results import Embeddings, Precision
from decodery.encoding.text_batches import TokenText
from decodery.encoding.texts import parts_of_text
from decodery.encoding.vectors.pooling import pooled, pooling_named
from decodery.encoding.vectors.precision import at_precision, check_precision
from decodery.encoding.vectors.unit_length import of_unit_length
from decodery.errors import DecoderyError, ModelError, ParameterError, RequestError
from decodery.progress import counting
from decodery.token_ids import listed_prompts

LongText = Literal["error", "cut", "windows"]


@dataclass(frozen=True)
class VectorOptions:
    """Holds how the vectors of one call are made: the arguments of `embed`, and else what the folder says."""

    pooling: tuple[str, ...]
    reads_prompt: bool
    normalizes: bool
    width: int
    prompt: str
    long: LongText


def embed(
    parts: EncoderParts,
    texts: Any,
    *,
    prompt_name: str | None = None,
    prompt: str | None = None,
    pooling: str | None = None,
    normalize: bool | None = None,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    ranges: ArrayLike | None = None,
    long: LongText = "error",
    query: bool = False,
    document: bool = False,
    progress: bool | None = None,
) -> Embeddings:
    """Returns the vector of each text; `EncodingCalls.embed` explains the arguments and the errors."""
    names = {"prompt_name": prompt_name, "prompt": prompt, "query": query, "document": document}
    options = _options(parts, names, pooling, normalize, truncate_dim, long)
    checked = check_precision(precision, ranges, options.width)
    listed = listed_prompts(texts)
    read = [_read(parts, options, listed, index) for index in range(len(listed))]
    flat = [window for windows in read for window in windows]
    show = progress if progress is not None else len(listed) > 1 and sys.stderr.isatty()
    with _bar(len(flat), show) as advance:
        rows = _pooled(parts, options, flat, advance)
    vectors = np.empty((len(read), options.width), np.float32)
    start = 0
    for index, windows in enumerate(read):
        weights = [sum(end - first for first, end in window.content) for window in windows]
        vectors[index] = _finished(rows[start : start + len(windows)], weights, options)
        start += len(windows)
    _check_finite(parts, vectors)
    return Embeddings(
        at_precision(vectors, precision, checked),
        np.array([sum(len(window.ids) for window in windows) for windows in read], np.int64),
        np.array([sum(window.lost for window in windows) for windows in read], np.int64),
        "+".join(options.pooling),
        precision,
        options.width,
    )


def _options(
    parts: EncoderParts,
    prompts: dict[str, Any],
    pooling: str | None,
    normalize: bool | None,
    truncate_dim: int | None,
    long: LongText,
) -> VectorOptions:
    settings = parts.vectors
    chosen = settings.pooling if pooling is None else pooling_named(pooling)
    if not chosen:
        raise ParameterError(
            "this model does not say how its states become a vector: give pooling=, for one that continues"
            ' texts pooling="last", for others what it was trained for, such as "mean" or "cls"'
        )
    if settings.layers and len(chosen) != len(settings.pooling):
        raise ParameterError(
            f"pooling {pooling!r} gives a vector of another width than the layers behind it take, which are"
            f" trained for {'+'.join(settings.pooling)}"
        )
    width = settings.width if settings.layers else parts.model.width * len(chosen)
    if truncate_dim is not None:
        is_whole = isinstance(truncate_dim, Integral) and not isinstance(truncate_dim, bool)
        if not is_whole or not 1 <= truncate_dim <= width:
            raise ParameterError(
                f"truncate_dim must be a whole number from 1 to {width}, not {truncate_dim!r}"
            )
        width = int(truncate_dim)
    elif settings.truncate_dim is not None:
        width = min(settings.truncate_dim, width)
    if long not in ("error", "cut", "windows"):
        raise ParameterError(f"long must be error, cut or windows, not {long!r}")
    if normalize is not None and not isinstance(normalize, bool):
        raise ParameterError(f"normalize must be True, False or None, not {normalize!r}")
    normalizes = settings.normalizes if normalize is None else normalize
    return VectorOptions(chosen, settings.reads_prompt, normalizes, width, settings.prompt(**prompts), long)


def _read(parts: EncoderParts, options: VectorOptions, texts: Sequence[Any], index: int) -> list[TokenText]:
    """Returns the windows of a text, one unless it is too long; an error names one text of several."""
    settings = parts.vectors
    try:
        found = parts_of_text(
            parts,
            texts[index],
            prompt=options.prompt,
            limit=settings.limit,
            long=options.long,
            lowers=settings.lowers,
        )
        if any(_first(options, window) == len(window.ids) for window in found):
            raise RequestError("the text has no token beside its prompt, which the model does not pool")
        return found
    except DecoderyError as error:
        if len(texts) == 1:
            raise
        raise type(error)(f"text {index}: {error}", param=f"texts[{index}]") from None


@torch.inference_mode()
def _pooled(
    parts: EncoderParts, options: VectorOptions, texts: Sequence[TokenText], advance: Callable[[], None]
) -> NDArray[np.float32]:
    """Returns the vectors [texts, width] of texts before they are cut and normalised."""
    layers = parts.vectors.layers
    poolings = _by_place(parts, options.pooling)
    rows = np.empty((len(texts), parts.model.width * len(options.pooling)), np.float32)
    if layers:
        rows = np.empty((len(texts), parts.vectors.width), np.float32)
    for batch in parts.runner.run(texts):
        states = batch.states.float().cpu().numpy()
        for index, start, length in zip(batch.indices, batch.starts, batch.lengths, strict=True):
            # Each text apart, so that the others cannot change its bits.
            vector = pooled(states[start : start + length], poolings, _first(options, texts[index]))
            rows[index] = through_layers(layers, vector, parts) if layers else vector
            advance()
    return rows


def _by_place(parts: EncoderParts, poolings: Sequence[str]) -> tuple[str, ...]:
    """Returns ways to pool in which "cls" is the first token: XLNet's CLS token is the last one."""
    layout = parts.tokenizer.single_layout
    last = not layout.before.ids and layout.after.ids[-1:] == (parts.tokenizer.named_ids.get("cls"),)
    return tuple("lasttoken" if last and pooling == "cls" else pooling for pooling in poolings)


def through_layers(
    layers: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    vector: NDArray[np.float32],
    parts: EncoderParts,
) -> NDArray[np.float32]:
    """Returns what the layers behind the pooling make of a vector."""
    found = torch.from_numpy(vector)[None].to(parts.model.device)
    for layer in layers:
        found = layer(found)
    return found[0].cpu().numpy()


def _first(options: VectorOptions, text: TokenText) -> int:
    """Returns the place of the first token that is pooled."""
    return 0 if options.reads_prompt or not options.prompt else text.content[0][0]


def _finished(
    rows: NDArray[np.float32], weights: Sequence[int], options: VectorOptions
) -> NDArray[np.float64]:
    """Returns the vector of a text from those of its windows [windows, width], weighted by their tokens."""
    exact = rows.astype(np.float64)
    if len(exact) > 1:
        whole = np.zeros(exact.shape[1])
        for weight, row in zip(weights, exact, strict=True):
            whole += weight * (of_unit_length(row) if options.normalizes else row)
        exact = whole[None] / sum(weights)
    cut = exact[0][: options.width]
    return of_unit_length(cut) if options.normalizes else cut


def _check_finite(parts: EncoderParts, vectors: NDArray[np.float32]) -> None:
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise ModelError(
            f"{parts.folder}: the vector of text {wrong[0]} holds numbers that are not finite: the weights"
            " are damaged, or too large for their precision"
        )


def _bar(total: int, show: bool) -> AbstractContextManager[Callable[[], None]]:
    return counting("reading", total) if show else nullcontext(lambda: None)
