"""Measures the quality of answers: functions over lists that return a value, its unit and its error."""

from decodery.metrics.attempts import mean_pass_at_k, pass_at_k
from decodery.metrics.classification import accuracy, cohen_kappa, f1, matthews, precision, recall
from decodery.metrics.confidence import brier, brier_multiclass, calibration
from decodery.metrics.correlation import pearson, spearman
from decodery.metrics.differences import Difference, bootstrap, mcnemar
from decodery.metrics.likelihood import bits_per_byte, perplexity
from decodery.metrics.retrieval import (
    average_precision,
    ndcg,
    ndcg_of_ranking,
    over_queries,
    recall_at_k,
    reciprocal_rank,
)
from decodery.metrics.score import Score, mean, mean_of_scores
from decodery.metrics.short_answers import exact_match, token_f1
from decodery.metrics.summaries import Overlap, rouge, rouge_scores
from decodery.metrics.token_matching import bert_score, bert_scores, read_baseline
from decodery.metrics.translation import bleu, chrf, corpus_difference, sentence_bleu
from decodery.metrics.unrelated_texts import random_baseline

__all__ = [
    "Difference",
    "Overlap",
    "Score",
    "accuracy",
    "average_precision",
    "bert_score",
    "bert_scores",
    "bits_per_byte",
    "bleu",
    "bootstrap",
    "brier",
    "brier_multiclass",
    "calibration",
    "chrf",
    "cohen_kappa",
    "corpus_difference",
    "exact_match",
    "f1",
    "matthews",
    "mcnemar",
    "mean",
    "mean_of_scores",
    "mean_pass_at_k",
    "ndcg",
    "ndcg_of_ranking",
    "over_queries",
    "pass_at_k",
    "pearson",
    "perplexity",
    "precision",
    "random_baseline",
    "read_baseline",
    "recall",
    "recall_at_k",
    "reciprocal_rank",
    "rouge",
    "rouge_scores",
    "sentence_bleu",
    "spearman",
    "token_f1",
]
