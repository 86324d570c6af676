"""Lists tiny models of all encoder families, each with what distinguishes its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from decodery.models.contract import Head
from decodery.models.layers.rope import Rope
from tests.models.decoders.families import Without, randomise, without

CLASSES: Mapping[Head, str] = {
    "states": "Model",
    "masked_lm": "ForMaskedLM",
    "next_sentence": "ForNextSentencePrediction",
    "pretraining": "ForPreTraining",
    "classes": "ForSequenceClassification",
    "token_classes": "ForTokenClassification",
    "spans": "ForQuestionAnswering",
    "choices": "ForMultipleChoice",
}
"""The ends of the names of transformers' classes."""
USUAL: tuple[Head, ...] = ("states", "masked_lm", "classes", "token_classes", "spans", "choices")
"""The heads that most families have in transformers."""


@dataclass(frozen=True)
class Tiny:
    """Describes one tiny model: the start of its classes' names, and the settings of its config.json.

    `heads` are those that transformers has too; the first of them stands for all where one is enough. `names`
    are classes whose names end otherwise than in `CLASSES`. `segments` is the number of segments that its
    texts have. `traits` are what the family adds to others, each with the config that lacks it: its states
    must differ. So they must after each of `edits` of the model itself. `last`: classes are of the last
    token, so transformers needs padding on the left. `gains` multiply the random matrices whose names contain
    the key. `slow` keeps the model out of the default tests.
    """

    start: str
    settings: Mapping[str, Any]
    traits: Mapping[str, Without] = field(default_factory=dict)
    heads: tuple[Head, ...] = USUAL
    names: Mapping[Head, str] = field(default_factory=dict)
    segments: int = 1
    edits: Mapping[str, Callable[[Any], object]] = field(default_factory=dict)
    last: bool = False
    gains: Mapping[str, float] = field(default_factory=dict)
    slow: bool = True

    def architecture(self, head: Head) -> str:
        """Returns the name of transformers' class with a head."""
        return self.names.get(head, f"{self.start}{CLASSES.get(head, '')}")


SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 60,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "intermediate_size": 75,
    "max_position_embeddings": 43,
}

FAMILIES: dict[str, Tiny] = {
    "bert": Tiny(
        "Bert",
        {**SIZES, "type_vocab_size": 3},
        {
            "segments": without(segments=0),
            "positions": without(positions=0),
            "norms": without(norm_eps=0.3),
        },
        heads=(*USUAL, "next_sentence", "pretraining"),
        segments=3,
        slow=False,
    ),
    "bert, long texts, another activation": Tiny(
        "Bert",
        {
            **SIZES,
            "max_position_embeddings": 301,
            "hidden_act": "relu",
            "hidden_size": 51,
            "num_attention_heads": 3,
        },
        {"activation": without(activation="gelu")},
        heads=("states", "masked_lm"),
        segments=2,
    ),
}


# 43 tokens fit: the first position is that behind the padding id's.
ROBERTA = {**SIZES, "max_position_embeddings": 45, "type_vocab_size": 1, "pad_token_id": 1}
ROBERTA_TRAITS = {
    "first position": without(padding=0),
    "segment": without(segments=0),
}
ROBERTA_EDITS: dict[str, Callable[[Any], object]] = {
    "positions of padding ids": lambda model: setattr(
        model,
        "text_positions",
        lambda tokens, keep: (torch.arange(tokens.shape[-1]) + model.config.padding + 1).expand(tokens.shape),
    ),
}
FAMILIES |= {
    "roberta": Tiny(
        "Roberta", {**ROBERTA, "layer_norm_eps": 1e-5}, ROBERTA_TRAITS, edits=ROBERTA_EDITS, slow=False
    ),
    "xlm-roberta with segments and another padding id": Tiny(
        "XLMRoberta",
        {**ROBERTA, "pad_token_id": 5, "type_vocab_size": 3, "max_position_embeddings": 49},
        {
            "first position": without(padding=4),
            "segments": without(segments=0),
        },
        edits=ROBERTA_EDITS,
        segments=3,
    ),
    "camembert, a head of its own for masked tokens": Tiny(
        "Camembert",
        {**ROBERTA, "tie_word_embeddings": False, "hidden_act": "gelu_new"},
        {**ROBERTA_TRAITS, "activation": without(activation="relu")},
        edits=ROBERTA_EDITS,
    ),
    "distilbert": Tiny(
        "DistilBert",
        {
            "vocab_size": 97,
            "dim": 60,
            "n_layers": 3,
            "n_heads": 5,
            "hidden_dim": 75,
            "max_position_embeddings": 43,
        },
        {
            "positions": without(positions=0),
            "norms": without(norm_eps=0.3),
            "activation": without(activation="relu"),
        },
        slow=False,
    ),
    "distilbert, another activation": Tiny(
        "DistilBert",
        {
            "vocab_size": 97,
            "dim": 51,
            "n_layers": 2,
            "n_heads": 3,
            "hidden_dim": 75,
            "max_position_embeddings": 43,
            "activation": "relu",
            "tie_word_embeddings": False,
        },
        {"activation": without(activation="gelu")},
    ),
}

