"""Checks the tables of configs: what is read, what is missing, and that what is written is what was read."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from decodery.errors import ModelError
from decodery.models.config_reader import (
    COUNT,
    FLAG,
    POSITIVE,
    REQUIRED,
    TEXT,
    ConfigTable,
    Field,
    Fixed,
    Kind,
    Setting,
    choice,
    value_of,
)
from decodery.models.decoders.llama import CONFIG, LlamaConfig
from decodery.models.layers.rope import DividedRope, DynamicRope, LinearRope, Llama3Rope, Rope, YarnRope
from decodery.models.rope_config import KindOfLayer, RopeByKind, RopeField
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from tests.models.test_config import GGUF, llama3, yarn
from tests.models.tiny import HUB, tiny_llama_folder


class Metadata(Checkpoint):
    """Offers the metadata and small tensors of a GGUF file."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, torch.Tensor] | None = None) -> None:
        self.path, self.format, self.config = Path("somewhere"), "gguf", config
        self.held = tensors or {}
        self.tensors = {
            name: TensorInfo(name, tuple(tensor.shape), "float32", tensor.nbytes)
            for name, tensor in self.held.items()
        }

    def _read(self, info: TensorInfo, dtype: torch.dtype) -> torch.Tensor:
        return self.held[info.name].to(dtype)

    def close(self) -> None:
        pass


def hub(field: Field, **settings: Any) -> Any:
    """Returns the value of one field in a config.json."""
    return ConfigTable(dict, {"field": field}).from_hub(settings)["field"]  # type: ignore[index]


def gguf(field: Field, **metadata: Any) -> Any:
    """Returns the value of one field in a GGUF file of the architecture "some"."""
    keys = {f"some.{key}": value for key, value in metadata.items()}
    table = ConfigTable(dict, {"field": field})
    return table.from_gguf(Metadata({"general.architecture": "some", **keys}))["field"]  # type: ignore[index]


@dataclass(frozen=True)
class Windowed:
    window: int | None


WINDOW = Setting(COUNT, "sliding_window", "sliding_window", default=4096, gguf_default=None, none=(None, 0))


@pytest.mark.parametrize(
    ("settings", "window"),
    [({}, 4096), ({"sliding_window": None}, None), ({"sliding_window": 0}, None), ({"sliding_window": 7}, 7)],
    ids=str,
)
def test_null_is_none_only_where_a_table_says_so(settings: dict[str, Any], window: int | None) -> None:
    assert hub(WINDOW, **settings) == window
    if settings.get("sliding_window") is None:
        assert hub(replace(WINDOW, none=()), **settings) == 4096
    if settings.get("sliding_window") == 0:
        with pytest.raises(ModelError, match="sliding_window is 0"):
            hub(replace(WINDOW, none=(None,)), **settings)
    assert hub(WINDOW, sliding_window=1) == 1


def test_false_is_not_the_zero_that_means_none() -> None:
    with pytest.raises(ModelError, match="sliding_window is False"):
        hub(WINDOW, sliding_window=False)


@pytest.mark.parametrize("window", [None, 5])
def test_none_is_written_as_the_format_has_it(window: int | None) -> None:
    table = ConfigTable(Windowed, {"window": WINDOW})
    assert table.to_hub(Windowed(window)) == {"sliding_window": window}
    metadata, _ = table.to_gguf(Windowed(window), "some")
    assert metadata["some.sliding_window"] == (0 if window is None else window)
    assert table.from_hub(table.to_hub(Windowed(window))) == Windowed(window)
    assert table.from_gguf(Metadata(metadata)) == Windowed(window)
    plain = ConfigTable(Windowed, {"window": replace(WINDOW, none=(None,))})
    assert ("some.sliding_window" in plain.to_gguf(Windowed(window), "some")[0]) == (window is not None)


def test_of_several_spellings_the_first_there_is_read_and_the_first_is_written() -> None:
    field = Setting(COUNT, ("num_heads", "n_head"), ("heads", "head_count"))
    assert hub(field, n_head=3) == 3
    assert hub(field, num_heads=4, n_head=3) == 4
    assert hub(field, num_heads=None, n_head=3) == 3
    assert gguf(field, head_count=3) == 3
    assert field.write(5, None, gguf=False) == {"num_heads": 5}
    assert field.write(5, None, gguf=True) == {"heads": 5}
    with pytest.raises(ModelError, match="num_heads is missing"):
        hub(field)
    with pytest.raises(ModelError, match="n_head is 0"):
        hub(field, n_head=0)
    with pytest.raises(ModelError, match=r"some\.heads is missing"):
        gguf(field)


