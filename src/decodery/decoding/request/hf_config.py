"""Converts a GenerationConfig of transformers (4.48 to 5.x) to our parameters. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from decodery.decoding.request.checks import flag, token_ids, whole
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.request.speculation_params import PromptLookup
from decodery.decoding.request.strategy_params import BeamSearch, ContrastiveSearch, DoLa
from decodery.decoding.request.watermark_params import Watermark
from decodery.errors import ParameterError

Config = Mapping[str, Any]
Convert = Callable[[Config], dict[str, Any]]

# Defaults of transformers.
_TOP_K = 50
_NEW_TOKENS = 20
_MATCHING_NGRAM = 2

# Fields about how the text is computed, stored or reported; they never change it.
IGNORED = frozenset(
    (
        *("transformers_version", "pad_token_id", "bos_token_id", "decoder_start_token_id"),
        *("use_cache", "cache_config", "max_cache_len", "return_legacy_cache", "low_memory"),
        *("prefill_chunk_size", "compile_config", "disable_compile", "continuous_batching_config"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
        *("return_dict_in_generate", "use_mtp", "speculation_type", "assistant_early_exit"),
        *("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
        *("assistant_lookbehind", "target_lookbehind"),
    )
)

# Fields that are not supported: which values change nothing, and the error message for all others.
_REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "cache_implementation": (
        lambda value: value != "quantized",
        "a quantised cache changes the text; the cache here keeps the model's precision",
    ),
    "remove_invalid_values": (
        lambda value: not value,
        "scores that are not numbers are never replaced here; the request fails",
    ),
    "top_h": (lambda value: False, "there is no such truncation here; choose another, such as min_p"),
    "constraints": (lambda value: not value, "give force_words_ids in its place"),
    "forced_decoder_ids": (lambda value: not value, "put these tokens at the end of the prompt"),
    "generation_kwargs": (lambda value: not value, "models take no further arguments here"),
    "is_assistant": (
        lambda value: not value,
        "it ends a draft model's text early; give speculate=DraftModel(...) to the request",
    ),
    "assistant_ensemble_weight": (lambda value: False, "drafts never change what is accepted here"),
}

# Arguments of transformers' `generate` that users write beside a configuration's fields, and our names.
_ARGUMENTS = {
    "logits_processor": "logits_processors",
    "stopping_criteria": "stop_when",
    "prefix_allowed_tokens_fn": "grammar",
    "assistant_model": "speculate=DraftModel(...)",
    "negative_prompt_ids": "negative_prompt",
}


def fields(generation_config: Any) -> dict[str, Any]:
    """Returns the fields of GenerationParams that decode as transformers does under a configuration.

    The configuration is a mapping, the path of a generation_config.json or of its folder, or an object with
    `to_dict()`. A field that is None counts as not set. A field that is not set has transformers' default:
    greedy decoding, top_k 50 when sampling, and 20 new tokens. Two things differ: the text ends with the stop
    string, not with the token that holds its end; and forced_bos_token_id begins every text, not only those
    after a prompt of one token.

    Raises `ParameterError` naming the field if it is unknown, or if it is not supported here and would change
    the text.
    """
    config = {name: value for name, value in read(generation_config).items() if value is not None}
    _check_known(config)
    found = _lengths(config) | _strategy(config)
    for name, convert in (PROCESSING | _ENDING | _OTHER).items():
        if name in config:
            found |= convert(config)
    return found


def read(generation_config: Any) -> Config:
    """Returns a configuration's fields from a mapping, a path, or an object with `to_dict()`.

    Raises `ParameterError` if it is none of these or cannot be read.
    """
    if isinstance(generation_config, (str, Path)):
        return _read_file(Path(generation_config))
    to_dict = getattr(generation_config, "to_dict", None)
    found = to_dict() if callable(to_dict) else generation_config
    if not isinstance(found, Mapping):
        raise ParameterError(
            f"a generation config must be a mapping, a path or a GenerationConfig, not {generation_config!r}"
        )
    return found


def _read_file(path: Path) -> Config:
    file = path / "generation_config.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ParameterError(f"{file} holds no JSON object")
    return found


def bookkeeping(name: str) -> bool:
    """True if a field never changes the text; the names of transformers' own notes begin with _."""
    return name in IGNORED or name.startswith("_")


def _check_known(config: Config) -> None:
    known = {*PROCESSING, *SAMPLING, *_ENDING, *_OTHER, *_LENGTHS, *_STRATEGIES, *_REFUSED}
    unknown = [str(name) for name in config if name not in known and not bookkeeping(str(name))]
    for name in unknown:
        if name in _ARGUMENTS:
            raise ParameterError(
                f"{name} is no field of a generation config: give {_ARGUMENTS[name]} as an override"
            )
    if unknown:
        raise ParameterError(f"unknown field of a generation config: {', '.join(unknown)}")
    for name, (harmless, why) in _REFUSED.items():
        if name in config and not harmless(config[name]):
            raise ParameterError(f"{name} cannot be {config[name]!r}: {why}")


