"""Lists tiny models of all encoder families, each with what distinguishes its family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decodery.models.contract import Head
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
    must differ. `slow` keeps the model out of the default tests.
    """

    start: str
    settings: Mapping[str, Any]
    traits: Mapping[str, Without] = field(default_factory=dict)
    heads: tuple[Head, ...] = USUAL
    names: Mapping[Head, str] = field(default_factory=dict)
    segments: int = 1
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


def write_folder(tiny: Tiny, folder: Path, head: Head = "states", seed: int = 0) -> Path:
    """Writes the hub folder of a tiny model with random weights and a head, as transformers saves it."""
    import transformers

    architecture = getattr(transformers, tiny.architecture(head))
    labels = 3 if head in ("classes", "token_classes") else 2
    model = architecture(architecture.config_class(**{"num_labels": labels, **tiny.settings}))
    randomise(model, seed)
    model.save_pretrained(folder)
    return folder
