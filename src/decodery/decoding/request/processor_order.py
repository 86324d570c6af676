"""Defines the order in which processors are applied unless a request sets its own. Needs no torch."""

from __future__ import annotations

# First bans and penalties, on the model's own scale; then temperature; then truncations, from coarse to fine;
# then the watermark, which makes tokens likelier among those that are left. The kernel behind
# `strategies/fused_sampling.py` has the order of its own stages in its code (native/fused_sampling.hpp).
DEFAULT_ORDER = (
    "grammar",
    "sequence_bias",
    "encoder_repetition_penalty",
    "repetition_penalty",
    "presence_and_frequency_penalty",
    "dry",
    "no_repeat_ngram",
    "encoder_no_repeat_ngram",
    "bad_words",
    "min_tokens",
    "forced_bos",
    "forced_eos",
    "exponential_decay",
    "suppress_tokens",
    "begin_suppress_tokens",
    "allowed_token_ids",
    "logit_bias",
    "custom",
    "temperature",
    "top_n_sigma",
    "top_k",
    "tfs",
    "top_p",
    "min_p",
    "top_a",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "xtc",
    "mirostat",
    "watermark",
    "renormalize",
)
