"""Tests JinaBERT against a formula in float64, since transformers does not have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from decodery.encoding.text_batches import BatchRunner, TokenText
from decodery.errors import ModelError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.encoding.folders import write_json
from tests.kernels.native.fixtures import built

LAYERS, WIDTH, HEADS, INNER, ROWS = 3, 60, 6, 50, 97
CONFIG: dict[str, Any] = {
    "architectures": ["JinaBertModel"],
    "feed_forward_type": "geglu",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "model_type": "bert",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "position_embedding_type": "alibi",
    "type_vocab_size": 2,
    "vocab_size": ROWS,
}
IDS = torch.randint(0, ROWS, (40,), generator=torch.Generator().manual_seed(1))
SEGMENTS = (torch.arange(40) > 25).long()


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator) * 1.5 * columns**-0.5

    def norm(name: str) -> dict[str, Tensor]:
        return {
            f"{name}.weight": 1 + 0.3 * torch.randn(WIDTH, generator=generator),
            f"{name}.bias": 0.3 * torch.randn(WIDTH, generator=generator),
        }

    found = {
        "embeddings.word_embeddings.weight": matrix(ROWS, WIDTH),
        "embeddings.token_type_embeddings.weight": matrix(2, WIDTH),
        **norm("embeddings.LayerNorm"),
    }
    for layer in range(LAYERS):
        start = f"encoder.layer.{layer}."
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            found[f"{start}attention.{name}.weight"] = matrix(WIDTH, WIDTH)
            found[f"{start}attention.{name}.bias"] = 0.3 * torch.randn(WIDTH, generator=generator)
        found |= norm(f"{start}attention.output.LayerNorm") | norm(f"{start}mlp.layernorm")
        found[f"{start}mlp.gated_layers.weight"] = matrix(2 * INNER, WIDTH)
        found[f"{start}mlp.wo.weight"] = matrix(WIDTH, INNER)
        found[f"{start}mlp.wo.bias"] = 0.3 * torch.randn(WIDTH, generator=generator)
    return found


def expected(tensors: dict[str, Tensor], ids: Tensor, segments: Tensor) -> Tensor:
    """Returns the states of a text by the paper's formulas, in float64."""
    w = {name: value.double() for name, value in tensors.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return torch.nn.functional.layer_norm(
            x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"], CONFIG["layer_norm_eps"]
        )

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))

    # Six heads: the slopes of four, and then every second one of eight.
    slopes = torch.tensor([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3], dtype=torch.float64)
    places = torch.arange(len(ids))
    bias = -slopes[:, None, None] * (places[:, None] - places).abs()
    x = w["embeddings.word_embeddings.weight"][ids]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][segments], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        start = f"encoder.layer.{layer}."
        q, k, v = (
            linear(x, f"{start}attention.self.{name}").view(len(ids), HEADS, -1).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        scores = (q @ k.mT / (WIDTH // HEADS) ** 0.5 + bias).softmax(-1)
        mixed = (scores @ v).transpose(0, 1).reshape(len(ids), WIDTH)
        x = norm(x + linear(mixed, f"{start}attention.output.dense"), f"{start}attention.output.LayerNorm")
        gate, up = linear(x, f"{start}mlp.gated_layers").chunk(2, -1)
        inner = torch.nn.functional.gelu(gate) * up
        x = norm(x + linear(inner, f"{start}mlp.wo"), f"{start}mlp.layernorm")
    return x


def hub_folder(path: Path, **settings: Any) -> Path:
    path.mkdir(exist_ok=True)
    save_file(weights(), path / "model.safetensors")
    write_json(path / "config.json", {**CONFIG, **settings})
    return path


def gguf_file(path: Path) -> Path:
    """Writes the file as llama.cpp's converter does, which divides the gated matrix."""
    writer = gguf.GGUFWriter(path, "jina-bert-v2")
    for key, value in {
        "block_count": LAYERS,
        "context_length": CONFIG["max_position_embeddings"],
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.layer_norm_epsilon": 1e-12,
        "attention.max_alibi_bias": 8.0,
        "attention.causal": False,
        "pooling_type": 1,
    }.items():
        writer.add_key_value(f"jina-bert-v2.{key}", value, gguf.GGUFValueType.get_type(value))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.JINA_BERT_V2, LAYERS)
    for name, tensor in weights().items():
        if ".gated_layers." in name:
            layer = int(name.split(".")[2])
            gate, up = tensor.chunk(2)
            writer.add_tensor(f"blk.{layer}.ffn_gate.weight", gate.contiguous().numpy())
            writer.add_tensor(f"blk.{layer}.ffn_up.weight", up.contiguous().numpy())
            continue
        stem, _, kind = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{kind}", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def opened(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, dtype=dtype, kernels=torch_kernels)


@pytest.mark.parametrize("form", ["hub", "gguf"])
def test_states_are_those_of_the_formula(form: str, tmp_path: Path) -> None:
    path = hub_folder(tmp_path / "hub") if form == "hub" else gguf_file(tmp_path / "model.gguf")
    wanted = expected(weights(), IDS, SEGMENTS)
    exact = opened(path, torch.float64)(IDS[None], segments=SEGMENTS[None])[0]
    torch.testing.assert_close(exact, wanted, atol=1e-9, rtol=1e-9)
    text = TokenText(tuple(IDS.tolist()), tuple(SEGMENTS.tolist()))
    other = TokenText((5,) * 64, (0,) * 64)
    for batch in BatchRunner(opened(path)).run([other, text]):
        found = batch.of(batch.indices.index(1))
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)


@built
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_natively_a_text_has_the_same_bits_alone_and_among_others(
    quantization: str | None, tmp_path: Path
) -> None:
    with open_checkpoint(hub_folder(tmp_path)) as checkpoint:
        model: Any = load_for_inference(
            checkpoint, dtype=torch.float32, kernels=NativeKernels(), quantization=quantization
        )
    texts = [TokenText(tuple(IDS[:length].tolist()), (0,) * length) for length in (40, 3, 17, 40, 1)]
    runner = BatchRunner(model)
    (batch,) = runner.run(texts)
    for place, index in enumerate(batch.indices):
        (alone,) = runner.run([texts[index]])
        assert alone.states.equal(batch.of(place))
    if quantization is None:
        wanted = expected(weights(), IDS, torch.zeros(40, dtype=torch.long))
        found = batch.of(batch.indices.index(0)).double()
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_each_part_changes_the_states(tmp_path: Path) -> None:
    wanted = opened(hub_folder(tmp_path))(IDS[None], segments=SEGMENTS[None])
    for changed in ({"feed_forward_type": "reglu"}, {"layer_norm_eps": 0.3}):
        found = opened(hub_folder(tmp_path, **changed))(IDS[None], segments=SEGMENTS[None])
        assert (found - wanted).abs().max() > 1e-3
    hub_folder(tmp_path)
    model = opened(tmp_path)
    assert (model(IDS[None]) - wanted).abs().max() > 1e-3
    for layer in model.layers:
        layer.attn.layer.bias.table.zero_()
    assert (model(IDS[None], segments=SEGMENTS[None]) - wanted).abs().max() > 1e-3


@pytest.mark.parametrize(
    "setting", [{"position_embedding_type": "absolute"}, {"feed_forward_type": "original"}]
)
def test_another_jinabert_is_an_error_that_names_the_setting(tmp_path: Path, setting: Any) -> None:
    with pytest.raises(ModelError, match=next(iter(setting))):
        opened(hub_folder(tmp_path, **setting))


def test_a_head_that_is_declared_and_not_stored_is_left_out(tmp_path: Path) -> None:
    model = opened(hub_folder(tmp_path, architectures=["JinaBertForMaskedLM"]))
    assert list(model.heads) == []
