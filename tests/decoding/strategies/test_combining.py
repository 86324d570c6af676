"""Checks what choices tell of the distributions that were combined, against the formulas in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from decodery.decoding.request.strategy_params import ContrastiveDecoding, ContrastiveSearch, DoLa, Sampling
from decodery.decoding.rows import Method, Row, Run, Scores
from decodery.decoding.strategies.contrastive_decoding import ContrastiveDecodingMethod
from decodery.decoding.strategies.contrastive_search import ContrastiveMethod
from decodery.decoding.strategies.dola import DoLaMethod
from decodery.decoding.strategies.sampling import SamplingMethod
from decodery.decoding.trace import Combined, Considered
from tests.decoding.rows import make_row

VOCAB, LAYERS, BETA, SCALE = 31, (0, 2, 3), 0.7, 1.6


def scores_of(positions: int, *runs: tuple[int, ...]) -> Scores:
    """Returns random scores of everything that a method may want; each run has one position more."""
    source = torch.Generator().manual_seed(positions)

    def random() -> Tensor:
        return torch.randn(positions, VOCAB, generator=source) * 3

    starts = [sum(len(run) + 1 for run in runs[:i]) for i in range(len(runs))]
    return Scores(
        random(),
        [(Run(run, start),) for run, start in zip(runs, starts, strict=True)],
        companion=random(),
        companion_at={position: positions - 1 - position for position in range(positions)},
        hidden=torch.randn(positions, 4, generator=source),
        layers={layer: random() for layer in range(5)},
        amateur=random(),
        context={0: torch.randn(1, 4, generator=source)},
    )


def explaining(row: Row, candidates: int = 4) -> Row:
    return replace(row, explain=candidates)


def logs(logits: Tensor, choice: Considered) -> list[float]:
    tokens = [candidate.token for candidate in choice.candidates]
    found: list[float] = logits.double().log_softmax(-1)[tokens].tolist()
    return found


def choices(method: Method, rows: Sequence[Row], scores: Scores) -> list[Considered]:
    # A judge may overwrite the logits.
    verdict = method.judge(rows, replace(scores, logits=scores.logits.clone()))
    return [choice for survivor in verdict.survivors for choice in survivor.considered]


def divergence(last: Tensor, earlier: Tensor) -> float:
    """Returns the sum of KL(mixture | p) over both, halved, as DoLa's usual implementation has it."""
    logp, logq = last.double().log_softmax(-1), earlier.double().log_softmax(-1)
    mixture = (logp.exp() + logq.exp()) / 2
    return float((mixture * (mixture.log() - (logp + logq) / 2)).sum())


def check(found: Combined, own: Sequence[float], other: Sequence[float]) -> None:
    assert found.own == pytest.approx(own, abs=1e-5)
    assert found.other == pytest.approx(other, abs=1e-5)


def test_dola_tells_both_layers_and_the_divergences_that_chose() -> None:
    scores = scores_of(2, (), ())
    row = explaining(make_row(strategy=DoLa(LAYERS), temperature=0))
    for position, choice in enumerate(choices(DoLaMethod(), [row, row], scores)):
        [found] = choice.combined
        assert scores.layers is not None
        last = scores.logits[position]
        expected = {layer: divergence(last, scores.layers[layer][position]) for layer in LAYERS}
        assert found.layer == max(LAYERS, key=expected.__getitem__)
        assert dict(found.divergences) == pytest.approx(expected, rel=1e-5)
        check(found, logs(last, choice), logs(scores.layers[found.layer][position], choice))
        # The contrast that was decided by is the difference.
        best = max(a - b for a, b in zip(found.own, found.other, strict=True))
        place = [candidate.token for candidate in choice.candidates].index(choice.token)
        assert found.own[place] - found.other[place] == pytest.approx(best)


def test_contrastive_decoding_tells_model_and_amateur() -> None:
    scores = scores_of(1, ())
    row = explaining(make_row(strategy=ContrastiveDecoding("small", beta=BETA), temperature=0))
    [choice] = choices(ContrastiveDecodingMethod(), [row], scores)
    [found] = choice.combined
    assert scores.amateur is not None
    check(found, logs(scores.logits[0], choice), logs(scores.amateur[0], choice))


def test_guidance_tells_the_text_after_both_prompts_at_every_draft() -> None:
    scores = scores_of(3, (5, 6))
    assert scores.companion is not None
    logp, logu = scores.logits.log_softmax(-1), scores.companion.flip(0).log_softmax(-1)
    drafts = tuple((logu + SCALE * (logp - logu)).argmax(-1)[:2].tolist())
    scores = replace(scores, runs=[(Run(drafts, 0),)])
    row = explaining(make_row(temperature=0, guidance_scale=SCALE))
    found = choices(SamplingMethod(), [row], scores)
    assert len(found) == 3
    for position, choice in enumerate(found):
        [combined] = choice.combined
        assert combined.name == "guidance"
        check(combined, logs(scores.logits[position], choice), logs(scores.companion[2 - position], choice))


def test_guidance_after_a_contrast_has_the_contrast_as_its_own() -> None:
    scores = scores_of(1, ())
    assert scores.amateur is not None
    assert scores.companion is not None
    strategy = ContrastiveDecoding("small", alpha=0.01, beta=BETA)
    row = explaining(make_row(strategy=strategy, temperature=0, guidance_scale=SCALE))
    [choice] = choices(ContrastiveDecodingMethod(), [row], scores)
    expert = scores.logits[0].double()
    contrast = (1 + BETA) * expert - BETA * scores.amateur[0].double()
    contrast[expert.softmax(-1) < 0.01 * expert.softmax(-1).max()] = -torch.inf
    first, second = choice.combined
    assert (first.name, second.name) == ("contrastive decoding", "guidance")
    check(second, logs(contrast, choice), logs(scores.companion[0], choice))


def test_contrastive_search_tells_guidance_of_its_candidates() -> None:
    scores = scores_of(1, ())
    assert scores.companion is not None
    row = explaining(make_row(strategy=ContrastiveSearch(2), guidance_scale=SCALE))
    verdict = ContrastiveMethod().judge([row], replace(scores, logits=scores.logits.clone()))
    state = verdict.survivors[0].row.state
    considered = state.candidates.considered  # type: ignore[attr-defined]
    assert len(considered) == 2
    for choice in considered:
        [combined] = choice.combined
        check(combined, logs(scores.logits[0], choice), logs(scores.companion[0], choice))


def test_nothing_is_told_where_nothing_is_combined_or_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("computed for a row that is not traced")

    [choice] = choices(SamplingMethod(), [explaining(make_row(strategy=Sampling()))], scores_of(1, ()))
    assert choice.combined == ()
    monkeypatch.setattr(DoLaMethod, "combined", never)
    assert choices(DoLaMethod(), [make_row(strategy=DoLa(LAYERS), temperature=0)], scores_of(1, ())) == []