_LENGTHS = ("max_length", "max_new_tokens", "min_length", "min_new_tokens")


def _lengths(config: Config) -> dict[str, Any]:
    """Returns the lengths; a number of new tokens has precedence over one that counts the prompt too."""
    found: dict[str, Any] = {"max_tokens": config.get("max_new_tokens", _NEW_TOKENS)}
    if "max_new_tokens" not in config and "max_length" in config and not _default_length(config):
        found = {"max_tokens": None, "max_length": config["max_length"]}
    if "min_new_tokens" in config:
        found["min_tokens"] = config["min_new_tokens"]
    elif "min_length" in config:
        found["min_length"] = config["min_length"]
    return found


def _default_length(config: Config) -> bool:
    """True if max_length is the default that version 4 writes; it counts new tokens only."""
    return config["max_length"] == _NEW_TOKENS and str(config.get("transformers_version")).startswith("4.")


_STRATEGIES = (
    *("do_sample", "num_return_sequences", "num_beams", "length_penalty", "early_stopping"),
    *("num_beam_groups", "diversity_penalty", "force_words_ids", "penalty_alpha", "dola_layers"),
)


def _strategy(config: Config) -> dict[str, Any]:
    sample = config.get("do_sample", False)
    flag("do_sample", sample)
    whole("num_beams", config.get("num_beams", 1), 1)
    found: dict[str, Any] = {}
    if sample:
        found["top_k"] = _TOP_K
        for name, convert in SAMPLING.items():
            found |= convert(config) if name in config else {}
    strategy = _beams(config, sample) or _contrastive(config, sample)
    if strategy is None:
        return found | _single(config, sample)
    if "dola_layers" in config:
        raise ParameterError(f"dola_layers has no meaning with {type(strategy).__name__}: choose one")
    return found | {"strategy": strategy}


def _beams(config: Config, sample: bool) -> BeamSearch | None:
    beams, words = config.get("num_beams", 1), config.get("force_words_ids")
    if beams == 1:
        if words:
            raise ParameterError("force_words_ids needs num_beams of 2 or more")
        return None
    return BeamSearch(
        num_beams=beams,
        length_penalty=config.get("length_penalty", 1.0),
        early_stopping=config.get("early_stopping", False),
        num_return_sequences=config.get("num_return_sequences", 1),
        num_beam_groups=config.get("num_beam_groups", 1),
        diversity_penalty=config.get("diversity_penalty", 0.0),
        force_words=_force_words(words or ()),
        sample=sample,
    )


def _force_words(words: Any) -> tuple[Any, ...]:
    """Returns the phrases to force; an entry is a phrase, or a list of phrases of which one is enough."""
    found: list[Any] = []
    for word in words:
        disjunctive = isinstance(word, (list, tuple)) and word and not isinstance(word[0], int)
        parts = tuple(token_ids("force_words_ids", part) for part in word) if disjunctive else None
        found.append(parts or token_ids("force_words_ids", word))
    return tuple(found)


def _contrastive(config: Config, sample: bool) -> ContrastiveSearch | None:
    alpha, top_k = config.get("penalty_alpha", 0.0), config.get("top_k", _TOP_K)
    whole("top_k", top_k, 0)
    if sample or alpha == 0 or top_k <= 1:
        return None
    _no_more_than_one(config, "contrastive search")
    return ContrastiveSearch(top_k=top_k, penalty_alpha=alpha)


def _single(config: Config, sample: bool) -> dict[str, Any]:
    """Returns the fields of sampling or greedy decoding, either of them with DoLa if it is set."""
    found: dict[str, Any] = {}
    if "dola_layers" in config:
        found["strategy"] = DoLa(config["dola_layers"])
    if not sample:
        _no_more_than_one(config, "greedy decoding")
        return found | {"temperature": 0.0}
    return found | {"n": config.get("num_return_sequences", 1)}


def _no_more_than_one(config: Config, method: str) -> None:
    if config.get("num_return_sequences", 1) != 1:
        raise ParameterError(
            f"num_return_sequences is {config['num_return_sequences']!r}, and {method} gives one text:"
            " set do_sample or num_beams"
        )


def _same(name: str) -> Convert:
    return lambda config: {name: config[name]}


def _below_one(name: str) -> Convert:
    """Returns a converter that drops values of 1 or more, for which transformers skips the truncation."""
    return lambda config: {} if _number(config[name]) and config[name] >= 1 else {name: config[name]}


