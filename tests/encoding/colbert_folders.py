"""Writes folders of tiny models that give each token a vector, and computes these with transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.encoding.folders import encoder_folder, write_json
from tests.encoding.tiny_tokenizers import TOKENIZERS

WIDTH, DIM = 24, 10
MARKERS = ("[Q] ", "[D] ")


def matrix(seed: int = 5) -> torch.Tensor:
    """Returns the matrix [DIM, WIDTH] behind the states of all these models."""
    return torch.randn(DIM, WIDTH, generator=torch.Generator().manual_seed(seed))


def colbert_folder(
    path: Path, architecture: str = "BertModel", tokenizer: str = "word pieces", **artifact: Any
) -> Path:
    """Writes a folder as ColBERT's authors store it; `artifact` is added to artifact.metadata."""
    markers = ("[unused0]", "[unused1]")
    _encoder(path, markers, architecture, tokenizer)
    weights = load_file(path / "model.safetensors")
    save_file(
        {**{f"bert.{name}": value for name, value in weights.items()}, "linear.weight": matrix()},
        path / "model.safetensors",
    )
    config = json.loads((path / "config.json").read_text())
    write_json(path / "config.json", {**config, "architectures": ["HF_ColBERT"]})
    given = {"query_maxlen": 14, "doc_maxlen": 20, "dim": DIM, "similarity": "cosine", **artifact}
    write_json(path / "artifact.metadata", given)
    return path


def pylate_folder(
    path: Path,
    architecture: str = "BertModel",
    tokenizer: str = "word pieces",
    *,
    model: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Writes a folder as PyLate stores it; `settings` are added to config_sentence_transformers.json."""
    _encoder(path, MARKERS, architecture, tokenizer, **(model or {}))
    modules = [
        ("Transformer", "sentence_transformers.models.Transformer", ""),
        ("Dense", "pylate.models.Dense.Dense", "1_Dense"),
    ]
    _write_modules(path, modules)
    _write_dense(path / "1_Dense")
    # PyLate writes the length that it used last.
    write_json(path / "sentence_bert_config.json", {"max_seq_length": 13, "do_lower_case": False})
    given = {
        "model_type": "ColBERT",
        "query_prefix": MARKERS[0],
        "document_prefix": MARKERS[1],
        "query_length": 14,
        "document_length": 20,
        "attend_to_expansion_tokens": False,
        "similarity_fn_name": "MaxSim",
        **settings,
    }
    write_json(path / "config_sentence_transformers.json", given)
    return path


def masked_folder(
    path: Path,
    *,
    mask: Mapping[str, Any] | None = None,
    transformer: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Writes a folder as sentence-transformers stores it, with a MultiVectorMask of the content `mask`."""
    _encoder(path, MARKERS, "BertModel", "word pieces")
    package = "sentence_transformers"
    modules = [
        ("0", f"{package}.base.modules.transformer.Transformer", ""),
        ("1", f"{package}.base.modules.dense.Dense", "1_Dense"),
        (
            "2",
            f"{package}.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
            "2_MultiVectorMask",
        ),
        ("3", f"{package}.base.modules.normalize.Normalize", "3_Normalize"),
    ]
    _write_modules(path, modules)
    _write_dense(path / "1_Dense")
    write_json(path / "2_MultiVectorMask" / "config.json", mask or {})
    write_json(path / "3_Normalize" / "config.json", {"module_input_name": "token_embeddings"})
    expansion = {"strategy": "fixed", "attend": False, "token": None, "length": 14}
    write_json(
        path / "sentence_bert_config.json",
        {"document_length": 20, "query_expansion": expansion, "max_seq_length": 64, **(transformer or {})},
    )
    given = {
        "model_type": "MultiVectorEncoder",
        "prompts": {"query": MARKERS[0], "document": MARKERS[1]},
        "similarity_fn_name": "maxsim",
        **settings,
    }
    write_json(path / "config_sentence_transformers.json", given)
    return path


def _encoder(path: Path, markers: Sequence[str], architecture: str, tokenizer: str, **model: Any) -> None:
    """Writes a tiny encoder whose vocabulary has two more tokens."""
    import tokenizers

    size = TOKENIZERS[tokenizer]().backend.get_vocab_size()
    encoder_folder(path, architecture, tokenizer=tokenizer, vocab_size=size + len(markers), **model)
    file = str(path / "tokenizer.json")
    backend = tokenizers.Tokenizer.from_file(file)
    backend.add_special_tokens(
        [tokenizers.AddedToken(text, normalized=False, special=True) for text in markers]
    )
    backend.save(file)


def _write_modules(path: Path, modules: Sequence[tuple[str, str, str]]) -> None:
    listed = [
        {"idx": number, "name": name, "path": place, "type": kind}
        for number, (name, kind, place) in enumerate(modules)
    ]
    write_json(path / "modules.json", listed)


def _write_dense(path: Path) -> None:
    write_json(
        path / "config.json",
        {
            "in_features": WIDTH,
            "out_features": DIM,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
            "module_input_name": "token_embeddings",
            "module_output_name": "token_embeddings",
        },
    )
    save_file({"linear.weight": matrix()}, path / "model.safetensors")


def their_vectors(
    folder: Path, ids: Sequence[int], seen: int, *, kept: Sequence[int] | None = None
) -> torch.Tensor:
    """Returns the vectors [tokens, DIM] of ids in float64, by transformers and the formula of the paper.

    All tokens see the first `seen` ones alone. `kept` are the places whose vectors count, None for all.
    """
    import transformers

    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    mask = torch.tensor([[1] * seen + [0] * (len(ids) - seen)])
    with torch.no_grad():
        states = model(input_ids=torch.tensor([list(ids)]), attention_mask=mask).last_hidden_state[0]
    vectors = torch.nn.functional.normalize(states @ matrix().double().T, dim=-1)
    return vectors if kept is None else vectors[list(kept)]
