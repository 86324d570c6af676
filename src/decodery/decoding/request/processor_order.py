"""The order in which processors are applied unless a request sets its own. Needs no torch."""

from __future__ import annotations

# What must not happen first, on the model's own scale; then temperature; then truncation, from coarse to
# fine; last what a watermark makes likelier among the tokens that are left.
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
