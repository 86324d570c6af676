"""Writes tiny encoders as GGUF files, as llama.cpp's converter stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
import torch
from safetensors.torch import load_file
from torch import Tensor

LEFT_OUT = ("embeddings.position_ids", "pooler.", "cls.")
HEADS = {"classifier.out_proj": "cls.output", "classifier.dense": "cls", "score": "cls.output"}


def write_gguf(
    path: Path, folder: Path, architecture: str, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Writes the F32 file of a hub folder of transformers, with its tokenizer if it has one.

    `metadata` has further keys; None for one of them leaves it out. Returns the path.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    keys = {**sizes(config, architecture), **vocabulary(folder, config), **(metadata or {})}
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        if value is not None:
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    blocks = config.get("num_hidden_layers")
    arch = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, blocks)
    for name, tensor in stored(folder, config, architecture).items():
        stem, _, kind = name.rpartition(".")
        ours = HEADS.get(stem) or names.get_name(stem)
        assert ours is not None, name
        writer.add_tensor(f"{ours}.{kind}", np.ascontiguousarray(tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def sizes(config: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """Returns the keys of an architecture's sizes."""
    found = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.layer_norm_epsilon": config.get("layer_norm_eps", config.get("norm_eps", 1e-5)),
        "attention.causal": False,
    }
    if config["model_type"] in ("roberta", "xlm-roberta"):
        found["context_length"] -= config["pad_token_id"] + 1
    if architecture == "nomic-bert":
        found["rope.freq_base"] = config["rope_parameters"]["rope_theta"]
    if architecture == "modern-bert":
        found["attention.sliding_window"] = config["local_attention"]
        ropes = config["rope_parameters"]
        found["rope.freq_base"] = ropes["full_attention"]["rope_theta"]
        found["rope.freq_base_swa"] = ropes["sliding_attention"]["rope_theta"]
    return {f"{architecture}.{key}": value for key, value in found.items()}


def stored(folder: Path, config: Mapping[str, Any], architecture: str) -> dict[str, Tensor]:
    """Returns the tensors by names that gguf's table of names knows."""
    found: dict[str, Tensor] = {}
    prefixes = ("bert.", "roberta.", "nomic_bert.", "model.")
    for name, value in load_file(folder / "model.safetensors").items():
        prefix = next((each for each in prefixes if name.startswith(each)), "")
        found[name.removeprefix(prefix)] = value
    found = {name: value for name, value in found.items() if not name.startswith(LEFT_OUT)}
    position = "embeddings.position_embeddings.weight"
    if config["model_type"] in ("roberta", "xlm-roberta"):
        found[position] = found[position][config["pad_token_id"] + 1 :]
    for layer in range(config["num_hidden_layers"]):
        parts = [f"layers.{layer}.self_attn.{part}_proj.weight" for part in "qkv"]
        if architecture == "nomic-bert" and parts[0] in found:
            found[f"encoder.layers.{layer}.attn.Wqkv.weight"] = torch.cat([found.pop(p) for p in parts])
    if architecture == "nomic-bert":
        found = {older(name): value for name, value in found.items()}
    return found


def older(name: str) -> str:
    """Returns the authors' name of a tensor of NomicBERT, which gguf's table knows."""
    if name.startswith("layers."):
        name = f"encoder.{name}"
    for theirs, authors in (
        ("embeddings.LayerNorm", "emb_ln"),
        ("self_attn.o_proj", "attn.out_proj"),
        ("mlp.up_proj", "mlp.fc11"),
        ("mlp.gate_proj", "mlp.fc12"),
        ("mlp.down_proj", "mlp.fc2"),
        ("post_attention_layernorm", "norm1"),
        ("post_mlp_layernorm", "norm2"),
    ):
        name = name.replace(theirs, authors)
    return name


def vocabulary(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of a folder's tokenizer; of one without, those of a vocabulary that is never used."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        tokens = [f"[unused{number}]" for number in range(config["vocab_size"])]
        return _keys("bert", tokens, [gguf.TokenType.NORMAL] * len(tokens), 0, 1)
    backend = tokenizers.Tokenizer.from_file(str(file))
    tokens = [backend.id_to_token(token) or "" for token in range(backend.get_vocab_size())]
    special = set(backend.get_added_tokens_decoder())
    types = [
        gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in range(len(tokens))
    ]
    if "[CLS]" in tokens:
        spaced = [
            text if token in special else text[2:] if text.startswith("##") else f"\u2581{text}"
            for token, text in enumerate(tokens)
        ]
        return _keys("bert", spaced, types, tokens.index("[CLS]"), tokens.index("[SEP]"))
    merges = [" ".join(pair) for pair in json.loads(file.read_text(encoding="utf-8"))["model"]["merges"]]
    keys = _keys("gpt2", tokens, types, tokens.index("<s>"), tokens.index("</s>"))
    keys["tokenizer.ggml.merges"] = merges
    keys["tokenizer.ggml.pre"] = "roberta-bpe"
    keys["tokenizer.ggml.add_bos_token"] = keys["tokenizer.ggml.add_eos_token"] = True
    return keys


def _keys(
    model: str, tokens: Sequence[str], types: Sequence[gguf.TokenType], begin: int, end: int
) -> dict[str, Any]:
    ends = ("cls", "seperator") if model == "bert" else ("bos", "eos")
    return {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.token_type": [int(kind) for kind in types],
        f"tokenizer.ggml.{ends[0]}_token_id": begin,
        f"tokenizer.ggml.{ends[1]}_token_id": end,
    }
