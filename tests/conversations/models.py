"""Writes tiny chat models: bytes and the special tokens of a family, random weights, a short template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file

from decodery import GenerationParams
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.cli.conftest import HEADS, KV_HEADS, LAYERS, MLP, WIDTH, random_weights

END = "<|end|>"
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>")
TURN = "{{ '<|' + m.role + '|>' + m.content }}"
# One template for each format of calls; all end with the mark of the model's turn.
HEAD = "{% if tools %}{% for t in tools %}{{ t.function | tojson }}{% endfor %}{% endif %}"
CALLS = {
    "hermes": '<tool_call>\n{{ \'{"name": "\' + f.name + \'", "arguments": \' }}{{ f.arguments | tojson }}'
    "{{ '}' }}\n</tool_call>",
    "mistral": '[TOOL_CALLS] [{{ \'{"name": "\' + f.name + \'", "arguments": \' }}{{ f.arguments | tojson }}'
    "{{ '}' }}]",
    "mistral-arguments": "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments }}",
    "llama": "{{ '{\"name\": \"' + f.name + '\", \"parameters\": ' }}{{ f.arguments | tojson }}{{ '}' }}",
}


def template(form: str | None = None, *, ending: str = "", system: bool = True) -> str:
    """Returns a template; without a format it takes no tools."""
    calls = ""
    if form is not None:
        calls = "{% for c in m.tool_calls or [] %}{% set f = c.function %}" + CALLS[form] + "{% endfor %}"
    refusal = "" if system else "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tool = "" if form is not None else "{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    return (
        (HEAD if form is not None else "")
        + "{% for m in messages %}"
        + refusal
        + tool
        + TURN
        + calls
        + "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>"
        + ending
        + "' }}{% endif %}"
    )


def write_chat_model(folder: Path, chat_template: str, *, special: bool = True) -> str:
    """Writes a model, and returns its folder; the marks are special tokens or ordinary ones."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[])
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([END])
    backend.add_tokens([tokenizers.AddedToken(mark, special=special, normalized=False) for mark in MARKS])
    rows = backend.get_vocab_size()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": rows,
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": END, "chat_template": chat_template})
    )
    backend.save(str(folder / "tokenizer.json"))
    save_file(random_weights(rows), folder / "model.safetensors")
    return str(folder)


def scripted(tokenizer: Tokenizer, text: str, params: GenerationParams | None = None) -> GenerationParams:
    """Returns parameters by which the model writes this text and ends, where nothing bans its tokens."""
    script = [*tokenizer.encode(text, add_special_tokens=False), *tokenizer.eos_token_ids]
    state: dict[str, int] = {}

    def follow(ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        start = state.setdefault("start", len(ids))
        place = len(ids) - start
        logits = logits.clone()
        if place < len(script):
            logits[script[place]] += 1e4
        return logits

    base = params or GenerationParams()
    return base.replace(logits_processors=(follow,), temperature=0, max_tokens=base.max_tokens or 256)


TOOLS: Sequence[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "maxLength": 8}, "days": {"enum": [1, 2]}},
                "required": ["place", "days"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "get"}},
]
