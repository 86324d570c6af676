"""Lists tiny encoders that know positions by distances: ModernBERT, DeBERTa and XLNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from decodery.models.layers.rope import Rope
from tests.models.decoders.families import without
from tests.models.encoders.families import SIZES, USUAL, Tiny

# Heads of 12 are rotated; the special tokens lie inside the small vocabulary.
MODERN = {
    **SIZES,
    "num_hidden_layers": 4,
    "local_attention": 8,
    **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
}
# Queries and keys of a state that no norm bounds: with the usual matrices, attention is so sharp that float32
# itself errs by more than 1e-5.
MODERN_GAINS = {"Wqkv": 0.6}
TWO_ROPES = {"full_attention": Rope(160000.0), "sliding_attention": Rope(10000.0)}
LARGER_WINDOW = without(windows=(None, 9, 9, None))

BOTH = {**SIZES, "relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False}
NO_QUERIES, NO_KEYS = without(position_scores=("c2p",)), without(position_scores=("p2c",))
DISTANCES = {
    "queries of distances": NO_QUERIES,
    "keys of distances": NO_KEYS,
    "distances": without(relative=False),
}
NO_CHOICES = tuple(head for head in USUAL if head != "choices")

XLNET = {
    "vocab_size": 97,
    "d_model": 60,
    "n_layer": 3,
    "n_head": 5,
    "d_inner": 75,
    "mem_len": 20,
    "use_mems_eval": False,
}
XLNET_NAMES: Mapping[Any, str] = {
    "masked_lm": "XLNetLMHeadModel",
    "spans": "XLNetForQuestionAnsweringSimple",
}

RELATIVE_FAMILIES: dict[str, Tiny] = {
    "modernbert": Tiny(
        "ModernBert",
        MODERN,
        {
            "window": without(windows=()),
            "half of the window": LARGER_WINDOW,
            "layers that see all": without(windows=(5, 5, 5, 5)),
            "base of layers with a window": without(ropes={**TWO_ROPES, "sliding_attention": Rope(160000.0)}),
            "base of the others": without(ropes={**TWO_ROPES, "full_attention": Rope(10000.0)}),
        },
        gains=MODERN_GAINS,
        slow=False,
    ),
    "modernbert with biases, means": Tiny(
        "ModernBert",
        {
            **MODERN,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 3000.0},
                "sliding_attention": {"rope_type": "linear", "rope_theta": 70.0, "factor": 2.0},
            },
            **{f"{part}_bias": True for part in ("norm", "mlp", "attention", "classifier")},
            "decoder_bias": False,
            "tie_word_embeddings": False,
            "classifier_pooling": "mean",
            "classifier_activation": "relu",
            "hidden_activation": "silu",
        },
        {
            "biases of attention": without(attention_bias=False),
            "biases of the MLP": without(mlp_bias=False),
            "biases of norms": without(norm_bias=False),
            "activation": without(activation="gelu"),
        },
        gains=MODERN_GAINS,
    ),
    "deberta": Tiny(
        "Deberta",
        BOTH,
        DISTANCES,
        heads=NO_CHOICES,
        slow=False,
    ),
    "deberta with positions, segments, narrow embeddings": Tiny(
        "Deberta",
        {
            **BOTH,
            "position_biased_input": True,
            "type_vocab_size": 3,
            "embedding_size": 36,
            "max_relative_positions": 7,
            "pos_att_type": ["p2c"],
            "pooler_hidden_act": "tanh",
        },
        {"positions": without(positions=0), "segments": without(segments=0)},
        heads=("states", "masked_lm", "classes"),
        segments=3,
    ),
    "deberta without distances": Tiny(
        "Deberta",
        {**SIZES, "pos_att_type": ["c2p"], "legacy": False},
        {"scale of the missing parts": without(position_scores=())},
        heads=("states", "masked_lm"),
    ),
    "deberta-v3": Tiny(
        "DebertaV2",
        {
            **BOTH,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "legacy": False,
        },
        {
            **DISTANCES,
            "buckets": without(buckets=0, reach=8),
            "normalised distances": without(norm_distances=False),
        },
        slow=False,
    ),
    "deberta-v2 with a convolution, maps of distances": Tiny(
        "DebertaV2",
        {
            **BOTH,
            "position_buckets": 7,
            "max_relative_positions": 30,
            "conv_kernel_size": 5,
            "conv_groups": 3,
            "conv_act": "gelu",
            "embedding_size": 36,
        },
        {**DISTANCES, "convolution": without(kernel_size=0)},
    ),
    "deberta-v2 with another convolution": Tiny(
        "DebertaV2",
        {**BOTH, "conv_kernel_size": 3, "position_biased_input": True, "tie_word_embeddings": False},
        {"activation of the convolution": without(kernel_activation="gelu")},
        heads=("states", "masked_lm"),
    ),
    "xlnet": Tiny(
        "XLNet",
        XLNET,
        {"farthest distance": without(farthest=3), "direction": without(causal=True)},
        names=XLNET_NAMES,
        segments=3,
        last=True,
        slow=False,
    ),
    "xlnet with a farthest distance, first token": Tiny(
        "XLNet",
        {
            **XLNET,
            "clamp_len": 9,
            "ff_activation": "relu",
            "summary_type": "first",
            "summary_activation": "linear",
            "tie_word_embeddings": False,
        },
        {"farthest distance": without(farthest=None), "activation": without(activation="gelu")},
        names=XLNET_NAMES,
        segments=2,
    ),
}
