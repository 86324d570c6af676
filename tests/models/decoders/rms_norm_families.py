"""Lists tiny models of further decoder families that have RMSNorm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from decodery.models.layers.rope import Rope
from tests.models.decoders.families import NO_HEAD_NORMS, NO_WINDOW, SIZES, Tiny, without

GEMMA = {
    **{key: value for key, value in SIZES.items() if key != "pad_token_id"},
    "pad_token_id": 0,
    "head_dim": 20,
    "hidden_activation": "gelu_pytorch_tanh",
}
GEMMA_TRAITS = {"embedding scale": without(embedding_scale=1.0), "gelu": without(activation="silu")}
GEMMA2 = {
    **GEMMA,
    "query_pre_attn_scalar": 20,
    "sliding_window": 9,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
}
GEMMA2_TRAITS = {
    **GEMMA_TRAITS,
    "score cap": without(softcap=None),
    "logit cap": without(logit_softcap=None),
    "norms after": without(norms="before"),
    "window": NO_WINDOW,
    "full layers": without(windows=(9, 9, 9)),
    "query scale": without(query_scale=80.0),
}
GEMMA3 = {
    **GEMMA,
    "query_pre_attn_scalar": 20,
    "sliding_window": 9,
    "num_hidden_layers": 4,
    "rope_theta": 1e6,
}
GEMMA3_TRAITS = {
    **GEMMA_TRAITS,
    "norms after": without(norms="before"),
    "head norms": NO_HEAD_NORMS,
    "window": NO_WINDOW,
    "query scale": without(query_scale=80.0),
    "rope by kind": lambda config: replace(config, rope=config.rope["full_attention"]),
}
RMS_NORM_FAMILIES: dict[str, Tiny] = {
    "gemma": Tiny(
        "GemmaForCausalLM",
        {**GEMMA, "num_key_value_heads": 1, "rms_norm_eps": 1e-5},
        GEMMA_TRAITS,
        slow=False,
    ),
    "gemma with an own head": Tiny(
        "GemmaForCausalLM",
        {**GEMMA, "tie_word_embeddings": False, "hidden_act": "gelu", "head_dim": 36, "num_hidden_layers": 2},
        GEMMA_TRAITS,
        gguf=False,
    ),
    "gemma 2": Tiny("Gemma2ForCausalLM", GEMMA2, GEMMA2_TRAITS, slow=False),
    "gemma 2 without caps": Tiny(
        "Gemma2ForCausalLM",
        {
            **GEMMA2,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "query_pre_attn_scalar": 144,
            "attention_bias": True,
        },
        {"query scale": without(query_scale=20.0), "window": NO_WINDOW},
        gguf=False,
    ),
    "gemma 3": Tiny("Gemma3ForCausalLM", {**GEMMA3, "num_hidden_layers": 6}, GEMMA3_TRAITS, slow=False),
    "gemma 3 with a scaling": Tiny(
        "Gemma3ForCausalLM",
        {
            **GEMMA3,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "head_dim": 80,
            "query_pre_attn_scalar": 80,
            "final_logit_softcapping": 4.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 2e4},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
            },
        },
        {
            **GEMMA3_TRAITS,
            "query scale": without(query_scale=10.0),
            "scaling": lambda config: replace(
                config, rope={**config.rope, "full_attention": config.rope["sliding_attention"]}
            ),
        },
    ),
}

GEMMA4 = {
    **GEMMA,
    "head_dim": 12,
    "global_head_dim": 20,
    "sliding_window": 9,
    "vocab_size_per_layer_input": 97,
    "hidden_size_per_layer_input": 10,
    "final_logit_softcapping": 4.0,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "rope_theta": 1e3, "partial_rotary_factor": 0.5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}
del GEMMA4["rope_theta"]
GEMMA4_TRAITS = {
    **GEMMA_TRAITS,
    "logit cap": without(logit_softcap=None),
    "window": lambda config: replace(config, windows=tuple(each and 100 for each in config.windows)),
    "share of pairs that rotate": lambda config: with_rope_of_full(config, share=1.0),
    "rope of full layers": lambda config: with_rope_of_full(config, theta=1e4),
}


def with_rope_of_full(config: Any, **changed: Any) -> Any:
    full = replace(config.rope["full_attention"], **changed)
    return replace(config, rope={**config.rope, "full_attention": full})


RMS_NORM_FAMILIES |= {
    "gemma 4": Tiny(
        "Gemma4ForCausalLM",
        {
            **GEMMA4,
            "num_hidden_layers": 5,
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "layer_types": ["sliding_attention"] + ["sliding_attention", "full_attention"] * 2,
        },
        {**GEMMA4_TRAITS, "embeddings of the layers": without(layer_width=0)},
        slow=False,
    ),
    "gemma 4 with experts, keys as values": Tiny(
        "Gemma4ForCausalLM",
        {
            **GEMMA4,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "hidden_size_per_layer_input": 0,
            "enable_moe_block": True,
            "num_experts": 5,
            "top_k_experts": 2,
            "moe_intermediate_size": 20,
        },
        {
            **GEMMA4_TRAITS,
            "experts": without(experts=0),
            "second expert": without(experts_per_token=1),
        },
        routed=True,
    ),
    "gemma 4 unified": Tiny(
        "Gemma4UnifiedForCausalLM",
        {
            **{key: value for key, value in GEMMA4.items() if "per_layer_input" not in key},
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 1,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
        },
        GEMMA4_TRAITS,
    ),
    "gemma 4 with biases and its own head": Tiny(
        "Gemma4ForCausalLM",
        {**GEMMA4, "attention_bias": True, "tie_word_embeddings": False},
        {**GEMMA4_TRAITS, "biases": without(attention_bias=False)},
    ),
}

PHI3 = {**SIZES, "pad_token_id": 0}


def longrope(pairs: int, original: int, **settings: Any) -> dict[str, Any]:
    """Returns settings with different divisors for texts up to `original` tokens and for longer ones."""
    scaling = {
        "type": "longrope",
        "short_factor": [1 + 0.1 * pair for pair in range(pairs)],
        "long_factor": [1.5 + 0.7 * pair for pair in range(pairs)],
    }
    return {**PHI3, "original_max_position_embeddings": original, "rope_scaling": {**scaling, **settings}}


def swapped_sets(config: Any) -> Any:
    rope = replace(config.rope, short=config.rope.long, long=config.rope.short)
    return replace(config, rope=rope)


LONGROPE_TRAITS = {
    "set of factors": swapped_sets,
    "magnitude": lambda config: replace(config, rope=replace(config.rope, magnitudes=(1.0, 1.0))),
}
RMS_NORM_FAMILIES |= {
    "phi 3": Tiny(
        "Phi3ForCausalLM",
        {**PHI3, "sliding_window": 9, "hidden_size": 80, "num_attention_heads": 4},
        {"window": NO_WINDOW},
        slow=False,
    ),
    "phi 3, short texts": Tiny("Phi3ForCausalLM", longrope(6, 64), LONGROPE_TRAITS),
    "phi 3, long texts": Tiny(
        "Phi3ForCausalLM",
        {**longrope(3, 8), "partial_rotary_factor": 0.5, "tie_word_embeddings": True},
        {**LONGROPE_TRAITS, "partial rotation": lambda config: replace(config, rope=Rope(), rotated_size=12)},
        slow=False,
    ),
}

YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 8,
    "beta_fast": 8.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.6,
}
MINISTRAL3 = {**SIZES, "rope_parameters": YARN, "head_dim": 20}
RMS_NORM_FAMILIES |= {
    "ministral 3": Tiny(
        "Ministral3ForCausalLM",
        MINISTRAL3,
        {
            "growth of queries": without(growth=None),
            "growth of position + 1": lambda config: replace(config, growth=config.growth._replace(offset=1)),
            "yarn": without(rope=Rope()),
        },
        slow=False,
    ),
    "ministral 3 with windows": Tiny(
        "Ministral3ForCausalLM",
        {**MINISTRAL3, "sliding_window": 9, "num_key_value_heads": 1, "tie_word_embeddings": True},
        {"window": NO_WINDOW, "growth of queries": without(growth=None)},
        gguf=False,
    ),
    "ernie 4.5": Tiny("Ernie4_5ForCausalLM", {**SIZES, "head_dim": 20}, slow=False),
    "ernie 4.5 with biases": Tiny(
        "Ernie4_5ForCausalLM",
        {**SIZES, "use_bias": True, "tie_word_embeddings": False, "num_key_value_heads": 1, "head_dim": 36},
        {
            "biases of attention": without(attention_bias=False),
            "bias of its output": without(out_bias=False),
            "biases of the MLP": without(mlp_bias=False),
        },
    ),
    "seed-oss": Tiny(
        "SeedOssForCausalLM",
        {**SIZES, "head_dim": 16},
        {"biases": without(attention_bias=False)},
    ),
    "seed-oss with all biases": Tiny(
        "SeedOssForCausalLM",
        {**SIZES, "head_dim": 12, "attention_out_bias": True, "mlp_bias": True},
        {"bias of the output": without(out_bias=False), "biases of the MLP": without(mlp_bias=False)},
    ),
}

BY_KIND = {
    "full_attention": {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
RMS_NORM_FAMILIES |= {
    "olmo 2": Tiny(
        "Olmo2ForCausalLM",
        SIZES,
        {"norms after": without(norms="before"), "norms of heads": NO_HEAD_NORMS},
        slow=False,
    ),
    "olmo 2, biases, one key head": Tiny(
        "Olmo2ForCausalLM",
        {**SIZES, "attention_bias": True, "num_key_value_heads": 1, "tie_word_embeddings": True},
        {"norms of heads": NO_HEAD_NORMS, "biases": without(attention_bias=False)},
    ),
    "olmo 3": Tiny(
        "Olmo3ForCausalLM",
        {**SIZES, "num_hidden_layers": 4, "sliding_window": 9, "rope_parameters": BY_KIND},
        {
            "window": NO_WINDOW,
            "yarn on full layers only": lambda config: replace(config, rope=config.rope["full_attention"]),
            "yarn": lambda config: replace(config, rope=config.rope["sliding_attention"]),
        },
    ),
    "exaone 4": Tiny(
        "Exaone4ForCausalLM",
        {**SIZES, "num_hidden_layers": 4, "sliding_window": 9, "layer_types": None},
        {
            "window": NO_WINDOW,
            "norms after": without(norms="before"),
            "norms of heads": NO_HEAD_NORMS,
            "layer that does not rotate": without(rotated=()),
        },
    ),
    "exaone 4 without windows": Tiny(
        "Exaone4ForCausalLM",
        {
            **SIZES,
            "sliding_window": None,
            "sliding_window_pattern": 0,
            "layer_types": ["full_attention"] * 3,
            "tie_word_embeddings": True,
        },
    ),
    "glm 4": Tiny(
        "GlmForCausalLM",
        {**SIZES, "head_dim": 20},
        {
            "biases": without(attention_bias=False),
            "partial rotation": lambda config: replace(config, rotated_size=20),
        },
    ),
    "glm 4 of april 2025": Tiny(
        "Glm4ForCausalLM",
        {**SIZES, "head_dim": 36, "num_key_value_heads": 1, "partial_rotary_factor": 0.5},
        {
            "biases": without(attention_bias=False),
            "norms after": without(norms="before"),
            "partial rotation": lambda config: replace(config, rotated_size=36),
        },
    ),
}

RMS_NORM_FAMILIES |= {
    "granite": Tiny(
        "GraniteForCausalLM",
        {
            **SIZES,
            "embedding_multiplier": 6.0,
            "attention_multiplier": 0.5,
            "residual_multiplier": 0.4,
            "logits_scaling": 3.0,
        },
        {
            "embedding scale": without(embedding_scale=1.0),
            "score scale": without(score_scale=12**-0.5),
            "residual scale": without(residual_scale=1.0),
            "logit divisor": without(logit_divisor=1.0),
        },
        slow=False,
    ),
    "granite with defaults and biases": Tiny(
        "GraniteForCausalLM",
        {
            **SIZES,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "rms_norm_eps": 1e-2,
            "num_hidden_layers": 1,
        },
        {"score scale": without(score_scale=12**-0.5)},
    ),
}

RMS_NORM_FAMILIES |= {
    "olmo": Tiny("OlmoForCausalLM", SIZES),
    "olmo with clipped queries, keys and values": Tiny(
        "OlmoForCausalLM",
        {**SIZES, "clip_qkv": 0.8, "tie_word_embeddings": True},
        {"clip": without(clip=None)},
    ),
}
