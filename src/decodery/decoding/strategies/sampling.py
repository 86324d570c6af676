"""Greedy decoding and sampling, with any number of streams and with drafts.

Most rows are judged in one pass (`drafts.one_pass`). Those for which one call of a kernel cannot choose go to
`drafts.verification`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from torch import Tensor

from decodery.decoding.processors.guidance import guided
from decodery.decoding.processors.pipeline import may_ban
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import Auto, DraftModel, PromptLookup
from decodery.decoding.rows import Extension, Needs, Proposal, Row, Scores, Verdict
from decodery.decoding.strategies.combining import guidance_at, with_combined
from decodery.decoding.strategies.drafts.draft_model import draw_drafts
from decodery.decoding.strategies.drafts.one_pass import judge_in_one_pass
from decodery.decoding.strategies.drafts.pace import draft_length
from decodery.decoding.strategies.drafts.prompt_lookup import lookup_draft
from decodery.decoding.strategies.drafts.verification import verify_drafts
from decodery.decoding.strategies.forced_tokens import forced_by_grammar
from decodery.decoding.strategies.fused_sampling import fits_fused_sampling
from decodery.decoding.trace import Combined


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
        most_drafts = []
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
            most_drafts.append(most if not drafts and _drafts_by_itself(row) else 0)
            extend.append(count if isinstance(row.params.speculate, DraftModel) else 0)
        return Proposal(branches, Extension(extend, draw_drafts) if any(extend) else None, given, most_drafts)

    def logits(self, scores: Scores, positions: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """Returns the unprocessed logits `[positions, vocab]` by which the rows at these positions choose."""
        return guided(scores, positions, rows)

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """Returns one survivor for each stream of each row."""
        return with_combined(self._judged(rows, scores), rows, scores, self.combined)

    def combined(
        self, scores: Scores, position: int, row: Row, tokens: Sequence[int]
    ) -> tuple[Combined, ...]:
        """Returns what was combined into the logits at a position, told at these tokens."""
        return guidance_at(scores, position, row, tokens)

    def _judged(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        verdict, others = judge_in_one_pass(rows, scores, self.logits)
        if not others:
            return verdict
        verified = verify_drafts([rows[i] for i in others], scores.of_rows(others), self.logits)
        verified = verified.of_group(others)
        # A request's rows are adjacent, and its survivors in the order of its rows.
        survivors = sorted([*verdict.survivors, *verified.survivors], key=lambda survivor: survivor.parent)
        return Verdict(survivors, failures=[*verdict.failures, *verified.failures])


def _drafts_by_itself(row: Row) -> bool:
    """True if the engine may draft for a row: one call of a kernel judges it, and no function of the user's
    sees its tokens."""
    params = row.params
    if not isinstance(params.speculate, Auto) or row.generated == 0 or len(row.streams) > 1:
        return False
    functions = params.logits_processors or params.stop_when is not None
    return not (functions or params.guided or params.mirostat_mode) and fits_fused_sampling(row)


def _needs_likelihoods(row: Row) -> bool:
    """True if its tokens' probabilities are needed: for a trace, log-probabilities or mirostat."""
    return row.explain > 0 or row.params.logprobs is not None or bool(row.params.mirostat_mode)
