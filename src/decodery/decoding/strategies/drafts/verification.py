"""Verifies drafts: chooses a row's tokens one after the other for as long as each is the one drafted.

A row without drafts is the case of one token. Streams of a row are verified separately, and share their
processed logits for as long as they have the same tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.draw import choose, draw_key_of
from decodery.decoding.logprobs import logprobs_at
from decodery.decoding.processors.mirostat import updated_mu
from decodery.decoding.processors.pipeline import may_ban, plans_of, process, rules_out, why_impossible
from decodery.decoding.processors.shown_logits import with_logits
from decodery.decoding.recorder import Choice, Recorder
from decodery.decoding.rows import Row, Run, Scores, Survivor, Verdict
from decodery.decoding.stopping import finish_of
from decodery.decoding.strategies.drafts.acceptance import accept_or_replace, rejecting
from decodery.decoding.strategies.drafts.pace import paced
from decodery.decoding.strategies.forced_tokens import forced_by_grammar
from decodery.decoding.strategies.fused_sampling import can_fuse, sample_fused
from decodery.decoding.trace import Considered
from decodery.kernels.vocabulary.dispatch import copied

# A method's logits `[positions, vocab]`, before processing, of the rows at these positions of the scores.
LogitsAt = Callable[[Scores, Sequence[int], Sequence[Row]], Tensor]


@dataclass(slots=True)
class DraftVerification:
    """Holds the state of one stream of a row while the row's drafts are verified.

    The first `forced` drafts are the grammar's, the others the speculation's. `token` is the stream's next
    token, once it is known. Of the `steps` tokens appended so far, `kept` were drafts. `error` says why no
    token is possible after them.
    """

    parent: int
    row: Row
    run: Run
    forced: int
    token: int | None = None
    steps: int = 0
    kept: int = 0
    finish: FinishReason | None = None
    error: str | None = None
    done: bool = False
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    considered: list[Considered] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Returns the index, into the scores, of the position that scores the next token."""
        return self.run.at(self.steps)

    @property
    def draft(self) -> int | None:
        """Returns the draft of the next token, if there is one."""
        return self.run.tokens[self.steps] if self.steps < len(self.run.tokens) else None

    @property
    def drafted(self) -> Tensor | None:
        """Returns the logits `[vocab]` that the draft was drawn from, if it was drawn."""
        return None if self.run.drafted is None else self.run.drafted[self.steps - self.forced]

    def take(self, token: int) -> None:
        """Appends a token; the stream is done if the token ends it or is not the draft."""
        agrees = token == self.draft
        self.row = self.row.after(token)
        self.finish = finish_of(self.row)
        self.kept += agrees
        self.steps += 1
        self.done = self.finish is not None or not agrees

    def fail(self, reason: str) -> None:
        """Ends the stream after the tokens appended so far, since no token is possible."""
        self.finish, self.error, self.done = "error", reason, True


def verify_drafts(rows: Sequence[Row], scores: Scores, logits_at: LogitsAt) -> Verdict:
    """Returns one survivor for each stream of each row: the row after its drafts that were right and one
    token more, or without it and with an error where none is possible.

    `logits_at` gives the logits by which the rows choose.
    """
    verifications = [
        DraftVerification(
            i,
            row if len(row.streams) == 1 else replace(row, streams=(stream,)),
            run,
            len(forced_by_grammar(row)),
        )
        for i, (row, (run,)) in enumerate(zip(rows, scores.runs, strict=True))
        for stream in row.streams
    ]
    active = verifications
    while active:
        _advance(active, scores, logits_at)
        active = [v for v in active if not v.done]
    return Verdict([survivor_of(rows[v.parent], v) for v in verifications])


