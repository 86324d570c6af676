"""Describes how a router's scores choose the experts of a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Routing:
    """Says how the scores of all experts choose `count` of them and their weights.

    A probability is the softmax of the scores, or the logistic function of each. The experts with the highest
    scores are chosen, or with a bias, those with the highest sums of probability and bias. If `kept_groups`
    is less than `groups`, only the experts of the best groups are chosen. A group's value is the sum of its
    `best_of_group` highest values. Of equal values the first counts as higher.

    A weight is the probability, divided by the sum of those chosen if `renormalised`, times `factor`. For
    softmaxes, this quotient is the softmax of the chosen scores.

    With `within`, a weight is instead that of the best score that is left, in the softmax of the scores that
    are left and near it: their distance is at most `within` times the larger of it and their own size
    (SparseMixer: Liu et al., Sparse Backpropagation for MoE Training, 2023, and Phi-3, 2024).

    Shazeer et al., Outrageously Large Neural Networks (2017); DeepSeek-AI, DeepSeek-V3 Technical Report
    (2024), section 2.1.2.
    """

    count: int
    probability: Literal["softmax", "sigmoid"] = "softmax"
    renormalised: bool = True
    factor: float = 1.0
    groups: int = 1
    kept_groups: int = 1
    best_of_group: int = 1
    within: float | None = None
