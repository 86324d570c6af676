"""Greedy decoding and sampling, with any number of streams."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.draw import draw, draw_key, stream_seed
from decodery.decoding.logprobs import token_logprobs
from decodery.decoding.pipeline import process
from decodery.decoding.rows import Proposal, Row, Scores, Survivor, TokenLogprobs, Verdict
from decodery.decoding.stopping import after_token
from decodery.decoding.trace import consider


class SamplingMethod:
    """One token for each row a step; a row that stands for several streams parts into them."""

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Nothing beyond the last token."""
        return Proposal([()] * len(rows))

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """One survivor for each stream of each row."""
        index = torch.tensor(scores.offsets[:-1], device=scores.logits.device)
        raw = scores.logits if len(index) == len(scores.logits) else scores.logits[index]
        processed = process(raw, rows)
        streams = [(i, stream) for i, row in enumerate(rows) for stream in row.streams]
        tokens = choose(processed, rows, streams)
        possible = processed[[i for i, _ in streams], tokens] > -torch.inf
        logprobs = _logprobs(raw, rows, streams, tokens)
        survivors, failures = [], []
        for (i, stream), token, able in zip(streams, tokens, possible.tolist(), strict=True):
            if not able:
                failures.append((i, _why_impossible(raw[i])))
                continue
            row = rows[i]
            finish, watch = after_token(row, len(row.tokens), token, row.watch)
            survivors.append(
                Survivor(
                    parent=i,
                    tokens=(token,),
                    streams=(stream,),
                    finish=finish,
                    watch=watch,
                    logprobs=logprobs.get((i, stream), ()),
                    considered=(consider(raw[i], processed[i], token, row.explain),) if row.explain else (),
                )
            )
        return Verdict(survivors, failures)


def _why_impossible(raw: Tensor) -> str:
    if bool(raw.isnan().any()):
        return "the model's scores are not numbers (NaN): its weights are damaged or overflow in this dtype"
    return "no token is possible: logit_bias or min_tokens ban every one"


def choose(processed: Tensor, rows: Sequence[Row], streams: Sequence[tuple[int, int]]) -> list[int]:
    """The next token of each (row index, stream): the likeliest for greedy rows, else a seeded draw."""
    greedy = [k for k, (i, _) in enumerate(streams) if rows[i].params.greedy]
    drawn = [k for k, (i, _) in enumerate(streams) if not rows[i].params.greedy]
    tokens = [0] * len(streams)
    for part, chooser in ((greedy, _likeliest), (drawn, _drawn)):
        if part:
            chosen = chooser(processed, rows, [streams[k] for k in part])
            for k, token in zip(part, chosen.tolist(), strict=True):
                tokens[k] = token
    return tokens


def _likeliest(processed: Tensor, rows: Sequence[Row], streams: Sequence[tuple[int, int]]) -> Tensor:
    return _rows_of(processed, streams).argmax(-1)


def _drawn(processed: Tensor, rows: Sequence[Row], streams: Sequence[tuple[int, int]]) -> Tensor:
    keys = [draw_key(stream_seed(rows[i].seed, stream), len(rows[i].tokens)) for i, stream in streams]
    return draw(_rows_of(processed, streams), keys)


def _rows_of(logits: Tensor, streams: Sequence[tuple[int, int]]) -> Tensor:
    if [i for i, _ in streams] == list(range(len(logits))):
        return logits
    return logits[torch.tensor([i for i, _ in streams], device=logits.device)]


def _logprobs(
    raw: Tensor, rows: Sequence[Row], streams: Sequence[tuple[int, int]], tokens: Sequence[int]
) -> dict[tuple[int, int], tuple[TokenLogprobs, ...]]:
    wanted = [
        (key, token, count)
        for key, token in zip(streams, tokens, strict=True)
        if (count := rows[key[0]].params.logprobs) is not None
    ]
    if not wanted:
        return {}
    keys, chosen, counts = zip(*wanted, strict=True)
    results = token_logprobs(_rows_of(raw, keys), chosen, counts)
    return {key: (result,) for key, result in zip(keys, results, strict=True)}