NOMIC_HEADS: tuple[Head, ...] = ("states", "masked_lm", "classes", "token_classes")
FAMILIES |= {
    "nomicbert": Tiny(
        "NomicBert",
        {**SIZES, "num_hidden_layers": 2, "type_vocab_size": 3},
        {
            "segments": without(segments=0),
            "activation": without(activation="gelu"),
            "rotary base": without(rope=Rope(10000.0)),
        },
        heads=NOMIC_HEADS,
        segments=3,
        # With the usual gain, transformers' own rounding of the attention comes near the bound.
        gains={"q_proj": 0.6},
        slow=False,
    ),
    "nomicbert, its own head, another base and activation": Tiny(
        "NomicBert",
        {
            **SIZES,
            "tie_word_embeddings": False,
            "hidden_act": "gelu",
            "hidden_size": 54,
            "num_attention_heads": 3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 70.0},
        },
        {"rotary base": without(rope=Rope(1000.0))},
        heads=NOMIC_HEADS,
        segments=2,
    ),
}

MPNET = {key: value for key, value in ROBERTA.items() if key != "type_vocab_size"}
MPNET_EDITS: dict[str, Callable[[Any], object]] = {
    "bias by distance": lambda model: model.relative_bias.zero_(),
    "bias by direction": lambda model: model.buckets.remainder_(16),
}
FAMILIES |= {
    "mpnet": Tiny(
        "MPNet",
        MPNET,
        {
            "first position": without(padding=0),
            "norms": without(norm_eps=0.3),
            "activation": without(activation="relu"),
        },
        edits={**ROBERTA_EDITS, **MPNET_EDITS},
        slow=False,
    ),
    "mpnet, long texts": Tiny(
        "MPNet",
        {**MPNET, "max_position_embeddings": 303, "hidden_size": 51, "num_attention_heads": 3},
        {"first position": without(padding=0)},
        heads=("states", "masked_lm"),
        edits={**ROBERTA_EDITS, **MPNET_EDITS},
    ),
}

PRETRAINED = (*USUAL, "pretraining")
ALBERT = {**SIZES, "type_vocab_size": 3, "embedding_size": 36}
FAMILIES |= {
    "albert": Tiny(
        "Albert",
        ALBERT,
        {
            "segments": without(segments=0),
            "activation": without(activation="relu"),
            "layers": without(layers=2),
        },
        heads=PRETRAINED,
        segments=3,
        slow=False,
    ),
    "albert, two groups of two blocks": Tiny(
        "Albert",
        {
            **ALBERT,
            "num_hidden_layers": 5,
            "num_hidden_groups": 2,
            "inner_group_num": 2,
            "hidden_act": "gelu",
        },
        # With ten blocks of the usual gain, the states of all tokens become alike.
        gains={"attention.dense": 0.4},
        edits={"second group": lambda model: model.layers.__setitem__(-1, model.layers[1])},
        heads=("states", "masked_lm", "classes"),
        segments=2,
    ),
    "albert with wide embeddings": Tiny(
        "Albert",
        {**ALBERT, "embedding_size": 60},
        {"segments": without(segments=0), "positions": without(positions=0)},
        edits={"projection": lambda model: setattr(model, "projection", None)},
        heads=("states", "masked_lm"),
        segments=3,
    ),
    "electra": Tiny(
        "Electra",
        {**ALBERT, "hidden_act": "relu"},
        {"segments": without(segments=0), "activation": without(activation="gelu")},
        heads=(*USUAL, "replaced"),
        names={"replaced": "ElectraForPreTraining"},
        segments=3,
        slow=False,
    ),
    "electra with wide embeddings": Tiny(
        "Electra",
        {**ALBERT, "embedding_size": 60},
        {"segments": without(segments=0), "positions": without(positions=0)},
        edits={
            "no projection": lambda model: setattr(model, "projection", model.layers[0].attn.out),
        },
        heads=("states", "masked_lm"),
        segments=2,
    ),
}


def write_folder(tiny: Tiny, folder: Path, head: Head = "states", seed: int = 0) -> Path:
    """Writes the hub folder of a tiny model with random weights and a head, as transformers saves it."""
    import transformers

    architecture = getattr(transformers, tiny.architecture(head))
    labels = 3 if head in ("classes", "token_classes") else 2
    model = architecture(architecture.config_class(**{"num_labels": labels, **tiny.settings}))
    randomise(model, seed)
    for name, parameter in model.named_parameters():
        if name.endswith((".rel_attn.q", ".rel_attn.k", ".rel_attn.v", ".rel_attn.r")):
            # These matrices are stored by their inputs.
            parameter.data *= (parameter.shape[-1] / parameter.shape[0]) ** 0.5
        for part, gain in tiny.gains.items():
            parameter.data *= gain if part in name and parameter.dim() > 1 else 1
    model.save_pretrained(folder)
    return folder
