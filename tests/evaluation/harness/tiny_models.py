"""Writes small random models that transformers opens too."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

WORDS = (
    *("sun", "moon", "water", "plant", "rock", "iron", "light", "heat", "sound", "force", "river", "stone"),
    *("the", "a", "of", "in", "is", "are", "not"),
)
END, BEGIN = "<|endoftext|>", "<|begin|>"
TEMPLATE = (
    "{% for m in messages %}<|begin|>{{ m.role }}\n{{ m.content }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)


def sentence(rng: random.Random, words: int) -> str:
    """Returns so many random words."""
    return " ".join(rng.choice(WORDS) for _ in range(words))


def write_llama(folder: Path) -> str:
    """Writes a Llama whose tokenizer begins each text with its token of the beginning."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, begin)]
    )
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        bos_token_id=begin,
        eos_token_id=tokenizer.token_to_id(END),
    )
    return _write(folder, LlamaForCausalLM, config, tokenizer, bos_token=BEGIN, eos_token=END)


def write_gpt2(folder: Path) -> str:
    """Writes a GPT-2, whose token of the end is also that of the beginning, and no text begins with it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _tokenizer()
    end = tokenizer.token_to_id(END)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=96,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=end,
        eos_token_id=end,
    )
    return _write(folder, GPT2LMHeadModel, config, tokenizer, bos_token=END, eos_token=END)


def _tokenizer() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    rng = random.Random(0)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[END, BEGIN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([sentence(rng, 50) for _ in range(20)], trainer)
    return backend


def _write(folder: Path, kind: Any, config: Any, backend: tokenizers.Tokenizer, **tokens: str) -> str:
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        # Larger weights than those of training's start, so that the tokens differ in probability.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    model.save_pretrained(folder)
    saved = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=END, **tokens)
    saved.chat_template = TEMPLATE
    saved.save_pretrained(folder)
    return str(folder)