def _advance(verifications: Sequence[DraftVerification], scores: Scores, logits_at: LogitsAt) -> None:
    """Appends the next token of each stream; ends those for which none is possible."""
    for v in verifications:
        v.token = _forced_token(v, scores, logits_at)
    choosing = [v for v in verifications if v.token is None or v.row.explain or v.row.params.mirostat_mode]
    if choosing:
        _choose(choosing, scores, logits_at)
    known = [(v, v.token) for v in verifications if v.token is not None]
    _add_logprobs(scores, known)
    for v, token in known:
        v.take(token)


def _forced_token(v: DraftVerification, scores: Scores, logits_at: LogitsAt) -> int | None:
    """Returns the next token if the grammar forces it and no ban rules it out.

    Where it is ruled out, the token is chosen among the others that the grammar allows.
    """
    token = next(iter(forced_by_grammar(v.row)), None)
    if token is None or not may_ban(v.row):
        return token
    (logits,) = logits_at(scores, [v.position], [v.row])
    return None if rules_out(logits, v.row, token) else token


def _choose(verifications: Sequence[DraftVerification], scores: Scores, logits_at: LogitsAt) -> None:
    """Sets the next token of each stream where it is not forced; ends those for which none is possible.

    Both ways to choose give the same tokens, but traces that differ by rounding. So a stream's way must not
    depend on the other streams.
    """
    keys = [logits_key(k, v) for k, v in enumerate(verifications)]
    sharing = Counter(keys)
    fused: list[DraftVerification] = []
    others: list[tuple[int, DraftVerification]] = []
    for key, v in zip(keys, verifications, strict=True):
        alone = sharing[key] == 1 and _needs_token_only(v)
        if alone and can_fuse(scores.logits, [v.row], plans_of([v.row])):
            fused.append(v)
        else:
            others.append((key, v))
    if fused:
        rows = [v.row for v in fused]
        raw = logits_at(scores, [v.position for v in fused], rows)
        _set_tokens(fused, *sample_fused(raw, rows, plans_of(rows)), raw)
    if others:
        _choose_sharing(others, scores, logits_at)


def _choose_sharing(
    verifications: Sequence[tuple[int, DraftVerification]], scores: Scores, logits_at: LogitsAt
) -> None:
    """Does the same by processed logits, which streams of the same key share."""
    shared: dict[int, DraftVerification] = {}
    for key, v in verifications:
        shared.setdefault(key, v)
    places = {key: place for place, key in enumerate(shared)}
    rows = [v.row for v in shared.values()]
    raw = logits_at(scores, [v.position for v in shared.values()], rows)
    _choose_processed(
        [v for _, v in verifications], [places[key] for key, _ in verifications], raw, rows, plans_of(rows)
    )


def logits_key(k: int, v: DraftVerification) -> int:
    """Returns the key under which the k-th stream shares its processed logits with other streams.

    Before their first token the streams of a row share the row's. A stream has logits of its own afterwards,
    and wherever XTC decides by chance for each stream.
    """
    alone = v.steps > 0 or v.row.params.xtc_probability > 0
    return -1 - k if alone else v.parent


def _needs_token_only(v: DraftVerification) -> bool:
    """True if the stream's step has only its next token to choose, and not by rejection."""
    row = v.row
    return v.token is None and not row.params.mirostat_mode and (v.draft is None or not rejecting(row))


def _set_tokens(
    verifications: Sequence[DraftVerification],
    tokens: Sequence[int],
    considered: Sequence[Considered | None],
    raw: Tensor,
) -> None:
    """Sets each stream's next token and adds what its choice considered; ends those without a token (-1)."""
    for k, (v, token, record) in enumerate(zip(verifications, tokens, considered, strict=True)):
        if token >= 0:
            v.token = token
            v.considered += [] if record is None else [record]
        else:
            v.fail(why_impossible(raw[k], v.row))


