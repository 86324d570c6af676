"""Lists tiny models of all decoder families, each with what distinguishes its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decodery.models.layers.rope import Rope

Without = Callable[[Any], Any]
"""Returns a config without a trait."""


@dataclass(frozen=True)
class Tiny:
    """Describes one tiny model: settings of its config.json, and how it differs from a Llama.

    `traits` are what the family adds to Llama, each with the config that lacks it: its logits must differ.
    `gguf` is False if a GGUF file cannot express the settings. `slow` keeps the model out of the default
    tests. `routed`: a small change of a token's states may change its experts, and so its logits by much.
    """

    architecture: str
    settings: Mapping[str, Any]
    traits: Mapping[str, Without] = field(default_factory=dict)
    gguf: bool = True
    slow: bool = True
    routed: bool = False


SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


def without(**fields: Any) -> Without:
    """Returns the function that replaces fields of a config."""
    return lambda config: replace(config, **fields)


WINDOWED = {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 1}
NO_WINDOW, NO_HEAD_NORMS = without(windows=()), without(head_norms=False)

FAMILIES: dict[str, Tiny] = {
    "llama": Tiny("LlamaForCausalLM", SIZES, slow=False),
    "llama with biases, heads of 20": Tiny(
        "LlamaForCausalLM",
        {**SIZES, "attention_bias": True, "mlp_bias": True, "head_dim": 20, "num_key_value_heads": 1},
    ),
    "qwen2": Tiny(
        "Qwen2ForCausalLM",
        {**SIZES, "hidden_size": 80, "tie_word_embeddings": True},
        {"biases": without(attention_bias=False)},
        slow=False,
    ),
    "qwen2 with windows": Tiny("Qwen2ForCausalLM", {**SIZES, **WINDOWED}, {"window": NO_WINDOW}, gguf=False),
    "qwen3": Tiny("Qwen3ForCausalLM", {**SIZES, "head_dim": 36}, {"head norms": NO_HEAD_NORMS}, slow=False),
    "qwen3 with windows": Tiny(
        "Qwen3ForCausalLM",
        {**SIZES, **WINDOWED, "head_dim": 16, "attention_bias": True, "tie_word_embeddings": True},
        {"window": NO_WINDOW, "head norms": NO_HEAD_NORMS},
        gguf=False,
    ),
    "mistral": Tiny(
        "MistralForCausalLM",
        {**SIZES, "sliding_window": 9, "num_key_value_heads": 1},
        {"window": NO_WINDOW},
        gguf=False,
    ),
    "ministral": Tiny(
        "MinistralForCausalLM",
        {
            **SIZES,
            "sliding_window": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "head_dim": 12,
        },
        {"window": NO_WINDOW, "full layer": without(windows=(9, 9, 9))},
        gguf=False,
        slow=False,
    ),
    "smollm3": Tiny(
        "SmolLM3ForCausalLM",
        {**SIZES, "num_hidden_layers": 5, "rope_theta": 2e6},
        {"layer that does not rotate": without(rotated=())},
        slow=False,
    ),
}

EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 36}
MIXTRAL = {"num_local_experts": 5, "num_experts_per_tok": 3, "rope_theta": 1e6}
ONE_EXPERT = without(experts_per_token=1)
GRANITE_MOE = {
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "embedding_multiplier": 6.0,
    "attention_multiplier": 0.5,
    "residual_multiplier": 0.4,
    "logits_scaling": 3.0,
}
GRANITE_MOE_TRAITS = {
    "embedding scale": without(embedding_scale=1.0),
    "score scale": without(score_scale=12**-0.5),
    "residual scale": without(residual_scale=1.0),
    "logit divisor": without(logit_divisor=1.0),
    "second expert": ONE_EXPERT,
    "weights that sum to 1": without(renormalised=False),
}

ROUTED = {
    **{key: value for key, value in EXPERTS.items() if key != "num_experts"},
    "n_routed_experts": 6,
    "n_group": 3,
    "topk_group": 2,
    "routed_scaling_factor": 1.5,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 0,
}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 20,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 16,
}
V3_TRAITS = {
    "second expert": ONE_EXPERT,
    "shared expert": without(shared_width=0),
    "factor": without(factor=1.0),
    "groups": without(kept_groups=3),
    "a group's two best": without(best_of_group=1),
    "correction": without(corrected=False),
    "weights that sum to 1": without(renormalised=False),
    "logistic function": without(probability="softmax"),
}

FAMILIES |= {
    "mixtral": Tiny(
        "MixtralForCausalLM",
        {**SIZES, **MIXTRAL},
        {"second expert": ONE_EXPERT, "weights that sum to 1": without(renormalised=False)},
        slow=False,
        routed=True,
    ),
    "mixtral with windows, one expert": Tiny(
        "MixtralForCausalLM",
        {**SIZES, **MIXTRAL, "num_experts_per_tok": 1, "sliding_window": 9, "head_dim": 20},
        {"window": NO_WINDOW, "weights that sum to 1": without(renormalised=False)},
        gguf=False,
        routed=True,
    ),
    "qwen2 moe": Tiny(
        "Qwen2MoeForCausalLM",
        {**SIZES, **EXPERTS, "shared_expert_intermediate_size": 50},
        {
            "biases": without(attention_bias=False),
            "second expert": ONE_EXPERT,
            "weights that do not sum to 1": without(renormalised=True),
            "shared expert": without(shared_width=0),
        },
        slow=False,
        routed=True,
    ),
    "qwen2 moe with windows, some layers without experts": Tiny(
        "Qwen2MoeForCausalLM",
        {
            **SIZES,
            **EXPERTS,
            **WINDOWED,
            "shared_expert_intermediate_size": 33,
            "num_hidden_layers": 5,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
            "norm_topk_prob": True,
        },
        {"window": NO_WINDOW, "weights that sum to 1": without(renormalised=False)},
        gguf=False,
        routed=True,
    ),
    "qwen3 moe": Tiny(
        "Qwen3MoeForCausalLM",
        {**SIZES, **EXPERTS, "norm_topk_prob": True, "head_dim": 36},
        {"head norms": NO_HEAD_NORMS, "weights that sum to 1": without(renormalised=False)},
        slow=False,
        routed=True,
    ),
    "qwen3 moe with windows, one layer without experts": Tiny(
        "Qwen3MoeForCausalLM",
        {**SIZES, **EXPERTS, **WINDOWED, "mlp_only_layers": [0], "tie_word_embeddings": True},
        {"window": NO_WINDOW, "weights that do not sum to 1": without(renormalised=True)},
        gguf=False,
        routed=True,
    ),
    "gpt-oss": Tiny(
        "GptOssForCausalLM",
        {
            **{key: value for key, value in SIZES.items() if key != "rope_theta"},
            "num_local_experts": 5,
            "num_experts_per_tok": 3,
            "head_dim": 20,
            "sliding_window": 9,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 20,
                "truncate": False,
            },
        },
        {
            "window": NO_WINDOW,
            "full layer": without(windows=(9, 9, 9)),
            "sinks": without(sinks=False),
            "biases of experts": without(expert_bias=False),
            "bias of the router": without(router_bias=False),
            "biases of attention": without(attention_bias=False),
            "clamped activation": without(expert_activation="silu"),
            "bounds that are not truncated": lambda config: replace(
                config, rope=replace(config.rope, truncate=True)
            ),
        },
        slow=False,
        routed=True,
    ),
    "olmoe": Tiny(
        "OlmoeForCausalLM",
        {**SIZES, "num_experts": 5, "num_experts_per_tok": 3},
        {
            "norms of queries and keys": NO_HEAD_NORMS,
            "weights that do not sum to 1": without(renormalised=True),
        },
        routed=True,
    ),
    "olmoe with clipped queries, keys and values": Tiny(
        "OlmoeForCausalLM",
        {**SIZES, "num_experts": 4, "num_experts_per_tok": 2, "clip_qkv": 0.9},
        {"clip": without(clip=None), "clip of normalised queries": without(clip_normed=False)},
        gguf=False,
        routed=True,
    ),
    "granite moe": Tiny(
        "GraniteMoeForCausalLM",
        {**SIZES, **GRANITE_MOE, "tie_word_embeddings": True, "num_key_value_heads": 1},
        GRANITE_MOE_TRAITS,
        routed=True,
    ),
    "granite moe with a shared expert, biases": Tiny(
        "GraniteMoeSharedForCausalLM",
        {**SIZES, **GRANITE_MOE, "shared_intermediate_size": 20, "attention_bias": True, "hidden_size": 80},
        {
            **GRANITE_MOE_TRAITS,
            "score scale": without(score_scale=20**-0.5),
            "shared expert": without(shared_width=0),
            "biases": without(attention_bias=False),
        },
        routed=True,
    ),
    "ernie 4.5 moe": Tiny(
        "Ernie4_5_MoeForCausalLM",
        {
            **SIZES,
            "moe_num_experts": 5,
            "moe_k": 2,
            "moe_intermediate_size": 36,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
        },
        {
            "correction": without(corrected=False),
            "shared experts": without(shared_width=0),
            "weights that sum to 1": without(renormalised=False),
        },
        routed=True,
    ),
    "ernie 4.5 moe, every second layer": Tiny(
        "Ernie4_5_MoeForCausalLM",
        {
            **SIZES,
            "num_hidden_layers": 5,
            "tie_word_embeddings": False,
            "moe_num_experts": 4,
            "moe_k": 1,
            "moe_intermediate_size": 20,
            "moe_num_shared_experts": 0,
            "moe_layer_interval": 2,
            "moe_layer_end_index": 2,
        },
        {"weights that sum to 1": without(renormalised=False)},
        gguf=False,
        routed=True,
    ),
    "phi 3.5 moe": Tiny(
        "PhimoeForCausalLM",
        {
            **SIZES,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "router_jitter_noise": 0.2,
            "attention_bias": True,
            "lm_head_bias": True,
            "sliding_window": 9,
        },
        {
            "window": NO_WINDOW,
            "weights among near scores": without(within=None),
            "biases": without(attention_bias=False),
            "bias of the head": without(head_bias=False),
        },
        gguf=False,
        routed=True,
    ),
    "phi 3.5 moe with the usual distance": Tiny(
        "PhimoeForCausalLM",
        {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 12},
        {"second expert": ONE_EXPERT},
        routed=True,
    ),
    "glm 4.5": Tiny(
        "Glm4MoeForCausalLM",
        {
            **SIZES,
            **ROUTED,
            "use_qk_norm": True,
            "attention_bias": True,
            "head_dim": 20,
            "rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.6},
        },
        {
            "partial rotation": without(rotated_size=None),
            "head norms": NO_HEAD_NORMS,
            "biases": without(attention_bias=False),
            **V3_TRAITS,
        },
        routed=True,
    ),
    "deepseek v2": Tiny(
        "DeepseekV2ForCausalLM",
        {
            **SIZES,
            **ROUTED,
            **LATENT,
            "topk_method": "group_limited_greedy",
            "topk_group": 1,
            "n_shared_experts": 2,
        },
        {
            "shared experts": without(shared_width=0),
            "factor": without(factor=1.0),
            "groups": without(kept_groups=3),
            "weights that do not sum to 1": without(renormalised=True),
        },
        routed=True,
    ),
    "deepseek v2 with whole queries, one group": Tiny(
        "DeepseekV2ForCausalLM",
        {
            **SIZES,
            **ROUTED,
            **LATENT,
            "q_lora_rank": None,
            "topk_method": "greedy",
            "n_group": 1,
            "topk_group": 1,
        },
        {"second expert": ONE_EXPERT},
        routed=True,
    ),
    "deepseek v3": Tiny(
        "DeepseekV3ForCausalLM",
        {
            **SIZES,
            **ROUTED,
            **LATENT,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1000.0,
                "factor": 8.0,
                "original_max_position_embeddings": 16,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
        },
        {**V3_TRAITS, "scale of all dimensions": without(all_dimensions=0.0)},
        slow=False,
        routed=True,
    ),
    "deepseek v3 in halves, with biases": Tiny(
        "DeepseekV3ForCausalLM",
        {**SIZES, **ROUTED, **LATENT, "rope_interleave": False, "attention_bias": True, "v_head_dim": 20},
        {"biases": without(attention_bias=False)},
        gguf=False,
        routed=True,
    ),
}

LLAMA4 = {
    **SIZES,
    "num_hidden_layers": 4,
    "head_dim": 20,
    "intermediate_size": 36,
    "intermediate_size_mlp": 80,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
}
LLAMA4_TRAITS = {
    "layer that does not rotate": without(rotated=()),
    "norms of heads": NO_HEAD_NORMS,
    "second expert": ONE_EXPERT,
    "shared expert": without(shared_width=0),
    "weighed inputs": without(weigh="output"),
    "logistic function": without(probability="softmax"),
    "weights that do not sum to 1": without(renormalised=True),
}
FAMILIES |= {
    "llama 4": Tiny(
        "Llama4ForCausalLM",
        {
            **{key: value for key, value in LLAMA4.items() if key != "rope_theta"},
            "num_hidden_layers": 5,
            "attention_chunk_size": 9,
            "floor_scale": 5,
            "attn_scale": 0.8,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e3,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 1.0,
                "original_max_position_embeddings": 32,
            },
        },
        {
            **LLAMA4_TRAITS,
            "chunks": without(chunks=()),
            "chunks that are no windows": without(chunks=(), windows=(9, 9, 9, None, 9)),
            "full layer": without(chunks=(9,) * 5),
            "growth of queries": without(unrotated_growth=None),
            "growth with the position + 1": lambda config: replace(
                config, unrotated_growth=config.unrotated_growth._replace(offset=0)
            ),
            "scaling": without(rope=Rope(1e3)),
        },
        gguf=False,
        slow=False,
        routed=True,
    ),
    "llama 4, every second layer with experts": Tiny(
        "Llama4ForCausalLM",
        {**LLAMA4, "interleave_moe_layer_step": 2, "num_key_value_heads": 1, "head_dim": 36},
        LLAMA4_TRAITS,
        routed=True,
    ),
    "llama 4 with biases, chunks in other layers": Tiny(
        "Llama4ForCausalLM",
        {
            **LLAMA4,
            "moe_layers": [0, 3],
            "attention_bias": True,
            "no_rope_layers": [1, 0, 0, 1],
            "layer_types": ["full_attention", "chunked_attention", "full_attention", "chunked_attention"],
            "attention_chunk_size": 7,
            "use_qk_norm": False,
            "attn_temperature_tuning": False,
            "num_experts_per_tok": 1,
        },
        {
            "biases": without(attention_bias=False),
            "chunks": without(chunks=()),
            "layers that do not rotate": without(rotated=()),
        },
        gguf=False,
        routed=True,
    ),
    "llama 4 without experts": Tiny(
        "Llama4ForCausalLM",
        {
            **LLAMA4,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "moe_layers": [],
            "no_rope_layers": [1] * 4,
            "layer_types": ["full_attention"] * 4,
            "tie_word_embeddings": True,
        },
        {"norms of heads": NO_HEAD_NORMS},
    ),
}


def write_folder(tiny: Tiny, folder: Path, seed: int = 0) -> Path:
    """Writes the hub folder of a tiny model with random weights, as transformers saves it."""
    import transformers

    architecture = getattr(transformers, tiny.architecture)
    model = architecture(architecture.config_class(**tiny.settings))
    randomise(model, seed)
    model.save_pretrained(folder)
    return folder


def randomise(model: nn.Module, seed: int) -> None:
    """Draws weights under which every part of a model changes its logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) / 3)
            if name.endswith("layer_scalar"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise * 1.5 * parameter.shape[-1] ** -0.5)
            else:
                parameter.copy_(0.3 * noise + (name.endswith(("weight", "scale"))))
