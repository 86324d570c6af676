from __future__ import annotations

import json
import random
import subprocess
import sys
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GenerationMixin, WatermarkingConfig

from decodery.decoding.processors.pipeline import PROCESSORS, process
from decodery.decoding.request.checkpoint_defaults import default_params
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.request.speculation_params import PromptLookup
from decodery.decoding.request.strategy_params import BeamSearch, ContrastiveSearch, DoLa
from decodery.decoding.request.watermark_params import Watermark
from decodery.decoding.rows import Row
from decodery.errors import ParameterError

ORACLE = Path(__file__).parents[2] / "data" / "decoding-smollm2.json"
CASES = json.loads(ORACLE.read_text(encoding="utf-8"))["cases"]

Given = dict[str, Any]
GREEDY: Given = {"max_tokens": 20, "temperature": 0.0}
SAMPLED: Given = {"max_tokens": 20, "top_k": 50}
# For beams and contrastive search only the length is set, and no token is cut.
RANKED: Given = {"max_tokens": 20}

# A configuration of transformers, and the parameters that decode in the same way.
TABLE: list[tuple[Given, Given]] = [
    ({}, GREEDY),
    ({"do_sample": False}, GREEDY),
    ({"do_sample": None}, GREEDY),
    ({"temperature": 0.3, "top_k": 9, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5}, GREEDY),
    ({"epsilon_cutoff": 3e-4, "eta_cutoff": 3e-4}, GREEDY),
    ({"do_sample": True}, SAMPLED),
    ({"do_sample": True, "top_k": None}, SAMPLED),
    ({"do_sample": True, "top_k": 0}, {**SAMPLED, "top_k": 0}),
    ({"do_sample": True, "temperature": 0.3}, {**SAMPLED, "temperature": 0.3}),
    ({"do_sample": True, "top_p": 0.5}, {**SAMPLED, "top_p": 0.5}),
    ({"do_sample": True, "top_p": 1.5}, SAMPLED),
    ({"do_sample": True, "min_p": 0.1}, {**SAMPLED, "min_p": 0.1}),
    ({"do_sample": True, "typical_p": 0.5}, {**SAMPLED, "typical_p": 0.5}),
    ({"do_sample": True, "typical_p": 1}, SAMPLED),
    ({"do_sample": True, "epsilon_cutoff": 3e-4}, {**SAMPLED, "epsilon_cutoff": 3e-4}),
    ({"do_sample": True, "epsilon_cutoff": 1.0}, SAMPLED),
    ({"do_sample": True, "eta_cutoff": 3e-4}, {**SAMPLED, "eta_cutoff": 3e-4}),
    ({"do_sample": True, "eta_cutoff": -1.0}, SAMPLED),
    ({"do_sample": True, "num_return_sequences": 3}, {**SAMPLED, "n": 3}),
    # Lengths: a number of new tokens wins; 20 is what version 4 writes where there is none.
    ({"max_new_tokens": 7}, {**GREEDY, "max_tokens": 7}),
    ({"max_length": 7}, {**GREEDY, "max_tokens": None, "max_length": 7}),
    ({"max_length": 7, "max_new_tokens": 9}, {**GREEDY, "max_tokens": 9}),
    ({"max_length": 20}, {**GREEDY, "max_tokens": None, "max_length": 20}),
    ({"max_length": 20, "transformers_version": "4.48.3"}, GREEDY),
    ({"max_length": 20, "transformers_version": "5.1.0"}, {**GREEDY, "max_tokens": None, "max_length": 20}),
    ({"min_new_tokens": 5}, {**GREEDY, "min_tokens": 5}),
    ({"min_length": 5}, {**GREEDY, "min_length": 5}),
    ({"min_length": 9, "min_new_tokens": 5}, {**GREEDY, "min_tokens": 5}),
    ({"max_time": 2.5}, {**GREEDY, "max_time": 2.5}),
    # End tokens and stop strings.
    ({"eos_token_id": 3}, {**GREEDY, "stop_token_ids": (3,), "ignore_eos": True}),
    ({"eos_token_id": [3, 4]}, {**GREEDY, "stop_token_ids": (3, 4), "ignore_eos": True}),
    ({"eos_token_id": -1}, {**GREEDY, "ignore_eos": True}),
    ({"stop_strings": "x"}, {**GREEDY, "stop": ("x",), "include_stop": True}),
    ({"stop_strings": ["x", "y"]}, {**GREEDY, "stop": ("x", "y"), "include_stop": True}),
    ({"forced_bos_token_id": 3}, {**GREEDY, "forced_bos_token_id": 3}),
    ({"forced_eos_token_id": 3}, {**GREEDY, "forced_eos_token_id": 3}),
    ({"forced_eos_token_id": [3]}, {**GREEDY, "forced_eos_token_id": 3}),
    (
        {"exponential_decay_length_penalty": [5, 1.1]},
        {**GREEDY, "exponential_decay_length_penalty": (5, 1.1)},
    ),
    # Processors.
    ({"repetition_penalty": 1.3}, {**GREEDY, "repetition_penalty": 1.3}),
    ({"encoder_repetition_penalty": 1.3}, {**GREEDY, "encoder_repetition_penalty": 1.3}),
    ({"no_repeat_ngram_size": 3}, {**GREEDY, "no_repeat_ngram_size": 3}),
    ({"encoder_no_repeat_ngram_size": 3}, {**GREEDY, "encoder_no_repeat_ngram_size": 3}),
    ({"bad_words_ids": [[1], [2, 3]]}, {**GREEDY, "bad_words": ((1,), (2, 3))}),
    (
        {"bad_words_ids": [[1], [2, 3]], "eos_token_id": 1},
        {**GREEDY, "bad_words": ((2, 3),), "stop_token_ids": (1,), "ignore_eos": True},
    ),
    ({"sequence_bias": {(1, 2): 0.5}}, {**GREEDY, "sequence_bias": (((1, 2), 0.5),)}),
    ({"sequence_bias": [[[1, 2], 0.5]]}, {**GREEDY, "sequence_bias": (((1, 2), 0.5),)}),
    ({"suppress_tokens": [1, 2]}, {**GREEDY, "suppress_tokens": (1, 2)}),
    ({"begin_suppress_tokens": [1, 2]}, {**GREEDY, "begin_suppress_tokens": (1, 2)}),
    ({"renormalize_logits": True}, {**GREEDY, "renormalize_logits": True}),
    ({"guidance_scale": 1.0}, GREEDY),
    ({"guidance_scale": 1.5}, {**GREEDY, "guidance_scale": 1.5}),
    ({"token_healing": True}, {**GREEDY, "token_healing": True}),
    # Strategies.
    ({"num_beams": 3}, {**RANKED, "strategy": BeamSearch(3)}),
    ({"num_beams": 3, "temperature": 0.5, "top_k": 4}, {**RANKED, "strategy": BeamSearch(3)}),
    (
        {"num_beams": 3, "length_penalty": 0.5, "early_stopping": "never", "num_return_sequences": 2},
        {
            **RANKED,
            "strategy": BeamSearch(3, length_penalty=0.5, early_stopping="never", num_return_sequences=2),
        },
    ),
    (
        {"num_beams": 3, "do_sample": True, "temperature": 0.5},
        {**SAMPLED, "temperature": 0.5, "strategy": BeamSearch(3, sample=True)},
    ),
    (
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {**RANKED, "strategy": BeamSearch(4, num_beam_groups=2, diversity_penalty=0.5)},
    ),
    (
        {"num_beams": 3, "force_words_ids": [[1], [2, 3], [[4], [5, 6]]]},
        {**RANKED, "strategy": BeamSearch(3, force_words=((1,), (2, 3), ((4,), (5, 6))))},
    ),
    ({"length_penalty": 2.0, "early_stopping": True, "num_beam_groups": 2, "diversity_penalty": 1.0}, GREEDY),
    ({"penalty_alpha": 0.6, "top_k": 4}, {**RANKED, "strategy": ContrastiveSearch(4, 0.6)}),
    ({"penalty_alpha": 0.6}, {**RANKED, "strategy": ContrastiveSearch(50, 0.6)}),
    ({"penalty_alpha": 0.6, "top_k": 1}, GREEDY),
    ({"penalty_alpha": 0.0, "top_k": 4}, GREEDY),
    ({"penalty_alpha": 0.6, "do_sample": True}, SAMPLED),
    ({"penalty_alpha": 0.6, "num_beams": 3}, {**RANKED, "strategy": BeamSearch(3)}),
    ({"dola_layers": "low"}, {**GREEDY, "strategy": DoLa("low")}),
    ({"dola_layers": [2, 4], "do_sample": True}, {**SAMPLED, "strategy": DoLa((2, 4))}),
    # Speculation and watermarks.
    ({"prompt_lookup_num_tokens": 5}, {**GREEDY, "speculate": PromptLookup(2, 5, adaptive=False)}),
    (
        {"prompt_lookup_num_tokens": 5, "max_matching_ngram_size": 4},
        {**GREEDY, "speculate": PromptLookup(4, 5, adaptive=False)},
    ),
    ({"max_matching_ngram_size": 4}, GREEDY),
    # Fields that never change the text.
    ({"use_cache": False, "output_attentions": True, "num_assistant_tokens": 7, "pad_token_id": 0}, GREEDY),
    ({"cache_implementation": "static", "remove_invalid_values": False, "is_assistant": False}, GREEDY),
    ({"transformers_version": "5.0.0", "_from_model_config": True, "_commit_hash": "abc"}, GREEDY),
]

