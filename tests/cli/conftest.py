"""Provides a tiny model folder with a tokenizer of bytes, and runs commands in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import save_file

from decodery.cli.main import run

SPECIAL = ("<|end|>", "<|user|>", "<|reply|>")
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>")
VOCABULARY = 256 + len(SPECIAL)
WIDTH, LAYERS, HEADS, KV_HEADS, MLP, CONTEXT = 32, 2, 4, 2, 48, 128
TEMPLATE = (
    "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|reply|>' if m.role == 'assistant'"
    " else '' }}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|reply|>{% endif %}"
)


@dataclass
class Ran:
    """Holds the exit status and the output of a command line."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class TypedInput(io.TextIOWrapper):
    """Acts as a stdin that is a terminal."""

    def isatty(self) -> bool:
        return True


Run = Callable[..., Ran]


@pytest.fixture
def decodery(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Returns a function that runs a command line.

    `stdin` are the bytes piped in; None is a terminal at which nothing is typed.
    """
    monkeypatch.setenv("COLUMNS", "80")

    def ran(*arguments: str, stdin: bytes | None = None) -> Ran:
        piped = io.BytesIO(stdin or b"")
        monkeypatch.setattr(sys, "stdin", TypedInput(piped) if stdin is None else io.TextIOWrapper(piped))
        status = run(arguments)
        return Ran(status, *capsys.readouterr())

    return ran


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a folder with a random Llama whose tokens are the 256 bytes and three special ones."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a folder with the same model without a chat template."""
    return write_model(tmp_path_factory.mktemp("plain"), template=None)


def write_model(
    folder: Path, template: str | None = TEMPLATE, context: int = CONTEXT, rows: int = VOCABULARY
) -> str:
    """Writes a random Llama with its tokenizer into the folder, and returns the folder's path.

    `rows` are those of the embedding; those beyond the vocabulary have no text.
    """
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": rows,
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    settings: dict[str, Any] = {"eos_token": SPECIAL[0], **({"chat_template": template} if template else {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    save_file(random_weights(rows), folder / "model.safetensors")
    return str(folder)


def write_coder(folder: Path) -> str:
    """Writes the same model with tokens for infilling, and returns the folder's path."""
    path = write_model(folder, rows=VOCABULARY + len(FIM))
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_special_tokens(list(FIM))
    backend.save(str(folder / "tokenizer.json"))
    return path


def byte_tokenizer() -> tokenizers.Tokenizer:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: place for place, character in enumerate(alphabet)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    return backend


def random_weights(vocabulary: int = VOCABULARY) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * columns**-0.5

    tensors = {"model.embed_tokens.weight": matrix(vocabulary, WIDTH), "model.norm.weight": torch.ones(WIDTH)}
    for layer in (f"model.layers.{place}" for place in range(LAYERS)):
        kv = WIDTH // HEADS * KV_HEADS
        tensors |= {
            f"{layer}.input_layernorm.weight": torch.ones(WIDTH),
            f"{layer}.post_attention_layernorm.weight": torch.ones(WIDTH),
            f"{layer}.self_attn.q_proj.weight": matrix(WIDTH, WIDTH),
            f"{layer}.self_attn.k_proj.weight": matrix(kv, WIDTH),
            f"{layer}.self_attn.v_proj.weight": matrix(kv, WIDTH),
            f"{layer}.self_attn.o_proj.weight": matrix(WIDTH, WIDTH),
            f"{layer}.mlp.gate_proj.weight": matrix(MLP, WIDTH),
            f"{layer}.mlp.up_proj.weight": matrix(MLP, WIDTH),
            f"{layer}.mlp.down_proj.weight": matrix(WIDTH, MLP),
        }
    return tensors
