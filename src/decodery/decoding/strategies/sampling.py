"""Greedy decoding and sampling, with any number of streams and with drafts.

Most steps only choose one token for each row: `_judge_tokens_only` shows that whole path, from the logits to
the verdict. Steps with drafts to verify, or with more to report than tokens, go to `draft_verification`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from torch import Tensor

from decodery.decoding.processors.guidance import guided
from decodery.decoding.processors.pipeline import may_ban, plans_of, why_impossible
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import DraftModel, PromptLookup
from decodery.decoding.rows import Extension, Needs, Proposal, Row, Run, Scores, Survivor, Verdict
from decodery.decoding.stopping import finish_of
from decodery.decoding.strategies.draft_pace import draft_length
from decodery.decoding.strategies.draft_verification import verify_drafts
from decodery.decoding.strategies.drafting import draw_drafts
from decodery.decoding.strategies.forced_tokens import apply_forced_tokens, forced_by_grammar
from decodery.decoding.strategies.fused_sampling import can_fuse, sample_fused
from decodery.decoding.strategies.prompt_lookup import lookup_draft
from decodery.decoding.trace import Considered


class SamplingMethod:
    """Chooses one token for each row a step, and more as far as drafts agree.

    A row of several streams becomes one row for each stream.
    """

    def needs(self, params: GenerationParams) -> Needs:
        """Asks for nothing besides logits."""
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Returns, for each row, the tokens that its grammar forces, and then its speculation's drafts."""
        branches = []
        extend = []
        given = []
        for row in rows:
            # The token that reaches the row's limit is not run: nothing follows it.
            most = row.limit - len(row.tokens) - 1
            drafts = forced_by_grammar(row)[:most]
            certain = drafts and not _needs_likelihoods(row) and not may_ban(row)
            given.append(len(drafts) if certain else 0)
            count = draft_length(row, most - len(drafts))
            if count and isinstance(row.params.speculate, PromptLookup):
                tokens = row.tokens + array("q", drafts)
                drafts += lookup_draft(tokens, row.params.speculate.max_ngram, count)
            branches.append((drafts,))
            extend.append(count if isinstance(row.params.speculate, DraftModel) else 0)
        return Proposal(branches, Extension(extend, draw_drafts) if any(extend) else None, given)

    def logits(self, scores: Scores, positions: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """Returns the unprocessed logits `[positions, vocab]` by which the rows at these positions choose."""
        return guided(scores, positions, rows)

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """Returns one survivor for each stream of each row."""
        verdict = self._judge_tokens_only(rows, scores)
        return verify_drafts(rows, scores, self.logits) if verdict is None else verdict

    def _judge_tokens_only(self, rows: Sequence[Row], scores: Scores) -> Verdict | None:
        """Returns the verdict on the most common kind of step, or None for any other.

        In such a step each row takes the tokens that its grammar forces and then chooses one from its logits.
        No row needs more than its tokens, and the kernels can choose all of them.
        """
        runs = [run for (run,) in scores.runs]
        if not all(map(_needs_tokens_only, rows, runs)):
            return None
        # Checked before forced tokens are applied too: on None that work would be lost.
        if any(run.tokens for run in runs) and not can_fuse(scores.logits, rows, plans_of(rows)):
            return None
        after_forced = list(map(apply_forced_tokens, rows, runs))
        choosing = [i for i, forced in enumerate(after_forced) if forced.open]
        choosing_rows = [after_forced[i].row for i in choosing]
        plans = plans_of(choosing_rows)
        if not can_fuse(scores.logits, choosing_rows, plans):
            return None
        tokens: dict[int, int] = {}
        considered: dict[int, Considered | None] = {}
        failures: list[tuple[int, str]] = []
        if choosing:
            positions = [runs[i].at(after_forced[i].kept) for i in choosing]
            raw = self.logits(scores, positions, choosing_rows)
            found, records = sample_fused(raw, choosing_rows, plans)
            tokens = dict(zip(choosing, found, strict=True))
            considered = dict(zip(choosing, records, strict=True))
            # -1 means that no token is possible.
            failures = [
                (i, why_impossible(raw[k], choosing_rows[k])) for k, i in enumerate(choosing) if tokens[i] < 0
            ]
        survivors = []
        for i, (row, kept, finish, is_open) in enumerate(after_forced):
            if is_open:
                if tokens[i] < 0:
                    continue
                row = row.after(tokens[i])
                finish = finish_of(row)
            record = considered.get(i)
            explained = () if record is None else (record,)
            survivors.append(
                Survivor(i, row, kept, finish=finish, considered=explained, drafts=runs[i].tokens)
            )
        return Verdict(survivors, failures=failures)


def _needs_tokens_only(row: Row, run: Run) -> bool:
    """True if the row is one stream and its step finds nothing but tokens and what a choice considered.

    Its drafts, if any, are then the tokens that its grammar forces, and no ban can rule these out.
    """
    if len(row.streams) > 1 or row.params.speculate is not None or _reports_likelihoods(row):
        return False
    forced = forced_by_grammar(row)
    if row.explain and (forced or run.tokens):
        return False
    return run.tokens == forced[: len(run.tokens)] and (not forced or not may_ban(row))


def _needs_likelihoods(row: Row) -> bool:
    """True if the likelihoods of all its tokens are needed, also of those that its grammar forces."""
    return row.explain > 0 or _reports_likelihoods(row)


def _reports_likelihoods(row: Row) -> bool:
    """True if its tokens' probabilities are needed for log-probabilities or mirostat."""
    return row.params.logprobs is not None or bool(row.params.mirostat_mode)