# A configuration that must be refused, and a pattern that the message matches.
REFUSED: list[tuple[Given, str]] = [
    ({"temprature": 1.0}, "temprature"),
    ({"one": 1, "two": 2}, "one, two"),
    ({"logits_processor": []}, "logits_processor.*logits_processors"),
    ({"negative_prompt_ids": [1]}, "negative_prompt_ids.*negative_prompt"),
    ({"assistant_model": 1}, "DraftModel"),
    ({"top_h": 0.5}, "top_h"),
    ({"cache_implementation": "quantized"}, "cache_implementation"),
    ({"remove_invalid_values": True}, "remove_invalid_values"),
    ({"constraints": [1]}, "constraints.*force_words_ids"),
    ({"forced_decoder_ids": [[1, 2]]}, "forced_decoder_ids"),
    ({"generation_kwargs": {"a": 1}}, "generation_kwargs"),
    ({"is_assistant": True}, "is_assistant"),
    ({"assistant_ensemble_weight": 0.5}, "assistant_ensemble_weight"),
    ({"do_sample": "yes"}, "do_sample"),
    ({"do_sample": True, "temperature": "hot"}, "temperature"),
    ({"do_sample": True, "top_p": "high"}, "top_p"),
    ({"do_sample": True, "epsilon_cutoff": [1]}, "epsilon_cutoff"),
    ({"num_beams": 0}, "num_beams"),
    ({"num_beams": "4"}, "num_beams"),
    ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
    ({"num_return_sequences": 3}, "num_return_sequences.*greedy"),
    ({"num_return_sequences": 3, "penalty_alpha": 0.6}, "num_return_sequences.*contrastive"),
    ({"force_words_ids": [[1]]}, "force_words_ids.*num_beams"),
    ({"force_words_ids": ["dragon"], "num_beams": 2}, "force_words_ids"),
    ({"force_words_ids": [3], "num_beams": 2}, "force_words_ids"),
    ({"force_words_ids": [[1]], "num_beams": 2, "do_sample": True}, "force_words"),
    ({"dola_layers": "low", "num_beams": 2}, "dola_layers.*BeamSearch"),
    ({"dola_layers": "low", "penalty_alpha": 0.6}, "dola_layers.*ContrastiveSearch"),
    ({"prompt_lookup_num_tokens": 3, "num_beams": 2}, "speculate.*BeamSearch"),
    ({"stop_strings": ["x"], "min_new_tokens": 5}, "stop_strings.*min_new_tokens"),
    ({"forced_eos_token_id": [1, 2]}, "forced_eos_token_id"),
    ({"eos_token_id": "x"}, "eos_token_id"),
    ({"bad_words_ids": 3}, "bad_words_ids"),
    ({"bad_words_ids": ["no"]}, "bad_words_ids"),
    ({"sequence_bias": 3}, "sequence_bias"),
    ({"sequence_bias": {"(1, 2)": 0.5}}, "sequence_bias"),
    ({"watermarking_config": 3}, "watermarking_config"),
    ({"watermarking_config": {"ngram_len": 5, "keys": [1]}}, "watermarking_config"),
]