def test_a_hub_key_may_lie_in_nested_objects() -> None:
    table = ConfigTable(
        dict,
        {
            "alibi": Setting(FLAG, "attn_config.alibi", default=False),
            "name": Setting(TEXT, "attn_config.impl"),
        },
    )
    settings = {"attn_config": {"alibi": True, "impl": "torch"}}
    assert table.from_hub(settings) == {"alibi": True, "name": "torch"}
    assert table.from_hub({"attn_config": {"impl": "torch"}}) == {"alibi": False, "name": "torch"}
    with pytest.raises(ModelError, match="attn_config: alibi is 1"):
        table.from_hub({"attn_config": {"alibi": 1, "impl": "torch"}})
    with pytest.raises(ModelError, match="attn_config"):
        table.from_hub({"attn_config": 3})

    @dataclass(frozen=True)
    class Pair:
        alibi: bool
        name: str

    assert ConfigTable(Pair, table.fields).to_hub(Pair(True, "torch")) == settings


def test_a_default_is_a_value_or_a_function_of_the_fields_before() -> None:
    fields = {"heads": Setting(COUNT, "heads"), "kv": Setting(COUNT, "kv", default=value_of("heads"))}
    assert ConfigTable(dict, fields).from_hub({"heads": 3}) == {"heads": 3, "kv": 3}
    assert ConfigTable(dict, fields).from_hub({"heads": 3, "kv": 1}) == {"heads": 3, "kv": 1}
    eps = Setting(POSITIVE, "eps", "eps", default=1e-6, gguf_default=REQUIRED)
    assert hub(eps) == 1e-6
    with pytest.raises(ModelError, match=r"some\.eps is missing"):
        gguf(eps)
    assert gguf(replace(eps, gguf=(), gguf_default=2.0), eps=1.0) == 2.0


def test_a_choice_has_several_spellings_and_its_error_names_all() -> None:
    field = Setting(choice({"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "exact"}), "act")
    assert hub(field, act="gelu_pytorch_tanh") == "tanh"
    assert hub(field, act="gelu") == "exact"
    assert field.write("tanh", None, gguf=False) == {"act": "gelu_new"}
    with pytest.raises(
        ModelError, match="act is 'relu'; it must be 'gelu_new' or 'gelu_pytorch_tanh' or 'gelu'"
    ):
        hub(field, act="relu")


def test_a_family_can_have_a_kind_of_its_own() -> None:
    each = Kind(lambda keys, key: tuple(keys.values[key]), list)
    field = Setting(each, "layer_types", default=())
    assert hub(field, layer_types=["full", "sliding"]) == ("full", "sliding")
    assert field.write(("full",), None, gguf=False) == {"layer_types": ["full"]}


def test_a_fixed_setting_may_be_missing_or_equal_and_nothing_else() -> None:
    table = ConfigTable(
        dict, {}, fixed=(Fixed(hub="clip", value=1, accepted=(2,), wanted="1, not {value} less"),)
    )
    for settings in ({}, {"clip": None}, {"clip": 1}, {"clip": 2}):
        assert table.from_hub(settings) == {}
    with pytest.raises(ModelError, match="clip is 3; it must be 1, not 1 less"):
        table.from_hub({"clip": 3})


WRITTEN_HUB: dict[str, dict[str, Any]] = {
    "default": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}},
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 5e5, "factor": 2.0}},
    "yarn": {"rope_parameters": yarn(rope_theta=5e5)},
    "yarn with all": {
        "rope_parameters": yarn(
            rope_theta=5e5, beta_fast=16.0, beta_slow=2.0, attention_factor=1.5, truncate=False
        )
    },
    "llama3": {"rope_parameters": llama3(rope_theta=5e5, original_max_position_embeddings=64)},
    "biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
}


@pytest.mark.parametrize("name", WRITTEN_HUB)
def test_a_config_json_is_written_as_it_was_read(name: str) -> None:
    settings = {
        **HUB,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        **WRITTEN_HUB["default"],
        **WRITTEN_HUB[name],
    }
    for key in ("architectures", "model_type", "rope_theta"):
        del settings[key]
    assert CONFIG.to_hub(CONFIG.from_hub(settings)) == settings


@pytest.mark.parametrize("name", WRITTEN_HUB)
def test_what_is_written_is_what_transformers_writes(name: str, tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path, **WRITTEN_HUB[name])
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    written = CONFIG.to_hub(CONFIG.from_hub(saved))
    assert written.keys() <= saved.keys()
    assert written == {key: saved[key] for key in written}


