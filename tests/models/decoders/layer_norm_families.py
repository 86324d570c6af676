"""Lists tiny models of the decoder families that have LayerNorm."""

from __future__ import annotations

from typing import Any

from tests.models.decoders.families import Tiny, without

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
GPT2_SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": None,
    "eos_token_id": None,
}
OPT_SIZES: dict[str, Any] = {**SIZES, "ffn_dim": 80, "max_position_embeddings": 64}
BLOOM_SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "n_layer": 3,
    "n_head": 4,
    "seq_length": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}
MPT_SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "d_model": 48,
    "n_layers": 3,
    "n_heads": 4,
    "max_seq_len": 64,
}
FALCON_SIZES: dict[str, Any] = {
    **{key: value for key, value in SIZES.items() if key != "intermediate_size"},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
}

LAYER_NORM_FAMILIES: dict[str, Tiny] = {
    "gpt2": Tiny(
        "GPT2LMHeadModel",
        {**GPT2_SIZES, "n_head": 3},
        {"scale": without(scaled=False), "gelu": without(activation="relu")},
        slow=False,
    ),
    "gpt2 with heads of 20 and its own head": Tiny(
        "GPT2LMHeadModel",
        {**GPT2_SIZES, "n_embd": 60, "n_head": 3, "n_inner": 72, "tie_word_embeddings": False},
    ),
    "gpt2 with odd heads, scaled by layer": Tiny(
        "GPT2LMHeadModel",
        {**GPT2_SIZES, "n_embd": 45, "n_head": 5, "scale_attn_by_inverse_layer_idx": True},
        {"scale by layer": without(scaled_by_layer=False)},
        gguf=False,
    ),
    "gpt2 unscaled, with relu": Tiny(
        "GPT2LMHeadModel",
        {**GPT2_SIZES, "scale_attn_weights": False, "activation_function": "relu"},
        {"no scale": without(scaled=True), "relu": without(activation="gelu_tanh")},
        gguf=False,
    ),
    "gpt_neox": Tiny(
        "GPTNeoXForCausalLM",
        {**SIZES, "hidden_size": 96, "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}},
        {
            "parallel": without(parallel=False),
            "part of a head": without(rotated=24),
            "biases": without(attention_bias=False),
            "gelu": without(activation="relu"),
        },
        slow=False,
    ),
    "gpt_neox sequential, tied, with heads of 80": Tiny(
        "GPTNeoXForCausalLM",
        {
            **SIZES,
            "hidden_size": 160,
            "num_attention_heads": 2,
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
            "rotary_pct": 0.4,
            "rotary_emb_base": 500,
        },
        {"sequential": without(parallel=True)},
    ),
    "gpt_neox without biases": Tiny(
        "GPTNeoXForCausalLM",
        {**SIZES, "attention_bias": False, "rotary_pct": 1.0, "hidden_act": "gelu_new"},
        gguf=False,
    ),
    "gptj": Tiny(
        "GPTJForCausalLM",
        {**GPT2_SIZES, "n_embd": 72, "n_head": 2, "rotary_dim": 12},
        {"part of a head": without(rotated=36)},
        gguf=False,
    ),
    "gptj, tied, all of a head rotated": Tiny(
        "GPTJForCausalLM",
        {**GPT2_SIZES, "rotary_dim": 12, "n_inner": 80, "tie_word_embeddings": True},
        gguf=False,
    ),
    "gpt_neo": Tiny(
        "GPTNeoForCausalLM",
        {
            **SIZES,
            "num_hidden_layers": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 7,
        },
        {"window": without(windows=()), "no scale": without(scaled=True)},
        gguf=False,
    ),
    "gpt_neo, its own head, other types": Tiny(
        "GPTNeoForCausalLM",
        {
            **SIZES,
            "hidden_size": 60,
            "num_attention_heads": 5,
            "attention_types": [[["local"], 2], [["global"], 1]],
            "window_size": 16,
            "intermediate_size": None,
            "tie_word_embeddings": False,
        },
        {"window": without(windows=())},
        gguf=False,
    ),
    "gpt1": Tiny("OpenAIGPTLMHeadModel", GPT2_SIZES, gguf=False),
    "gpt1 with relu, heads of 20": Tiny(
        "OpenAIGPTLMHeadModel",
        {**GPT2_SIZES, "n_embd": 40, "n_head": 2, "afn": "relu", "tie_word_embeddings": False},
        {"relu": without(activation="silu")},
        gguf=False,
    ),
    "stablelm": Tiny(
        "StableLmForCausalLM",
        {**SIZES, "hidden_size": 96, "num_key_value_heads": 1, "use_qkv_bias": True},
        {"biases": without(qkv_bias=False), "part of a head": without(rotated=24)},
    ),
    "stablelm 12b": Tiny(
        "StableLmForCausalLM",
        {
            **SIZES,
            "hidden_size": 80,
            "num_key_value_heads": 2,
            "use_parallel_residual": True,
            "qk_layernorm": True,
            "partial_rotary_factor": 0.4,
            "tie_word_embeddings": True,
        },
        {"head norms": without(head_norms=False)},
        slow=False,
    ),
    "phi": Tiny(
        "PhiForCausalLM",
        {**SIZES, "hidden_size": 80},
        {"part of a head": without(rotated=20)},
    ),
    "phi with head norms, tied": Tiny(
        "PhiForCausalLM",
        {
            **SIZES,
            "num_key_value_heads": 2,
            "qk_layernorm": True,
            "tie_word_embeddings": True,
            "hidden_act": "relu",
            "partial_rotary_factor": 1.0,
        },
        {"head norms": without(head_norms=False)},
        gguf=False,
    ),
    "gpt_bigcode": Tiny(
        "GPTBigCodeForCausalLM", {**GPT2_SIZES, "n_embd": 60, "n_head": 3}, {"scale": without(scaled=False)}
    ),
    "gpt_bigcode with as many key heads as heads": Tiny(
        "GPTBigCodeForCausalLM", {**GPT2_SIZES, "multi_query": False, "tie_word_embeddings": False}
    ),
    "starcoder2": Tiny(
        "Starcoder2ForCausalLM",
        {**SIZES, "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        {"biases": without(bias=False)},
    ),
    "starcoder2 with a window and without biases": Tiny(
        "Starcoder2ForCausalLM",
        {
            **SIZES,
            "num_key_value_heads": 1,
            "sliding_window": 7,
            "use_bias": False,
            "tie_word_embeddings": False,
        },
        {"window": without(windows=())},
        gguf=False,
    ),
    "opt": Tiny(
        "OPTForCausalLM",
        OPT_SIZES,
        {"relu": without(activation="gelu"), "biases": without(attention_bias=False)},
        gguf=False,
    ),
    "opt 350m": Tiny(
        "OPTForCausalLM",
        {**OPT_SIZES, "hidden_size": 80, "word_embed_proj_dim": 40, "do_layer_norm_before": False},
        {"post-norm": without(pre_norm=True, norm_removed=True)},
        gguf=False,
    ),
    "opt without biases and last norm": Tiny(
        "OPTForCausalLM",
        {
            **OPT_SIZES,
            "word_embed_proj_dim": 64,
            "_remove_final_layer_norm": True,
            "enable_bias": False,
            "tie_word_embeddings": False,
        },
        gguf=False,
    ),
    "bloom": Tiny(
        "BloomForCausalLM",
        {**BLOOM_SIZES, "n_head": 6},
        {"place of the residual": without(normed_residual=True)},
        slow=False,
    ),
    "bloom with a normed residual and its own head": Tiny(
        "BloomForCausalLM",
        {
            **BLOOM_SIZES,
            "hidden_size": 80,
            "apply_residual_connection_post_layernorm": True,
            "tie_word_embeddings": False,
        },
        {"place of the residual": without(normed_residual=False)},
        gguf=False,
    ),
    "mpt": Tiny("MptForCausalLM", MPT_SIZES, {"slopes": without(alibi=2.0)}),
    "mpt that clips": Tiny(
        "MptForCausalLM",
        {**MPT_SIZES, "d_model": 80, "attn_config": {"clip_qkv": 1.5}},
        {"clip": without(clip=None)},
    ),
    "mpt with six heads and a scale": Tiny(
        "MptForCausalLM",
        {**MPT_SIZES, "n_heads": 6, "attn_config": {"softmax_scale": 0.5}, "tie_word_embeddings": False},
        {"scale": without(scale=None)},
        gguf=False,
    ),
    "falcon 7b": Tiny(
        "FalconForCausalLM",
        {**FALCON_SIZES, "hidden_size": 80},
        {"gelu": without(activation="relu")},
    ),
    "falcon 40b": Tiny(
        "FalconForCausalLM",
        {
            **FALCON_SIZES,
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "ffn_hidden_size": 80,
            "tie_word_embeddings": False,
        },
        {"second norm": without(norms=1)},
    ),
    "falcon 11b": Tiny(
        "FalconForCausalLM",
        {
            **FALCON_SIZES,
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "num_ln_in_parallel_attn": 1,
        },
    ),
    "falcon rw": Tiny(
        "FalconForCausalLM",
        {
            **FALCON_SIZES,
            "num_attention_heads": 6,
            "alibi": True,
            "multi_query": False,
            "parallel_attn": False,
            "bias": True,
        },
        {
            "alibi": without(alibi=False),
            "biases": without(bias=False),
            "sequential": without(parallel=True),
        },
        gguf=False,
    ),
    "cohere": Tiny(
        "CohereForCausalLM",
        {**SIZES, "num_key_value_heads": 2, "logit_scale": 0.5},
        {"scale": without(logit_scale=0.3)},
    ),
    "cohere with head norms and biases": Tiny(
        "CohereForCausalLM",
        {
            **SIZES,
            "hidden_size": 80,
            "num_key_value_heads": 1,
            "use_qk_norm": True,
            "attention_bias": True,
            "logit_scale": 1.0,
        },
        {"head norms": without(head_norms=False), "biases": without(attention_bias=False)},
    ),
    "cohere with its own head": Tiny(
        "CohereForCausalLM",
        {**SIZES, "hidden_size": 80, "logit_scale": 0.5, "tie_word_embeddings": False, "rope_theta": 3e3},
        gguf=False,
    ),
    "cohere2": Tiny(
        "Cohere2ForCausalLM",
        {
            **SIZES,
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "logit_scale": 0.5,
            "sliding_window": 7,
        },
        {"window": without(windows=(512,) * 4), "full layer": without(windows=(7,) * 4)},
    ),
    "cohere2 with other layers and biases": Tiny(
        "Cohere2ForCausalLM",
        {
            **SIZES,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "attention_bias": True,
            "logit_scale": 1.0,
            "sliding_window": 16,
        },
        {"windows": without(windows=())},
    ),
}