FIELDS_OF_4_48 = """
    max_length max_new_tokens min_length min_new_tokens early_stopping max_time stop_strings do_sample
    num_beams num_beam_groups penalty_alpha dola_layers use_cache cache_implementation cache_config
    return_legacy_cache
    temperature top_k top_p min_p typical_p epsilon_cutoff eta_cutoff diversity_penalty repetition_penalty
    encoder_repetition_penalty length_penalty no_repeat_ngram_size bad_words_ids force_words_ids
    renormalize_logits constraints forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens forced_decoder_ids sequence_bias
    token_healing guidance_scale low_memory watermarking_config num_return_sequences output_attentions
    output_hidden_states output_scores output_logits return_dict_in_generate pad_token_id bos_token_id
    eos_token_id encoder_no_repeat_ngram_size decoder_start_token_id is_assistant num_assistant_tokens
    num_assistant_tokens_schedule assistant_confidence_threshold prompt_lookup_num_tokens
    max_matching_ngram_size assistant_early_exit assistant_lookbehind target_lookbehind compile_config
    disable_compile generation_kwargs _from_model_config _commit_hash transformers_version
"""


def case_id(case: Any) -> str:
    return str(case) if isinstance(case, str) else str(list(case))


@pytest.mark.parametrize(("config", "expected"), TABLE, ids=case_id)
def test_a_configuration_becomes_the_parameters_that_decode_in_the_same_way(
    config: Given, expected: Given
) -> None:
    assert GenerationParams.from_hf(config) == GenerationParams(**expected)