@pytest.mark.parametrize(
    "settings",
    [
        {"head_dim": None},
        {"num_key_value_heads": None},
        {"hidden_act": "swish", "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": None},
        {"rope_parameters": yarn(mscale=0.7, mscale_all_dim=0.4)},
    ],
    ids=str,
)
def test_a_config_in_older_or_shorter_words_is_written_as_the_same_config(settings: dict[str, Any]) -> None:
    config = CONFIG.from_hub({**HUB, **settings})
    assert CONFIG.from_hub(CONFIG.to_hub(config)) == config


SCALING = "llama.rope.scaling"
WRITTEN_GGUF: dict[str, dict[str, Any]] = {
    "plain": {},
    "linear": {f"{SCALING}.type": "linear", f"{SCALING}.factor": 2.0},
    "yarn": {
        f"{SCALING}.type": "yarn",
        f"{SCALING}.factor": 2.0,
        f"{SCALING}.original_context_length": 64,
        f"{SCALING}.yarn_beta_fast": 16.0,
        f"{SCALING}.yarn_beta_slow": 2.0,
    },
}
STORED = {"token_embd.weight": torch.ones(97, 48), "output.weight": torch.ones(97, 48)}


@pytest.mark.parametrize("name", WRITTEN_GGUF)
def test_metadata_is_written_as_it_was_read(name: str) -> None:
    metadata = {
        **GGUF,
        "llama.attention.key_length": 12,
        "llama.attention.value_length": 12,
        **WRITTEN_GGUF[name],
    }
    config = CONFIG.from_gguf(Metadata(metadata, STORED))
    assert CONFIG.to_gguf(config, "llama") == (metadata, {})


@pytest.mark.parametrize("attn_factor", [0.75, 1.0, 1.1])
def test_a_yarn_magnitude_is_the_same_after_a_round_trip(attn_factor: float) -> None:
    metadata = {**GGUF, **WRITTEN_GGUF["yarn"], f"{SCALING}.attn_factor": attn_factor}
    config = CONFIG.from_gguf(Metadata(metadata, STORED))
    written, _ = CONFIG.to_gguf(config, "llama")
    assert written[f"{SCALING}.attn_factor"] == pytest.approx(attn_factor, rel=1e-15)
    assert CONFIG.from_gguf(Metadata(written, STORED)).rope.magnitude() == pytest.approx(
        config.rope.magnitude()
    )


@pytest.mark.parametrize("name", sorted(set(WRITTEN_HUB) - {"dynamic", "yarn with all", "biases"}))
def test_a_hub_config_is_the_same_config_in_a_gguf_file(name: str) -> None:
    config = CONFIG.from_hub({**HUB, **WRITTEN_HUB[name], "tie_word_embeddings": False})
    metadata, tensors = CONFIG.to_gguf(config, "llama")
    found = CONFIG.from_gguf(Metadata(metadata, {**STORED, **tensors}))
    if isinstance(config.rope, Llama3Rope):
        assert isinstance(found.rope, DividedRope)
        torch.testing.assert_close(found.rope.frequencies(12, 512), config.rope.frequencies(12, 512))
        assert CONFIG.to_gguf(found, "llama")[1].keys() == tensors.keys()
        assert torch.equal(
            CONFIG.to_gguf(found, "llama")[1]["rope_freqs.weight"], tensors["rope_freqs.weight"]
        )
        config = replace(config, rope=found.rope)
    assert found == config


def test_what_a_format_cannot_express_is_an_error() -> None:
    config = CONFIG.from_hub(HUB)
    for rope in (DynamicRope(factor=2.0), YarnRope(truncate=False)):
        with pytest.raises(ModelError, match="GGUF file cannot express"):
            CONFIG.to_gguf(replace(config, rope=rope), "llama")
    with pytest.raises(ModelError, match="cannot express the rotary positions DividedRope"):
        CONFIG.to_hub(replace(config, rope=DividedRope(divisors=(1.0,) * 6)))


SIZES: dict[str, Field] = {
    "head_dim": Setting(COUNT, "head_dim", "attention.key_length"),
    "context_length": Setting(COUNT, "max_position_embeddings", "context_length"),
}
BY_KIND = RopeByKind(
    {
        "full_attention": KindOfLayer(1e6, "rope_theta", "rope.freq_base"),
        "sliding_attention": KindOfLayer(1e4, "rope_local_base_freq", "rope.freq_base_swa"),
    }
)


@dataclass(frozen=True)
class Rotated:
    head_dim: int
    context_length: int
    rope: Any


ROTATED = ConfigTable(Rotated, {**SIZES, "rope": BY_KIND})
HEAD = {"head_dim": 12, "max_position_embeddings": 512}


