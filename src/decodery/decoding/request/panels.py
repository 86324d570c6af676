"""Groups the parameters of generation as the help of the command line and the page show them."""

from __future__ import annotations

# The fields of `GenerationParams` that one value describes, under their headings.
PANELS: dict[str, tuple[str, ...]] = {
    "Length": (
        *("max_tokens", "max_length", "max_time", "min_tokens", "min_length"),
        *("exponential_decay_length_penalty", "stop", "stop_regex", "include_stop", "stop_token_ids"),
        *("ignore_eos", "forced_bos_token_id", "forced_eos_token_id"),
    ),
    "Sampling": (
        *("temperature", "seed", "n", "best_of", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff"),
        *("eta_cutoff", "top_n_sigma", "top_a", "tfs_z", "xtc_probability", "xtc_threshold"),
        *("dynatemp_range", "dynatemp_exponent", "mirostat_mode", "mirostat_tau", "mirostat_eta"),
        *("guidance_scale", "negative_prompt", "token_healing", "renormalize_logits", "processor_order"),
    ),
    "Penalties": (
        *("repetition_penalty", "presence_penalty", "frequency_penalty", "penalty_range"),
        *("penalize_prompt", "encoder_repetition_penalty", "no_repeat_ngram_size"),
        *("encoder_no_repeat_ngram_size", "dry_multiplier", "dry_base", "dry_allowed_length"),
        *("dry_range", "dry_sequence_breakers", "bad_words", "logit_bias", "sequence_bias"),
        *("allowed_token_ids", "suppress_tokens", "begin_suppress_tokens"),
    ),
    "Output": ("logprobs", "prompt_logprobs", "prompt_logprobs_start", "skip_special_tokens", "echo"),
}
