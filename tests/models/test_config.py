"""Checks that an absurd setting is one error that names it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from decodery.errors import ModelError
from decodery.kernels.reference import torch_kernels
from decodery.models.checkpoint_keys import LARGEST
from decodery.models.decoders.llama import CONFIG
from decodery.models.describe import describe
from decodery.models.families import find_family
from decodery.models.layers.rope import LinearRope, Llama3Rope, Rope, Rotary, YarnRope
from decodery.models.load import load_model
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.opening import open_checkpoint
from tests.models.tiny import HUB, tiny_llama_folder, tiny_llama_gguf, tiny_model


class Declared(Checkpoint):
    """Offers only the settings of a checkpoint."""

    def __init__(
        self, kind: Literal["safetensors", "gguf"], config: Mapping[str, Any], tensors: tuple[str, ...] = ()
    ) -> None:
        self.path, self.format, self.config = Path("somewhere"), kind, config
        shapes = {"rope_freqs.weight": (6,)}
        self.tensors = {
            name: TensorInfo(name, shape, "float32", math.prod(shape) * 4)
            for name in tensors
            for shape in [shapes.get(name, (97, 48))]
        }

    def _read(self, info: TensorInfo, dtype: torch.dtype) -> torch.Tensor:
        return torch.ones(6)

    def close(self) -> None:
        pass


def yarn(**changes: Any) -> dict[str, Any]:
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, **changes}


def llama3(**changes: Any) -> dict[str, Any]:
    return {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **changes}


WRONG_HUB: list[tuple[str, dict[str, Any]]] = [
    ("hidden_size", {"hidden_size": None}),
    ("hidden_size", {"hidden_size": 0}),
    ("hidden_size", {"hidden_size": -48}),
    ("hidden_size", {"hidden_size": "48"}),
    ("hidden_size", {"hidden_size": True}),
    ("hidden_size", {"hidden_size": 48.0}),
    ("vocab_size", {"vocab_size": 0}),
    ("vocab_size", {"vocab_size": 10**19}),
    ("head_dim", {"head_dim": 2 * 10**11}),
    ("max_position_embeddings", {"max_position_embeddings": 2**31}),
    ("num_hidden_layers", {"num_hidden_layers": 0}),
    ("num_attention_heads", {"num_attention_heads": 5, "head_dim": None}),
    ("num_attention_heads", {"num_attention_heads": 16, "head_dim": None}),
    ("num_key_value_heads", {"num_key_value_heads": 3}),
    ("num_key_value_heads", {"num_key_value_heads": 8}),
    ("num_key_value_heads", {"num_key_value_heads": -1}),
    ("head_dim", {"head_dim": 7}),
    ("intermediate_size", {"intermediate_size": None}),
    ("max_position_embeddings", {"max_position_embeddings": 0}),
    ("rms_norm_eps", {"rms_norm_eps": -1e-5}),
    ("rms_norm_eps", {"rms_norm_eps": math.nan}),
    ("rope_theta", {"rope_theta": math.nan}),
    ("rope_theta", {"rope_theta": math.inf}),
    ("rope_theta", {"rope_theta": 0}),
    ("rope_theta", {"rope_theta": 10**400}),
    ("rope_theta", {"rope_scaling": {"type": "yarn", "factor": 2.0}, "rope_theta": 1.0}),
    ("rope_theta", {"rope_parameters": yarn(rope_theta=0.5)}),
    ("heads of at least 4", {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "head_dim": 2}),
    ("rope_theta", {"rope_parameters": {"rope_theta": -1.0}}),
    ("rope_parameters", {"rope_parameters": "yarn"}),
    ("rope_scaling", {"rope_scaling": [1]}),
    ("factor", {"rope_scaling": {"type": "linear"}}),
    ("factor", {"rope_scaling": {"type": "linear", "factor": 0}}),
    ("factor", {"rope_scaling": {"type": "dynamic", "factor": 0.5}}),
    ("beta_fast", {"rope_parameters": yarn(beta_fast=-1)}),
    ("attention_factor", {"rope_parameters": yarn(attention_factor=math.nan)}),
    ("original_max_position_embeddings", {"rope_parameters": yarn(original_max_position_embeddings=0)}),
    ("low_freq_factor", {"rope_parameters": llama3(low_freq_factor=None)}),
    ("high_freq_factor", {"rope_parameters": llama3(high_freq_factor=0.9)}),
    ("short_factor", {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}),
    ("rope_type", {"rope_parameters": {"rope_type": "proportional"}}),
    ("partial_rotary_factor", {"partial_rotary_factor": 0.5}),
    ("hidden_act", {"hidden_act": "gelu"}),
    ("attention_bias", {"attention_bias": "yes"}),
    ("tie_word_embeddings", {"tie_word_embeddings": 1}),
]


@pytest.mark.parametrize(("named", "changes"), WRONG_HUB, ids=str)
def test_an_absurd_setting_of_a_config_json_is_named(named: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=named) as raised:
        CONFIG.from_hub({**HUB, **changes})
    assert "config.json" in str(raised.value)
    assert "\n" not in str(raised.value)


GGUF: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 3,
    "llama.context_length": 512,
    "llama.embedding_length": 48,
    "llama.feed_forward_length": 80,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.dimension_count": 12,
    "llama.vocab_size": 97,
}

WRONG_GGUF: list[tuple[str, dict[str, Any]]] = [
    ("llama.block_count", {"llama.block_count": 0}),
    ("llama.block_count", {"llama.block_count": 4 * 10**9}),
    ("llama.attention.key_length", {"llama.attention.key_length": 2 * 10**11}),
    ("llama.context_length", {"llama.context_length": None}),
    ("llama.embedding_length", {"llama.embedding_length": -1}),
    ("llama.attention.head_count", {"llama.attention.head_count": 5}),
    ("llama.attention.head_count", {"llama.attention.head_count": [4, 4, 4]}),
    ("llama.attention.head_count", {"llama.attention.head_count": 16}),
    ("llama.attention.head_count_kv", {"llama.attention.head_count_kv": 3}),
    ("llama.attention.value_length", {"llama.attention.value_length": 16}),
    ("llama.attention.layer_norm_rms_epsilon", {"llama.attention.layer_norm_rms_epsilon": None}),
    ("llama.rope.freq_base", {"llama.rope.freq_base": math.nan}),
    ("llama.rope.dimension_count", {"llama.rope.dimension_count": 6}),
    ("llama.rope.scaling.type", {"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}),
    ("llama.rope.scaling.factor", {"llama.rope.scaling.type": "yarn"}),
    (
        "llama.rope.freq_base",
        {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0, "llama.rope.freq_base": 1.0},
    ),
    ("llama.vocab_size", {"llama.vocab_size": None}),
    ("llama.expert_count", {"llama.expert_count": 8}),
]


@pytest.mark.parametrize(("named", "changes"), WRONG_GGUF, ids=str)
def test_an_absurd_setting_of_a_gguf_file_is_named(named: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=named):
        CONFIG.from_gguf(Declared("gguf", {**GGUF, **changes}))


@pytest.mark.parametrize("divisors", [math.nan, 0.0, -1.0])
def test_absurd_divisors_are_refused(divisors: float, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Declared("gguf", GGUF, ("rope_freqs.weight",))
    monkeypatch.setattr(checkpoint, "_read", lambda info, dtype: torch.full((6,), divisors))
    with pytest.raises(ModelError, match="rope_freqs"):
        CONFIG.from_gguf(checkpoint)


def test_divisors_are_one_for_each_pair_and_else_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Declared("gguf", {**GGUF, "llama.rope.dimension_count": 10}, ("rope_freqs.weight",))
    checkpoint.config = {**checkpoint.config, "llama.attention.key_length": 10}
    monkeypatch.setattr(checkpoint, "_read", lambda info, dtype: pytest.fail("it was read"))
    with pytest.raises(ModelError, match="rope_freqs must hold 5 numbers"):
        CONFIG.from_gguf(checkpoint)


# Far more than the tensors hold, but few enough to be built if nothing raised an error.
TOO_LARGE = [
    ("num_hidden_layers", "llama.block_count", 1000),
    ("vocab_size", "llama.vocab_size", 10**6),
    ("head_dim", "llama.attention.key_length", 2 * 10**6),
    ("hidden_size", "llama.embedding_length", 4 * 10**6),
    ("intermediate_size", "llama.feed_forward_length", 10**6),
]


@pytest.mark.parametrize(("hub_key", "gguf_key", "value"), TOO_LARGE, ids=lambda value: str(value))
def test_a_size_beyond_what_the_tensors_hold_is_refused_before_a_model_is_made(
    hub_key: str, gguf_key: str, value: int
) -> None:
    names = tuple(f"tensor {k}" for k in range(20))
    head = {"llama.attention.value_length": value, "llama.rope.dimension_count": value}
    checkpoints = [
        Declared("safetensors", {**HUB, hub_key: value}, names),
        Declared(
            "gguf",
            {**GGUF, "llama.attention.key_length": 12}
            | {gguf_key: value}
            | (head if hub_key == "head_dim" else {}),
            names,
        ),
    ]
    for checkpoint, key in zip(checkpoints, (hub_key, gguf_key.rpartition(".")[2]), strict=True):
        with pytest.raises(ModelError, match=key):
            describe(checkpoint)
        with pytest.raises(ModelError, match=key):
            load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 1e300},
        yarn(beta_fast=1e308),
        yarn(beta_slow=5e-324),
        yarn(mscale=1e308, mscale_all_dim=1e-308),
        {"rope_type": "linear", "factor": 5e-324},
    ],
    ids=str,
)
def test_positions_that_cannot_be_computed_are_one_error(rope: dict[str, Any]) -> None:
    config = CONFIG.from_hub({**HUB, "rope_parameters": {"rope_theta": 1e300, **rope}})
    with pytest.raises(ModelError, match="rotary positions"):
        Rotary(config.rope, config.head_dim, LARGEST)


def test_what_a_gguf_file_does_not_say_is_seen_from_its_tensors() -> None:
    config = CONFIG.from_gguf(
        Declared("gguf", {**GGUF, "llama.vocab_size": None}, ("token_embd.weight", "blk.0.attn_q.bias"))
    )
    assert (config.vocab_size, config.tied_head, config.attention_bias) == (97, True, True)
    assert not CONFIG.from_gguf(Declared("gguf", GGUF, ("output.weight",))).tied_head


def test_older_and_newer_configs_declare_the_same_positions() -> None:
    def rope(**changes: Any) -> Rope:
        return CONFIG.from_hub({**HUB, "rope_theta": 500.0, **changes}).rope

    linear = {"factor": 4.0}
    assert rope() == Rope(500.0)
    assert rope(rope_scaling=None) == Rope(500.0)
    assert rope(rope_parameters={"rope_type": "default", "rope_theta": 700.0}) == Rope(700.0)
    assert rope(rope_scaling={"type": "linear", **linear}) == LinearRope(500.0, 4.0)
    assert rope(rope_parameters={"rope_type": "linear", "rope_theta": 500.0, **linear}) == LinearRope(
        500.0, 4.0
    )
    # Without an original context of their own, both use the model's.
    assert rope(rope_scaling=llama3()) == Llama3Rope(500.0, 8.0, 1.0, 4.0, 512)
    assert rope(rope_scaling={"type": "yarn", "factor": 2.0}) == YarnRope(500.0, 2.0, 512)


@pytest.mark.parametrize(
    ("checkpoint", "named"),
    [
        (Declared("safetensors", {**HUB, "architectures": ["MambaForCausalLM"]}), "MambaForCausalLM"),
        (Declared("safetensors", {**HUB, "architectures": None, "model_type": None}), "architectures"),
        (Declared("safetensors", {**HUB, "architectures": ["A", "B"]}), "architectures"),
        (Declared("safetensors", {**HUB, "quantization_config": {"bits": 4}}), "quantization_config"),
        (Declared("gguf", {**GGUF, "general.architecture": "mamba"}), "mamba"),
        (Declared("gguf", {}), "general.architecture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_supported_is_refused_by_name(checkpoint: Checkpoint, named: str) -> None:
    with pytest.raises(ModelError, match=named):
        find_family(checkpoint)


def test_the_error_for_an_unsupported_architecture_says_where_the_supported_ones_are_listed() -> None:
    with pytest.raises(ModelError, match="decodery models --supported lists all"):
        find_family(Declared("gguf", {"general.architecture": "mamba"}))


def test_a_description_counts_what_is_there(tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path / "hub", tie_word_embeddings=False)
    file = tiny_llama_gguf(tmp_path / "tiny.gguf", folder)
    for path, architecture in ((folder, "LlamaForCausalLM"), (file, "llama")):
        with open_checkpoint(path) as checkpoint:
            found = describe(checkpoint)
        assert found.architecture == architecture
        assert found.parameters == sum(p.numel() for p in tiny_model(tie_word_embeddings=False).parameters())
        assert (found.family, found.layers, found.width, found.vocab_size) == ("llama", 3, 48, 97)
        assert (found.heads, found.kv_heads, found.head_dim, found.context_length) == (4, 2, 12, 512)
        assert found.kv_shape.bytes_per_token(torch.bfloat16) == 2 * 3 * 2 * 12 * 2


def test_a_context_can_be_shortened_but_only_dynamic_scaling_lengthens_it(tmp_path: Path) -> None:
    plain = open_checkpoint(tiny_llama_folder(tmp_path / "plain"))
    scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    dynamic = open_checkpoint(tiny_llama_folder(tmp_path / "dynamic", rope_parameters=scaling))

    def opened(checkpoint: Checkpoint, context_length: int) -> int:
        model = load_model(
            checkpoint, dtype=torch.float32, kernels=torch_kernels, context_length=context_length
        )
        return model.context_length

    assert opened(plain, 100) == 100
    assert opened(dynamic, 2000) == 2000
    for length in (513, 0, -1):
        with pytest.raises(ModelError, match="context_length"):
            opened(plain, length)


def test_weights_are_loaded_in_the_type_asked_for(tmp_path: Path) -> None:
    with open_checkpoint(tiny_llama_folder(tmp_path)) as checkpoint:
        model = load_model(checkpoint, dtype=torch.bfloat16, kernels=torch_kernels)
    assert model.dtype == torch.bfloat16
    assert model.logits(torch.ones(1, 48, dtype=torch.bfloat16)).dtype == torch.float32
