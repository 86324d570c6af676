"""Finds the likeliest tokens for the masks of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.input_errors import numbered
from decodery.encoding.results import MaskFill
from decodery.encoding.tasks.head_scores import Floats, head_scores, softmax
from decodery.encoding.tasks.inputs import checked_text, several
from decodery.encoding.tasks.pieces import in_text, inserted
from decodery.encoding.texts import single
from decodery.errors import ModelError, ParameterError, RequestError
from decodery.text.tokenizer.tokenizer import Tokenizer, without_surrogates
from decodery.token_ids import listed_prompts

DEFAULT_TOP_K = 5


def fill_mask(
    parts: EncoderParts, inputs: Any, *, top_k: int | None = None, targets: Sequence[str] | None = None
) -> list[list[list[MaskFill]]]:
    """Returns the likeliest tokens for each mask of each text; `LLM.fill_mask` explains the arguments."""
    parts.head("masked_lm")
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise ParameterError(f"top_k must be a whole number from 1 on, not {top_k!r}")
    mask = mask_token(parts)
    wanted = None if targets is None else several(targets, "targets")
    for target in wanted or ():
        target_token(parts.tokenizer, target, None)
    texts = [without_surrogates(checked_text(text, "each text")) for text in listed_prompts(inputs)]
    read, spans = [], []
    for index, text in enumerate(texts):
        with numbered(index, len(texts)):
            spans.append(mask_spans(parts, text, mask))
            for start, _ in spans[-1]:
                target_tokens(parts.tokenizer, wanted or (), text[:start])
            read.append(single(parts, text))
    places = [[place for place, token in enumerate(text.ids) if token == mask] for text in read]
    found: list[list[list[MaskFill]]] = [[] for _ in texts]
    # The scores of a mask are as many as the vocabulary has tokens, so those of one text are kept at a time.
    for index, rows in head_scores(parts, "masked_lm", read, places):
        found[index] = [
            _fills(parts.tokenizer, texts[index], span, row, top_k, wanted)
            for span, row in zip(spans[index], rows, strict=True)
        ]
    return found


def mask_token(parts: EncoderParts) -> int:
    """Returns the id of the mask token; raises `ModelError` if the vocabulary has none."""
    found = parts.tokenizer.named_ids.get("mask")
    if found is None:
        raise ModelError(
            f"{parts.folder}: the tokenizer's files name no mask token, so that there is nothing to fill"
        )
    return found


def mask_spans(parts: EncoderParts, text: str, mask: int) -> list[tuple[int, int]]:
    """Returns where the masks of a text are, in characters, without the space before them.

    Raises `RequestError` if there are none.
    """
    written = parts.tokenizer.token_bytes(mask).decode()
    ids, spans = parts.tokenizer.encode_spans(text, add_special_tokens=False)
    data = text.encode()
    found = []
    for token, (_, end) in zip(ids, spans, strict=True):
        if token == mask:
            stop = len(data[:end].decode("utf-8", "replace"))
            place = text.rfind(written, 0, stop)
            found.append((place, place + len(written)))
    if not found:
        raise RequestError(f"the text has no mask: write {written} where a word is missing")
    return found


def _fills(
    tokenizer: Tokenizer,
    text: str,
    span: tuple[int, int],
    logits: Floats,
    top_k: int | None,
    targets: Sequence[str] | None,
) -> list[MaskFill]:
    before, after = text[: span[0]], text[span[1] :]
    probabilities = softmax(logits)
    if targets is None:
        chosen = best_tokens(logits, top_k or DEFAULT_TOP_K, tokenizer)
    else:
        wanted = target_tokens(tokenizer, targets, before)
        chosen = sorted(wanted, key=lambda token: (-logits[token], token))[:top_k]
    return [
        MaskFill(
            token_id=token,
            token=in_text(tokenizer, token).strip(),
            score=float(probabilities[token]),
            text=inserted(tokenizer, token, before, after),
        )
        for token in chosen
    ]


def best_tokens(logits: Floats, count: int, tokenizer: Tokenizer) -> list[int]:
    """Returns the ids with the largest logits [vocab], equal ones by id, none that has no text."""
    # A model may have more rows than tokens.
    asked = min(2 * count + 64, len(logits))
    while True:
        least = np.partition(logits, len(logits) - asked)[len(logits) - asked]
        ids = np.flatnonzero(logits >= least)
        ids = ids[np.argsort(-logits[ids], kind="stable")]
        found = [token for token in ids.tolist() if tokenizer.token_bytes(token)]
        if len(found) >= count or asked == len(logits):
            return found[:count]
        asked = min(2 * asked, len(logits))


def target_tokens(tokenizer: Tokenizer, targets: Sequence[str], before: str) -> set[int]:
    """Returns the tokens that are the targets behind the text `before` a mask."""
    spaced = before[-1].isspace() if before else None
    return {target_token(tokenizer, target, spaced) for target in targets}


def target_token(tokenizer: Tokenizer, target: str, spaced: bool | None) -> int:
    """Returns the token that is a target in the place of a mask.

    `spaced` is True behind a space, and False behind another character; None takes either form. Raises
    `ParameterError` for a target of several tokens, or of none that the vocabulary has.
    """
    if not isinstance(target, str) or not target.strip():
        raise ParameterError(f"each target must be a word, not {target!r}")
    after_space = target if target[0].isspace() else f" {target}"
    forms = [target] if spaced is False else [after_space] if spaced else [after_space, target]
    for form in forms:
        ids = tokenizer.encode(form, add_special_tokens=False)
        if len(ids) == 1 and ids[0] not in tokenizer.special_ids and _fits(tokenizer, ids[0], target, spaced):
            return ids[0]
    known = tokenizer.token_id(target)
    if known is not None and _fits(tokenizer, known, target, spaced):
        return known
    pieces = tokenizer.encode(forms[0], add_special_tokens=False)
    if len(pieces) == 1:
        where = "" if spaced is not False else ", as a token without a space before it"
        raise ParameterError(f"target {target!r} is not in the vocabulary{where}")
    labels = " ".join(map(tokenizer.token_label, pieces))
    raise ParameterError(
        f"target {target!r} has {len(pieces)} tokens ({labels}), and a mask is one: give a word of one token"
    )


def _fits(tokenizer: Tokenizer, token: int, target: str, spaced: bool | None) -> bool:
    """True if a token stands for a target where a space, or none, is before it."""
    piece = in_text(tokenizer, token)
    # A token of WordPiece knows of no space, and one that is named as it is stored is meant as it is.
    if spaced is None or piece == f" {tokenizer.token_text(token)}" or piece.strip() != target:
        return True
    return piece.startswith(" ") == spaced
