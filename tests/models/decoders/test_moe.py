"""Checks mixtures of experts in files: their names, formats, settings, sizes and errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decodery.errors import CheckpointError, ModelError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import Format, PackedExperts
from decodery.kernels.reference import torch_kernels
from decodery.models.architectures import GGUF, HUB
from decodery.models.decoders import qwen
from decodery.models.decoders.experts import ernie_moe, mixtral, olmo_moe, qwen_moe
from decodery.models.describe import describe, packed_size
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.formats.gguf import GgufCheckpoint
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.layouts.packed_cache import PackedCache, weights_of
from decodery.weights.parameters import export_parameters
from tests.kernels.native.fixtures import built
from tests.models.decoders.families import EXPERTS, FAMILIES, SIZES, Tiny, write_folder
from tests.models.decoders.test_every_family import InPages
from tests.models.test_config import Declared
from tests.models.test_config_reader import Metadata

# Widths of whole blocks of 32.
WIDE = {**SIZES, "hidden_size": 64, "intermediate_size": 96, "num_local_experts": 3, "num_experts_per_tok": 2}
TOKENS = torch.arange(30) * 7 % 97


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(Tiny("MixtralForCausalLM", WIDE), tmp_path_factory.mktemp("mixtral"))


def plain(path: Path) -> Any:
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


def packed(path: Path, quantization: str | None = None, cache: PackedCache | None = None) -> Any:
    with open_checkpoint(path) as checkpoint:
        return load_for_inference(
            checkpoint,
            dtype=torch.float32,
            kernels=NativeKernels(),
            quantization=quantization,
            cache=cache,
        )


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a GGUF file as older files have them: one for each expert."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if "_exps" in name:
            found |= {name.replace("_exps", f".{e}"): matrix for e, matrix in enumerate(tensor)}
        else:
            found[name] = tensor
    return found


def write_gguf(
    path: Path, model: Any, form: Callable[[str], str] = lambda name: "F32", old: bool = False
) -> Path:
    """Writes a Mixtral; `form` gives the type of each tensor of experts."""
    metadata, tensors = mixtral.MIXTRAL.config.to_gguf(model.config, "llama")
    rules = mixtral.MIXTRAL.gguf_names(model.config).rules
    tensors |= dict(export_parameters(model, rules, model.config.layers))
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        if key != "general.architecture":
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    for name, tensor in (apart(tensors) if old else tensors).items():
        kind = form(name) if "ffn_" in name and ("_exps" in name or old) else "F32"
        if kind == "F32" or tensor.dim() < 2 or "inp" in name:
            writer.add_tensor(name, tensor.numpy())
        else:
            number = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quantize(tensor.numpy(), number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_with_a_tensor_for_each_expert_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    model = plain(folder)
    for old in (False, True):
        found = plain(write_gguf(tmp_path / f"{old}.gguf", model, old=old))
        torch.testing.assert_close(found(TOKENS[None]), model(TOKENS[None]), atol=1e-5, rtol=1e-5)


def test_a_folder_with_stacks_of_experts_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    prefix = "model.layers.{}.block_sparse_moe."
    for layer in range(3):
        own = {name: tensors.pop(name) for name in list(tensors) if name.startswith(prefix.format(layer))}
        each = [[own[f"{prefix.format(layer)}experts.{e}.w{i}.weight"] for e in range(3)] for i in (1, 3, 2)]
        stored = f"model.layers.{layer}.mlp."
        tensors[f"{stored}gate.weight"] = own[f"{prefix.format(layer)}gate.weight"]
        tensors[f"{stored}experts.gate_up_proj"] = torch.cat((torch.stack(each[0]), torch.stack(each[1])), 1)
        tensors[f"{stored}experts.down_proj"] = torch.stack(each[2])
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert torch.equal(plain(tmp_path)(TOKENS[None]), plain(folder)(TOKENS[None]))


@built
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_1"])
def test_quantised_experts_are_packed_as_they_are_stored_one_at_a_time(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = plain(folder)
    new = write_gguf(tmp_path / "new.gguf", model, lambda name: kind)
    old = write_gguf(tmp_path / "old.gguf", model, lambda name: kind, old=True)
    asked: list[int | None] = []
    blocks = GgufCheckpoint.blocks

    def noted(self: GgufCheckpoint, name: str, index: int | None = None) -> Tensor:
        asked.append(index)
        return blocks(self, name, index)

    monkeypatch.setattr(GgufCheckpoint, "blocks", noted)
    found = packed(new)
    assert set(asked) == {0, 1, 2}
    form = {"Q8_0": Format.INT8, "Q4_0": Format.INT4, "Q5_1": Format.INT8_MIN}[kind]
    before = weights_of(packed(old))
    for name, weight in weights_of(found).items():
        if "experts" in name:
            assert isinstance(weight, PackedExperts)
            assert weight.format is form
            assert torch.equal(weight.data, before[name].data)
    exact = plain(new)(TOKENS[None])[0]
    logits = InPages(found).logits(TOKENS)
    # Activations are rounded to 8 bits, which changes the experts of few tokens.
    assert (logits - exact).square().mean(1).median().sqrt() < 0.05 * exact.std()


@built
def test_experts_whose_parts_have_several_formats_keep_their_values(folder: Path, tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "mixed.gguf", plain(folder), lambda name: "Q8_0" if "gate" in name else "Q4_0"
    )
    found = packed(path)
    weights = weights_of(found)
    assert weights["layers.0.mlp.experts.gate_up.weight"].format is Format.FLOAT32  # type: ignore[union-attr]
    assert weights["layers.0.mlp.experts.down.weight"].format is Format.INT4  # type: ignore[union-attr]


@built
@pytest.mark.parametrize(("quantization", "form"), [("int4", Format.INT4_MIN), ("int8", Format.INT8)])
def test_experts_are_quantised_and_routers_are_not(quantization: str, form: Format, folder: Path) -> None:
    weights = weights_of(packed(folder, quantization))
    for layer in range(3):
        assert weights[f"layers.{layer}.mlp.router.weight"].format is Format.FLOAT32  # type: ignore[union-attr]
        for part in ("gate_up", "down"):
            stack = weights[f"layers.{layer}.mlp.experts.{part}.weight"]
            assert isinstance(stack, PackedExperts)
            assert stack.format is form


def test_on_torch_routers_stay_in_float32(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        model: Any = load_for_inference(checkpoint, dtype=torch.bfloat16, kernels=torch_kernels)
    assert model.layers[0].mlp.router.weight.dtype == torch.float32
    assert model.layers[0].mlp.experts.down.weight.dtype == torch.bfloat16
    assert model(TOKENS[None]).isfinite().all()


@built
@pytest.mark.parametrize("quantization", [None, "int4"])
def test_kept_weights_are_the_packed_ones(
    quantization: str | None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    cache = PackedCache(folder, quantization or "")
    first = InPages(packed(folder, quantization, cache)).logits(TOKENS)
    kept = cache.read()
    assert kept is not None
    assert any(isinstance(weight, PackedExperts) for weight in kept.values())
    assert torch.equal(InPages(packed(folder, quantization, cache)).logits(TOKENS), first)


@built
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_sizes_are_known_from_the_headers(quantization: str | None, folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        described = describe(checkpoint)
        size = packed_size(checkpoint, described, quantization)
    assert size == sum(weight.nbytes for weight in weights_of(packed(folder, quantization)).values())
    model = plain(folder)
    assert described.parameters == sum(p.numel() for p in model.parameters())
    # One expert of three is idle, in each of three layers.
    assert described.parameters - described.active_parameters == 3 * 3 * 64 * 96


def config_of(family: Any, **settings: Any) -> Any:
    return family.config.from_hub({**SIZES, **EXPERTS, "shared_expert_intermediate_size": 50, **settings})


def test_the_same_keys_give_other_layers_a_window_in_each_family() -> None:
    keys = {"num_hidden_layers": 2, "sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1}
    assert config_of(qwen.QWEN2, **keys).windows == (None, 4)
    assert config_of(qwen_moe.QWEN2_MOE, **keys).windows == (4, None)
    assert config_of(qwen_moe.QWEN3_MOE, **keys).windows == (4, 4)


def test_a_window_of_0_is_none() -> None:
    for family in (qwen_moe.QWEN2_MOE, qwen_moe.QWEN3_MOE):
        assert config_of(family, sliding_window=0, use_sliding_window=True).windows == ()


def test_missing_keys_have_the_defaults_of_the_family() -> None:
    without = {key: value for key, value in SIZES.items() if key != "rope_theta"}
    found = mixtral.MIXTRAL.config.from_hub(without)
    assert (found.rope.theta, found.experts, found.experts_per_token, found.windows) == (1e6, 8, 2, ())
    assert (found.renormalised, found.expert_width) == (True, 80)
    assert config_of(qwen_moe.QWEN2_MOE).renormalised is False
    assert config_of(qwen_moe.QWEN3_MOE).renormalised is False
    assert config_of(qwen_moe.QWEN3_MOE).head_dim == 12


def test_gguf_files_divide_weights_by_their_sum_as_the_family_does() -> None:
    for family, always in ((qwen_moe.QWEN2_MOE, False), (qwen_moe.QWEN3_MOE, True)):
        metadata, _ = family.config.to_gguf(config_of(family, norm_topk_prob=always), family.gguf or "")
        routers = [f"blk.{i}.ffn_gate_inp.weight" for i in range(3)]
        metadata[f"{family.gguf}.vocab_size"] = 97
        read = family.config.from_gguf(Declared("gguf", metadata, routers))
        assert read.renormalised is always
        with pytest.raises(ModelError, match="norm_topk_prob"):
            family.config.to_gguf(config_of(family, norm_topk_prob=not always), family.gguf or "")


def test_missing_keys_of_olmoe_and_ernie_have_their_defaults() -> None:
    found = olmo_moe.OLMOE.config.from_hub(SIZES)
    assert (found.experts, found.experts_per_token, found.expert_width, found.norm_eps) == (64, 8, 80, 1e-5)
    assert found.renormalised is False
    sizes = {key: value for key, value in SIZES.items() if key != "rope_theta"}
    ernie = ernie_moe.ERNIE_MOE.config.from_hub({**sizes, "moe_intermediate_size": 36})
    assert (ernie.experts, ernie.experts_per_token, ernie.shared_width) == (64, 6, 72)
    assert (ernie.sparse, ernie.tied_head, ernie.rope.theta) == ((False, True, True), True, 5e5)


def test_clipped_queries_of_olmoe_cannot_be_written_to_gguf_files() -> None:
    table = olmo_moe.OLMOE.config
    assert table.from_hub({**SIZES, "clip_qkv": None}).clip is None
    with pytest.raises(ModelError, match="clip_qkv"):
        table.to_gguf(table.from_hub({**SIZES, "clip_qkv": 8.0}), "olmoe")
    metadata, _ = table.to_gguf(table.from_hub(SIZES), "olmoe")
    metadata |= {"olmoe.vocab_size": 97, "olmoe.attention.clamp_kqv": 8.0}
    with pytest.raises(ModelError, match="clamp_kqv"):
        table.from_gguf(Declared("gguf", metadata, []))


@pytest.mark.parametrize(
    ("first", "last", "step", "sparse"),
    [(0, -1, 1, ()), (1, 1, 1, (False, True, False)), (0, -1, 2, (False, True, False))],
)
def test_experts_of_ernie_are_in_a_part_of_the_layers(
    first: int, last: int, step: int, sparse: tuple[bool, ...]
) -> None:
    table = ernie_moe.ERNIE_MOE.config
    keys = {"moe_layer_start_index": first, "moe_layer_end_index": last, "moe_layer_interval": step}
    config = table.from_hub({**SIZES, "moe_intermediate_size": 36, **keys})
    assert config.sparse == sparse
    assert table.from_hub(table.to_hub(config)) == config


def test_widths_of_experts_that_a_gguf_file_has_no_keys_for_are_those_of_the_tensors() -> None:
    table = qwen_moe.QWEN2_MOE.config
    settings = {**SIZES, **EXPERTS, "shared_expert_intermediate_size": 50, "mlp_only_layers": [0]}
    config = table.from_hub(settings)
    metadata, _ = table.to_gguf(config, "qwen2moe")
    for key in ("expert_feed_forward_length", "expert_shared_feed_forward_length"):
        del metadata[f"qwen2moe.{key}"]
    shapes = {"ffn_gate_inp": (5, 48), "ffn_gate_exps": (5, 36, 48), "ffn_gate_shexp": (50, 48)}
    tensors = {f"blk.{i}.{name}.weight": torch.zeros(shape) for i in (1, 2) for name, shape in shapes.items()}
    tensors |= {"blk.0.attn_q.bias": torch.zeros(48), "output.weight": torch.zeros(97, 48)}
    assert table.from_gguf(Metadata(metadata, tensors)) == config
    del tensors["blk.1.ffn_gate_exps.weight"], tensors["blk.2.ffn_gate_exps.weight"]
    with pytest.raises(ModelError, match="expert_feed_forward_length is missing"):
        table.from_gguf(Metadata(metadata, tensors))


def test_widths_of_experts_that_a_config_json_lacks_are_those_of_the_family() -> None:
    without = {key: value for key, value in EXPERTS.items() if key != "moe_intermediate_size"}
    found = qwen_moe.QWEN2_MOE.config.from_hub({**SIZES, **without})
    assert (found.expert_width, found.shared_width) == (1408, 5632)
    assert qwen_moe.QWEN3_MOE.config.from_hub({**SIZES, **without}).expert_width == 768


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("num_experts_per_tok is 6; it must be at most num_experts", {"num_experts_per_tok": 6}),
    ("num_experts_per_tok", {"num_experts_per_tok": 0}),
    ("num_experts", {"num_experts": -1}),
    ("moe_intermediate_size", {"moe_intermediate_size": 0}),
    ("decoder_sparse_step", {"decoder_sparse_step": 0}),
    ("no layer has experts", {"decoder_sparse_step": 4}),
    ("mlp_only_layers", {"mlp_only_layers": [3]}),
    ("mlp_only_layers", {"mlp_only_layers": "0"}),
    ("norm_topk_prob", {"norm_topk_prob": 1}),
]


@pytest.mark.parametrize(("named", "changes"), WRONG, ids=str)
def test_an_absurd_setting_is_named(named: str, changes: dict[str, Any]) -> None:
    for family in (qwen_moe.QWEN2_MOE, qwen_moe.QWEN3_MOE):
        with pytest.raises(ModelError, match=named):
            config_of(family, **changes)


def changed(folder: Path, to: Path, settings: Mapping[str, Any], lost: str = "") -> Checkpoint:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if name != lost}, to / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (to / "config.json").write_text(json.dumps({**config, **settings}), encoding="utf-8")
    return open_checkpoint(to)


def test_missing_experts_are_named_before_anything_is_read(folder: Path, tmp_path: Path) -> None:
    lost = "model.layers.1.block_sparse_moe.experts.2.w3.weight"
    with changed(folder, tmp_path, {}, lost) as checkpoint, pytest.raises(CheckpointError, match=lost):
        load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    with (
        changed(folder, tmp_path, {"num_local_experts": 4}) as checkpoint,
        pytest.raises(CheckpointError, match=r"missing: .*experts\.3\.w1"),
    ):
        load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


def test_more_experts_than_the_tensors_hold_are_refused_before_memory_is_taken(
    folder: Path, tmp_path: Path
) -> None:
    with (
        changed(folder, tmp_path, {"num_local_experts": 60000}) as checkpoint,
        pytest.raises(ModelError, match=r"num_local_experts of 60000 .* more than all tensors"),
    ):
        load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


def test_a_granite_under_the_names_that_transformers_has_in_memory_is_the_same_model(tmp_path: Path) -> None:
    name = "granite moe with a shared expert, biases"
    folder = write_folder(FAMILIES[name], tmp_path / "stored")
    renamed = {
        "input_linear.weight": "experts.gate_up_proj",
        "output_linear.weight": "experts.down_proj",
        "router.layer.weight": "router.weight",
    }
    tensors = load_file(folder / "model.safetensors")
    for old in [stored for stored in tensors if "block_sparse_moe" in stored]:
        prefix, _, own = old.partition("block_sparse_moe.")
        tensors[f"{prefix}block_sparse_moe.{renamed[own]}"] = tensors.pop(old)
    (tmp_path / "memory").mkdir()
    save_file(tensors, tmp_path / "memory" / "model.safetensors")
    (tmp_path / "memory" / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert torch.equal(plain(tmp_path / "memory")(TOKENS[None]), plain(folder)(TOKENS[None]))


def test_a_gguf_file_of_granite_without_a_shared_expert_is_one_of_the_family_that_may_have_it() -> None:
    family = HUB["GraniteMoeForCausalLM"][0]
    config = family.config.from_hub({**SIZES, "shared_intermediate_size": 20})
    assert config.shared_width == 0
    metadata, _ = family.config.to_gguf(config, "granitemoe")
    found = GGUF["granitemoe"][0]
    assert found.config.from_gguf(Metadata({**metadata, "granitemoe.vocab_size": 97})).shared_width == 0
    shared = {**metadata, "granitemoe.expert_shared_feed_forward_length": 20, "granitemoe.vocab_size": 97}
    assert found.config.from_gguf(Metadata(shared)).shared_width == 20
