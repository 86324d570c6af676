"""Checks what the settings of Phi 3 mean, and that a text keeps its set of rotary frequencies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import DraftModel, PromptLookup
from decodery.errors import ModelError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.llama import Llama, LlamaConfig
from decodery.models.decoders.phi3 import PHI3
from decodery.models.layers.attention import DenseAttend
from decodery.models.layers.rope import LongRope, Rope
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.parameters import export_parameters
from tests.engine.runs import make_engine, run
from tests.kernels.native.fixtures import built
from tests.models.decoders.families import Tiny, write_folder
from tests.models.decoders.rms_norm_families import PHI3 as SETTINGS
from tests.models.decoders.rms_norm_families import longrope
from tests.models.test_config_reader import Metadata
from tests.weights.test_parameters import InMemory

ORIGINAL = 24
GREEDY = GenerationParams(max_tokens=8, temperature=0)


def config_of(**settings: Any) -> LlamaConfig:
    return PHI3.config.from_hub({**SETTINGS, **settings})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(Tiny("Phi3ForCausalLM", longrope(6, ORIGINAL)), tmp_path_factory.mktemp("phi3"))


@pytest.fixture(scope="module")
def on_torch(folder: Path) -> Llama:
    with open_checkpoint(folder) as checkpoint:
        model = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    assert isinstance(model, Llama)
    return model


@pytest.fixture(scope="module")
def native(folder: Path) -> Any:
    with open_checkpoint(folder) as checkpoint:
        return load_for_inference(checkpoint, dtype=torch.float32, kernels=NativeKernels())


@pytest.mark.parametrize("kind", ["su", "yarn", "longrope"])
def test_three_names_mean_longrope(kind: str) -> None:
    rope = config_of(**longrope(6, 64, type=kind)).rope
    assert isinstance(rope, LongRope)
    assert rope.original_length == 64
    magnitude = math.sqrt(1 + math.log(512 / 64) / math.log(64))
    assert rope.magnitudes == pytest.approx((magnitude, magnitude))
    assert config_of(**longrope(6, 64, rope_type=kind)).rope == rope


def test_a_factor_or_a_magnitude_of_its_own_replaces_the_quotient_of_the_lengths() -> None:
    with_factor = config_of(**longrope(6, 64, factor=2.0)).rope
    assert isinstance(with_factor, LongRope)
    assert with_factor.magnitudes[0] == pytest.approx(math.sqrt(1 + math.log(2) / math.log(64)))
    with_magnitude = config_of(**longrope(6, 64, attention_factor=1.5)).rope
    assert isinstance(with_magnitude, LongRope)
    assert with_magnitude.magnitudes == (1.5, 1.5)
    shorter = config_of(**{**longrope(6, 64), "max_position_embeddings": 64}).rope
    assert isinstance(shorter, LongRope)
    assert shorter.magnitudes == (1.0, 1.0)


def test_without_keys_there_is_no_window_and_all_of_a_head_rotates() -> None:
    config = config_of()
    assert (config.windows, config.rotated_size, config.rope) == ((), 12, Rope())
    assert (config.tied_head, config.norm_eps) == (False, 1e-5)
    assert config_of(sliding_window=None).windows == ()
    assert config_of(sliding_window=0).windows == ()
    assert config_of(partial_rotary_factor=0.5).rotated_size == 6


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("short_factor", longrope(5, 64)),
        ("long_factor", longrope(6, 64, long_factor=[1.0, 1.0, 0.0, 1.0, 1.0, 1.0])),
        ("short_factor", longrope(6, 64, short_factor=[math.nan] * 6)),
        ("original_max_position_embeddings", {**longrope(6, 64), "original_max_position_embeddings": 0}),
        ("factor", longrope(6, 64, factor=-1.0)),
        ("type", {"rope_scaling": {"type": "proportional", "factor": 2.0}}),
        ("partial_rotary_factor", {"partial_rotary_factor": 0.25}),
        ("sliding_window", {"sliding_window": -1}),
        ("hidden_act", {"hidden_act": "gelu"}),
    ],
    ids=str,
)
def test_an_absurd_setting_is_refused_by_name(key: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=key):
        config_of(**settings)


def written(config: LlamaConfig, **keys: Any) -> InMemory:
    metadata, tensors = PHI3.config.to_gguf(config, "phi3")
    stored = InMemory(tensors)
    stored.config = {**metadata, **{f"phi3.{key}": value for key, value in keys.items()}}
    return stored


@pytest.mark.parametrize("settings", [longrope(3, 64, attention_factor=1.5), {"sliding_window": 9}], ids=str)
def test_a_gguf_file_has_both_sets_as_tensors(settings: dict[str, Any]) -> None:
    config = config_of(**{**settings, "partial_rotary_factor": 0.5, "tie_word_embeddings": True})
    stored = written(config)
    found = PHI3.config.from_gguf(Metadata(stored.config, stored.held))
    assert found.rotated_size == 6
    if isinstance(config.rope, LongRope):
        assert isinstance(found.rope, LongRope)
        assert found.rope.short == pytest.approx(config.rope.short)
        assert found.rope.long == pytest.approx(config.rope.long)
        assert (found.rope.original_length, found.rope.magnitudes) == (64, (1.5, 1.5))
    else:
        assert found == config
    assert (
        PHI3.config.from_gguf(
            Metadata(written(config, **{"attention.sliding_window": 0}).config, stored.held)
        ).windows
        == ()
    )


def test_one_set_without_the_other_is_refused() -> None:
    stored = written(config_of(**longrope(6, 64)))
    del stored.held["rope_factors_long.weight"]
    with pytest.raises(ModelError, match=r"rope_factors_long\.weight belong together"):
        PHI3.config.from_gguf(Metadata(stored.config, stored.held))


def test_a_gguf_file_may_have_queries_keys_and_values_apart(on_torch: Llama) -> None:
    metadata, tensors = PHI3.config.to_gguf(on_torch.config, "phi3")
    tensors |= dict(export_parameters(on_torch, PHI3.gguf_names(on_torch.config).rules, 3))
    for layer in range(3):
        parts = tensors.pop(f"blk.{layer}.attn_qkv.weight").split((48, 24, 24))
        tensors |= {f"blk.{layer}.attn_{name}.weight": part for name, part in zip("qkv", parts, strict=True)}
    stored = InMemory(tensors)
    stored.format, stored.config = "gguf", metadata
    again = load_model(stored, dtype=torch.float32, kernels=torch_kernels)
    tokens = torch.arange(40)[None]
    torch.testing.assert_close(again(tokens), on_torch(tokens), atol=1e-5, rtol=1e-5)


def test_the_length_of_a_whole_sequence_decides_which_set_it_has(on_torch: Llama) -> None:
    tokens = torch.arange(ORIGINAL + 1)[None]
    long, short = on_torch(tokens), on_torch(tokens[:, :-1])
    assert (long[:, :-1] - short).abs().max() > 0.1
    assert (on_torch.rope_set(ORIGINAL), on_torch.rope_set(ORIGINAL + 1)) == (0, 1)


def greedy_text(model: Llama, prompt: list[int], count: int, rope_set: int) -> list[int]:
    """Returns the text by whole passes, all with the frequencies of one set."""
    tokens = list(prompt)
    length = ORIGINAL + rope_set
    for _ in range(count):
        positions = torch.arange(len(tokens))
        hidden = model.hidden(torch.tensor([tokens]), positions, DenseAttend(model.kernels), length)
        tokens.append(int(model.logits(hidden[:, -1:]).argmax()))
    return tokens[len(prompt) :]


def prompt_of(length: int, seed: int = 0) -> list[int]:
    found: Tensor = torch.randint(0, 97, (length,), generator=torch.Generator().manual_seed(seed))
    return found.tolist()


@pytest.mark.parametrize(("length", "rope_set"), [(10, 0), (17, 0), (18, 1), (30, 1)])
def test_prompt_and_most_tokens_decide_before_the_first_token(
    on_torch: Llama, length: int, rope_set: int
) -> None:
    prompt = prompt_of(length)
    expected = greedy_text(on_torch, prompt, 8, rope_set)
    assert greedy_text(on_torch, prompt, 8, 1 - rope_set) != expected
    assert run(make_engine(on_torch), [(prompt, GREEDY)]) == [[expected]]
    forked = GREEDY.replace(n=2, temperature=1.0, top_k=1)
    assert run(make_engine(on_torch), [(prompt, forked)]) == [[expected, expected]]
    to_the_end = GREEDY.replace(max_length=length + 8)
    assert run(make_engine(on_torch), [(prompt, to_the_end.replace(max_tokens=100))]) == [[expected]]


SHORT_AND_LONG = [
    (prompt_of(6), GREEDY),
    (prompt_of(20), GREEDY.replace(temperature=0.9, seed=1)),
    (prompt_of(17), GREEDY.replace(seed=5, temperature=0.7)),
    (prompt_of(40), GREEDY.replace(n=2, temperature=1.0, seed=3)),
    ([*prompt_of(5), *prompt_of(5)], GREEDY),
    (prompt_of(20), GREEDY.replace(max_tokens=2)),
    (prompt_of(20), GREEDY.replace(guidance_scale=1.5, negative_prompt=(1, 2, 3))),
]


@built
def test_with_both_sets_in_one_batch_a_text_is_what_it_is_alone(native: Any) -> None:
    alone = [run(make_engine(native), [job])[0] for job in SHORT_AND_LONG]
    assert run(make_engine(native), SHORT_AND_LONG) == alone
    assert run(make_engine(native), SHORT_AND_LONG[::-1]) == alone[::-1]
    assert run(make_engine(native, token_budget=5), SHORT_AND_LONG) == alone
    drafted = [(prompt, params.replace(speculate=PromptLookup())) for prompt, params in SHORT_AND_LONG]
    assert run(make_engine(native), drafted) == alone


@built
def test_a_captured_step_reads_the_sets_of_its_tokens_anew(native: Any) -> None:
    engine = make_engine(native, prefix_cache=False)
    jobs = [(prompt_of(10), GREEDY), (prompt_of(30), GREEDY)]
    alone = [run(make_engine(native), [job])[0] for job in jobs]
    for index in (0, 1, 0, 1, 1, 0):
        assert run(engine, [jobs[index]]) == [alone[index]]


def test_texts_of_different_sets_share_no_pages(on_torch: Llama) -> None:
    prompt = prompt_of(18)
    short, long = GREEDY.replace(max_tokens=4), GREEDY.replace(max_tokens=9)
    engine = make_engine(on_torch)
    for params, rope_set in ((short, 0), (long, 1), (short, 0)):
        expected = greedy_text(on_torch, prompt, params.max_tokens or 0, rope_set)
        assert run(engine, [(prompt, params)]) == [[expected]]


def test_a_draft_model_with_two_sets_drafts_what_it_would_generate(on_torch: Llama) -> None:
    for length in (10, 30):
        prompt = prompt_of(length)
        plain = run(make_engine(on_torch), [(prompt, GREEDY)])
        engine = make_engine(on_torch)
        engine.add(prompt, GREEDY.replace(speculate=DraftModel("itself")), draft_model=on_torch)
        events = []
        while engine.has_work():
            events += engine.step()
        assert [token for event in events for token in event.tokens] == plain[0][0]
        assert sum(event.accepted for event in events) == sum(len(event.drafts) for event in events) > 0


def test_scores_of_a_prompt_are_those_of_the_whole_sequence(on_torch: Llama) -> None:
    for length in (ORIGINAL, ORIGINAL + 1):
        prompt = prompt_of(length)
        engine = make_engine(on_torch)
        engine.add(prompt, GenerationParams(max_tokens=1, temperature=0, prompt_logprobs=0))
        (event,) = engine.step()
        assert event.prompt_logprobs is not None
        found = [each.logprob for each in event.prompt_logprobs[1:] if each is not None]
        exact = on_torch(torch.tensor([prompt]))[0].log_softmax(-1)
        expected = [exact[i, token].item() for i, token in enumerate(prompt[1:])]
        assert found == pytest.approx(expected, abs=1e-4)


def test_a_context_that_no_long_text_fits_has_one_set(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        model = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels, context_length=ORIGINAL)
    assert isinstance(model, Llama)
    assert model.rotary.both is None
    prompt = prompt_of(10)
    assert run(make_engine(model), [(prompt, GREEDY)]) == [[greedy_text(model, prompt, 8, 0)]]