@pytest.mark.parametrize(
    ("settings", "full", "sliding"),
    [
        ({}, Rope(1e6), Rope(1e4)),
        ({"rope_theta": 5e5, "rope_local_base_freq": 2e4}, Rope(5e5), Rope(2e4)),
        ({"rope_scaling": {"type": "linear", "factor": 8.0}}, LinearRope(1e6, 8.0), Rope(1e4)),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 3e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 3e4},
                }
            },
            LinearRope(3e6, 8.0),
            Rope(3e4),
        ),
        ({"rope_parameters": {"full_attention": {"rope_theta": 3e6}}}, Rope(3e6), Rope(1e4)),
    ],
    ids=str,
)
def test_rotary_positions_may_differ_by_the_kind_of_layer(
    settings: dict[str, Any], full: Rope, sliding: Rope
) -> None:
    config = ROTATED.from_hub({**HEAD, **settings})
    assert config.rope == {"full_attention": full, "sliding_attention": sliding}
    assert ROTATED.from_hub(ROTATED.to_hub(config)) == config
    metadata, _ = ROTATED.to_gguf(config, "some")
    assert ROTATED.from_gguf(Metadata(metadata)) == config


def test_of_a_gguf_file_only_the_first_kind_is_scaled_and_others_have_its_theta() -> None:
    metadata = {
        "general.architecture": "some",
        "some.attention.key_length": 12,
        "some.context_length": 512,
        "some.rope.freq_base": 7e5,
        "some.rope.scaling.type": "linear",
        "some.rope.scaling.factor": 4.0,
    }
    rope = ROTATED.from_gguf(Metadata(metadata)).rope
    assert rope == {"full_attention": LinearRope(7e5, 4.0), "sliding_attention": Rope(7e5)}
    with pytest.raises(ModelError, match="scales the rotary positions of full_attention layers only"):
        ROTATED.to_gguf(
            Rotated(12, 512, {"full_attention": Rope(), "sliding_attention": LinearRope()}), "some"
        )


def test_a_family_with_one_rope_refuses_one_by_kind_of_layer() -> None:
    settings = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    with pytest.raises(ModelError, match="full_attention"):
        CONFIG.from_hub({**HUB, "rope_parameters": settings})


def test_a_family_may_have_its_own_default_and_rotate_a_part_of_a_head() -> None:
    part = Setting(
        POSITIVE, ("rope_parameters.partial_rotary_factor", "partial_rotary_factor"), "factor", default=0.5
    )
    size = Setting(COUNT, gguf="rope.dimension_count", default=lambda source: int(12 * source["factor"]))
    default = YarnRope(150000.0, 32.0, 4096, truncate=False)
    table = ConfigTable(
        dict,
        {**SIZES, "factor": part, "rotated": size, "rope": RopeField(default=default, rotated="rotated")},
    )
    assert table.from_hub(HEAD)["rope"] == default  # type: ignore[index]
    quarter: dict[str, Any] = {"partial_rotary_factor": 0.25}
    for settings, rope in ((quarter, replace(default, theta=7.0)), ({"rope_parameters": quarter}, Rope(7.0))):
        found: Any = table.from_hub({**HEAD, **settings, "rope_theta": 7.0})
        assert (found["rotated"], found["rope"]) == (3, rope)
    for settings in (quarter, {"rope_parameters": quarter}):
        with pytest.raises(ModelError, match="partial_rotary_factor"):
            CONFIG.from_hub({**HUB, **settings})


def test_a_config_is_a_value() -> None:
    assert isinstance(CONFIG.from_hub(HUB), LlamaConfig)
    assert CONFIG.from_hub(HUB) == CONFIG.from_hub(dict(HUB))


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads", "head_dim"])
def test_a_number_of_which_each_costs_memory_is_bounded_by_name(key: str) -> None:
    for value in (10**6, 2**30, 2**31 - 2):
        with pytest.raises(ModelError, match=f"{key} is {value}; it must be at most"):
            CONFIG.from_hub({**HUB, key: value})


@pytest.mark.parametrize("key", ["vocab_size", "intermediate_size"])
def test_a_matrix_that_no_machine_holds_is_refused_by_name(key: str) -> None:
    size = {"hidden_size": 2**16, "num_attention_heads": 2**10, "num_key_value_heads": 2}
    with pytest.raises(ModelError, match=f"{key} by hidden_size is a matrix of {2**46} numbers"):
        CONFIG.from_hub({**HUB, **size, key: 2**30})


def test_sizes_that_are_checked_alone_are_checked_together() -> None:
    heads = {"num_attention_heads": 2**16, "num_key_value_heads": 1, "head_dim": 2**16}
    sizes = {**heads, "hidden_size": 2**10}
    with pytest.raises(ModelError, match="num_attention_heads times head_dim by hidden_size is a matrix of"):
        CONFIG.from_hub({**HUB, **sizes})