@pytest.mark.parametrize(("config", "named"), REFUSED, ids=case_id)
def test_a_field_that_is_unknown_or_not_supported_is_an_error_that_names_it(
    config: Given, named: str
) -> None:
    with pytest.raises(ParameterError, match=named) as raised:
        GenerationParams.from_hf(config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", sorted({*GenerationConfig().to_dict(), *FIELDS_OF_4_48.split()}))
def test_every_field_of_transformers_is_known(name: str) -> None:
    message = ""
    try:
        GenerationParams.from_hf({name: object()})
    except ParameterError as error:
        message = str(error)
    assert "unknown" not in message


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_oracles_arguments_are_converted(case: dict[str, Any]) -> None:
    params = GenerationParams.from_hf({**case["args"], "max_new_tokens": 40})
    assert params.max_tokens == 40
    assert params.greedy == (isinstance(params.strategy, DoLa) or case["name"].startswith("greedy"))


def test_a_watermark_comes_after_all_truncations() -> None:
    for given in (WatermarkingConfig(bias=3.0), {"bias": 3.0}):
        params = GenerationParams.from_hf({"do_sample": True, "watermarking_config": given})
        assert params.watermark == Watermark(bias=3.0)
        assert params.processor_order is not None
        assert params.processor_order[-2:] == ("watermark", "renormalize")
        assert sorted(params.processor_order) == sorted(DEFAULT_ORDER)


def test_a_configuration_is_read_from_wherever_it_is(tmp_path: Path) -> None:
    given = {"do_sample": True, "top_p": 0.9, "eos_token_id": [3]}
    expected = GenerationParams.from_hf(given)
    config = GenerationConfig(**given)
    config.save_pretrained(tmp_path)
    for source in (config, tmp_path, str(tmp_path), tmp_path / "generation_config.json", config.to_dict()):
        assert GenerationParams.from_hf(source) == expected


def test_overrides_are_fields_of_ours_and_come_last() -> None:
    params = GenerationParams.from_hf({"min_new_tokens": 30, "temperature": 0.5}, max_tokens=50, top_k=3)
    assert (params.min_tokens, params.max_tokens, params.temperature, params.top_k) == (30, 50, 0.0, 3)
    with pytest.raises(ParameterError, match="max_new_tokens"):
        GenerationParams.from_hf({}, max_new_tokens=5)


def test_a_source_without_a_configuration_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("[1")
    (tmp_path / "list.json").write_text("[1]")
    for source, message in (
        (3, "must be a mapping"),
        (tmp_path, "not valid JSON"),
        (tmp_path / "list.json", "no JSON object"),
        (tmp_path / "none.json", "cannot be read"),
    ):
        with pytest.raises(ParameterError, match=message):
            GenerationParams.from_hf(source)


def test_conversion_needs_neither_torch_nor_transformers() -> None:
    program = (
        "import sys; from decodery.decoding.request.params import GenerationParams;"
        "import decodery.decoding.request.checkpoint_defaults; GenerationParams.from_hf({'num_beams': 2});"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


VOCABULARY, PROMPT, NEW = 97, 9, 40
# Truncations and penalties of random configurations, each left out half of the time.
CHOICES: dict[str, list[Any]] = {
    "temperature": [0.3, 0.8, 1.7],
    "top_k": [0, 1, 5, 40],
    "top_p": [0.2, 0.7, 0.95, 1.0],
    "min_p": [0.0, 0.05, 0.4],
    "typical_p": [0.3, 0.8, 1.0],
    "epsilon_cutoff": [0.0, 0.003, 0.02],
    "eta_cutoff": [0.0, 0.003, 0.05],
    "repetition_penalty": [0.8, 1.3],
    "encoder_repetition_penalty": [0.8, 1.3],
    "no_repeat_ngram_size": [0, 1, 2, 3],
    "encoder_no_repeat_ngram_size": [0, 2, 3],
    "bad_words_ids": [[[5], [6, 7]], [[8, 9, 10], [3]]],
    "sequence_bias": [[[[11], 2.5], [[12, 13], -3.0]]],
    "min_length": [5, 30],
    "min_new_tokens": [1, 20],
    "forced_eos_token_id": [3],
    "exponential_decay_length_penalty": [[2, 1.2], [30, 1.5]],
    "suppress_tokens": [[1, 2], [90, 96]],
    "begin_suppress_tokens": [[4, 5, 6]],
    "renormalize_logits": [False, True],
}
STAGES = {
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p", "typical_p")},
    **{name: name for name in ("epsilon_cutoff", "eta_cutoff", "repetition_penalty", "sequence_bias")},
    **{name: name for name in ("encoder_repetition_penalty", "suppress_tokens", "begin_suppress_tokens")},
    "no_repeat_ngram_size": "no_repeat_ngram",
    "encoder_no_repeat_ngram_size": "encoder_no_repeat_ngram",
    "bad_words_ids": "bad_words",
    "min_length": "min_tokens",
    "min_new_tokens": "min_tokens",
    "forced_eos_token_id": "forced_eos",
    "exponential_decay_length_penalty": "exponential_decay",
    "renormalize_logits": "renormalize",
}


def random_config(rng: random.Random) -> Given:
    found = {name: rng.choice(values) for name, values in CHOICES.items() if rng.random() < 0.5}
    return {"do_sample": True, "max_new_tokens": NEW, "eos_token_id": [3, 14], **found}


def transformers_logits(config: Given, tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
    prepared = GenerationConfig(**{"top_k": 50, **config})
    prepared._eos_token_tensor = torch.tensor(config["eos_token_id"])
    model: Any = SimpleNamespace(
        config=SimpleNamespace(is_encoder_decoder=False),
        _merge_criteria_processor_list=lambda ours, none: ours,
    )
    prepared = GenerationMixin._prepare_generated_length(
        model, prepared, True, True, "input_ids", PROMPT, None
    )
    processors = GenerationMixin._get_logits_processor(
        model,
        prepared,
        input_ids_seq_length=PROMPT,
        encoder_input_ids=torch.tensor([tokens[:PROMPT]]),
        device="cpu",
        model_kwargs={},
    )
    result: torch.Tensor = processors(torch.tensor([tokens]), logits[None].clone())
    return result[0]


@pytest.mark.parametrize("seed", range(60))
def test_processed_logits_are_those_of_transformers(seed: int) -> None:
    rng = random.Random(seed)
    config = random_config(rng)
    # Few different tokens, so that n-grams repeat, and generated lengths at which processors start or stop.
    generated = rng.choice([0, 1, 4, 19, 20, NEW - 1])
    tokens = [rng.randrange(4, 20) for _ in range(PROMPT + generated)]
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    row = Row(
        request=0,
        params=GenerationParams.from_hf(config),
        seed=0,
        streams=(0,),
        tokens=array("q", tokens),
        prompt_length=PROMPT,
        limit=PROMPT + NEW,
        end_ids=frozenset(config["eos_token_id"]),
    )
    ours = process(logits[None], [row])[0]
    torch.testing.assert_close(ours, transformers_logits(config, tokens, logits), atol=1e-5, rtol=1e-5)


def test_every_random_choice_is_a_stage_of_the_pipeline() -> None:
    assert set(STAGES) == set(CHOICES)
    assert set(STAGES.values()) <= set(PROCESSORS)


def test_defaults_are_the_checkpoints_sampling_settings() -> None:
    found = default_params({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 0}, 100)
    assert found.params == GenerationParams(temperature=0.6, top_p=0.9)
    assert (found.given, found.left_out) == ({"temperature": 0.6, "top_p": 0.9}, {})


def test_without_do_sample_the_settings_of_sampling_still_count() -> None:
    assert default_params({"temperature": 0.6}, 100).params == GenerationParams(temperature=0.6)


def test_do_sample_false_is_greedy() -> None:
    found = default_params({"do_sample": False, "temperature": 0.6, "repetition_penalty": 1.1}, 100)
    assert found.params == GenerationParams(temperature=0, repetition_penalty=1.1)
    assert found.left_out == {"temperature": "nothing is sampled: do_sample is false"}


def test_lengths_end_tokens_and_strategies_are_no_defaults() -> None:
    config = {"max_length": 20, "num_beams": 4, "eos_token_id": 2, "transformers_version": "4.48.3"}
    found = default_params({**config, "_from_model_config": True, "pad_token_id": 0}, 100)
    assert (found.params, found.given) == (GenerationParams(), {})
    assert sorted(found.left_out) == ["max_length", "num_beams"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", -1),
        ("temperature", [0.5]),
        ("top_p", {}),
        ("top_k", 101),
        ("suppress_tokens", [100]),
        ("suppress_tokens", "x"),
        ("bad_words_ids", 7),
        ("sequence_bias", [1]),
        ("eta_cutoff", None),
        ("do_sample", "maybe"),
        ("whatever", object()),
    ],
)
def test_only_the_damaged_field_is_left_out(name: str, value: Any) -> None:
    found = default_params({"min_p": 0.1, name: value}, 100)
    assert found.params == GenerationParams(min_p=0.1)
    assert list(found.left_out) == ([] if value is None else [name])


def test_an_empty_configuration_gives_our_own_defaults() -> None:
    assert default_params({}, 100).params == GenerationParams()