def _inside(name: str) -> Convert:
    """Returns a converter that drops values not between 0 and 1, for which transformers skips it."""
    return lambda config: (
        {} if _number(config[name]) and (config[name] <= 0 or config[name] >= 1) else {name: config[name]}
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# Fields that transformers applies only when it samples.
SAMPLING: dict[str, Convert] = {
    "temperature": _same("temperature"),
    "top_k": _same("top_k"),
    "top_p": _below_one("top_p"),
    "min_p": _same("min_p"),
    "typical_p": _below_one("typical_p"),
    "epsilon_cutoff": _inside("epsilon_cutoff"),
    "eta_cutoff": _inside("eta_cutoff"),
}


def _bad_words(config: Config) -> dict[str, Any]:
    """Returns the bad words without single end tokens, which transformers does not ban."""
    value = config["bad_words_ids"]
    if not isinstance(value, (list, tuple)):
        raise ParameterError(f"bad_words_ids must be a list of lists of token ids, not {value!r}")
    ends = {(token,) for token in _end_ids(config)}
    return {"bad_words": tuple(w for word in value if (w := token_ids("bad_words_ids", word)) not in ends)}


def _sequence_bias(config: Config) -> dict[str, Any]:
    """Returns biases from a mapping by tuples of token ids, or from pairs of a list of ids and a bias."""
    value = config["sequence_bias"]
    try:
        pairs = [(ids, bias) for ids, bias in (value.items() if isinstance(value, Mapping) else value)]
    except (TypeError, ValueError):
        raise ParameterError(f"sequence_bias must map lists of token ids to numbers, not {value!r}") from None
    return {"sequence_bias": tuple((token_ids("sequence_bias", ids), bias) for ids, bias in pairs)}


# Fields that transformers applies with every method.
PROCESSING: dict[str, Convert] = {
    "sequence_bias": _sequence_bias,
    "encoder_repetition_penalty": _same("encoder_repetition_penalty"),
    "repetition_penalty": _same("repetition_penalty"),
    "no_repeat_ngram_size": _same("no_repeat_ngram_size"),
    "encoder_no_repeat_ngram_size": _same("encoder_no_repeat_ngram_size"),
    "bad_words_ids": _bad_words,
    "suppress_tokens": _same("suppress_tokens"),
    "begin_suppress_tokens": _same("begin_suppress_tokens"),
    "renormalize_logits": _same("renormalize_logits"),
}


def _end_ids(config: Config) -> tuple[int, ...]:
    """Returns the configuration's end tokens except negative ones, which transformers never generates."""
    value = config.get("eos_token_id", ())
    listed = [value] if isinstance(value, int) else value
    if not isinstance(listed, (list, tuple)):
        raise ParameterError(f"eos_token_id must be a token id or a list of them, not {value!r}")
    return token_ids("eos_token_id", [i for i in listed if not (isinstance(i, int) and i < 0)])


def _ends(config: Config) -> dict[str, Any]:
    """Returns the fields that replace the model's end tokens with the configuration's."""
    return {"stop_token_ids": _end_ids(config), "ignore_eos": True}


def _stop_strings(config: Config) -> dict[str, Any]:
    least = config.get("min_new_tokens", 0)
    if _number(least) and least > 1:
        raise ParameterError(
            "stop_strings end a text before min_new_tokens in transformers and not here:"
            " leave one out and give stop or min_tokens as an override"
        )
    return {"stop": config["stop_strings"], "include_stop": True}


def _forced_end(config: Config) -> dict[str, Any]:
    value = config["forced_eos_token_id"]
    listed = value if isinstance(value, (list, tuple)) else [value]
    if len(listed) != 1:
        raise ParameterError(f"forced_eos_token_id must be one token here, not {value!r}")
    return {"forced_eos_token_id": listed[0]}


_ENDING: dict[str, Convert] = {
    "eos_token_id": _ends,
    "stop_strings": _stop_strings,
    "forced_bos_token_id": _same("forced_bos_token_id"),
    "forced_eos_token_id": _forced_end,
    "exponential_decay_length_penalty": _same("exponential_decay_length_penalty"),
    "max_time": _same("max_time"),
}


def _watermark(config: Config) -> dict[str, Any]:
    """Returns the watermark, and an order that applies it after all truncations, as transformers does."""
    value = config["watermarking_config"]
    found = value.to_dict() if hasattr(value, "to_dict") else value
    names = set(Watermark.__dataclass_fields__)
    if not isinstance(found, Mapping) or not set(found) <= names:
        raise ParameterError(
            f"watermarking_config must set some of {', '.join(sorted(names))} and nothing else, not {value!r}"
        )
    order = [name for name in DEFAULT_ORDER if name not in ("watermark", "renormalize")]
    return {"watermark": Watermark(**found), "processor_order": (*order, "watermark", "renormalize")}


def _prompt_lookup(config: Config) -> dict[str, Any]:
    return {
        "speculate": PromptLookup(
            max_ngram=config.get("max_matching_ngram_size", _MATCHING_NGRAM),
            num_tokens=config["prompt_lookup_num_tokens"],
            adaptive=False,
        )
    }


_OTHER: dict[str, Convert] = {
    "guidance_scale": _same("guidance_scale"),
    "watermarking_config": _watermark,
    "token_healing": _same("token_healing"),
    "prompt_lookup_num_tokens": _prompt_lookup,
    "max_matching_ngram_size": lambda config: {},
}