def _choose_processed(
    verifications: Sequence[DraftVerification],
    places: Sequence[int],
    raw: Tensor,
    rows: Sequence[Row],
    plans: Sequence[list[str]],
) -> None:
    """Does the same as `_choose` by processed logits; also records the trace and updates mirostat's mu.

    `raw` `[rows, vocab]` are the logits of `rows`; `places[k]` is the index there of the k-th stream's.
    """
    recorder = Recorder(raw, rows) if any(row.explain for row in rows) else None
    # `raw` may be the scores' own tensor, which processing in place would overwrite.
    keep = any(_reads_raw_again(row) for row in rows)
    processed = process(raw, rows, recorder, in_place=not keep, plans=plans)
    own = processed if places == list(range(len(rows))) else copied(processed, places)
    explained: list[tuple[DraftVerification, Choice]] = []
    for k, (v, token) in enumerate(zip(verifications, _chosen(verifications, own), strict=True)):
        # A forced token may be ruled out.
        possible = token >= 0 if v.token is None else bool(own[k, token] > -math.inf)
        if not possible and v.token is None:
            v.fail(why_impossible(raw[places[k]], v.row))
            continue
        if v.row.explain:
            key = draw_key_of(v.row) if _draws(v) else None
            explained.append((v, Choice(places[k], token, key, forced=v.token is not None)))
        if possible and v.row.params.mirostat_mode:
            v.row = replace(v.row, mu=updated_mu(v.row, own[k], token))
        v.token = token
    if recorder is not None:
        records = recorder.considered([choice for _, choice in explained])
        for (v, choice), record in zip(explained, records, strict=True):
            v.considered.append(with_logits(record, raw[choice.place], v.row))


def _draws(v: DraftVerification) -> bool:
    """True if the next token is drawn with the noise of its position."""
    return v.token is None and not v.row.params.greedy and (v.draft is None or not rejecting(v.row))


def _reads_raw_again(row: Row) -> bool:
    """True if the row's raw logits may be read after it has chosen.

    A trace and log-probabilities are made from them. If a user's function fails, the step is judged again
    without its request.
    """
    params = row.params
    reported = row.explain > 0 or params.logprobs is not None
    return reported or bool(params.logits_processors) or params.stop_when is not None


def _chosen(verifications: Sequence[DraftVerification], processed: Tensor) -> list[int]:
    """Returns each stream's next token by its processed logits: the forced one even where it is impossible,
    -1 where none is possible."""
    chosen = {}
    for k, v in enumerate(verifications):
        if v.token is not None:
            chosen[k] = v.token
        elif v.draft is not None and rejecting(v.row):
            chosen[k] = accept_or_replace(v.row, processed[k], v.draft, v.drafted)
    if not chosen:
        return choose(processed, [v.row for v in verifications])
    others = [k for k in range(len(verifications)) if k not in chosen]
    tokens = choose(copied(processed, others), [verifications[k].row for k in others])
    chosen |= zip(others, tokens, strict=True)
    return [chosen[k] for k in range(len(verifications))]


def _add_logprobs(scores: Scores, known: Sequence[tuple[DraftVerification, int]]) -> None:
    """Adds the log-probability of each stream's next token where its request asks for it."""
    wanted = [
        (v, v.position, token, count) for v, token in known if (count := v.row.params.logprobs) is not None
    ]
    if not wanted:
        return
    asking, positions, tokens, counts = zip(*wanted, strict=True)
    found = logprobs_at(scores.logits, positions, tokens, counts)
    for v, logprobs in zip(asking, found, strict=True):
        v.logprobs.append(logprobs)


def survivor_of(before: Row, v: DraftVerification) -> Survivor:
    """Returns the survivor that a verified stream of row `before` becomes."""
    row = v.row
    if v.finish is None:
        row = paced(before, row, max(len(v.run.tokens) - v.forced, 0), max(v.kept - v.forced, 0))
    return Survivor(
        parent=v.parent,
        row=row,
        keep=v.kept,
        finish=v.finish,
        error=v.error,
        logprobs=tuple(v.logprobs),
        considered=tuple(v.considered),
        drafts=v.run.tokens,
    )
