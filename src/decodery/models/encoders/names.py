"""Makes the rules for the names of encoders' tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decodery.models.contract import Names
from decodery.weights.names import Rule, merge, rename

Modules = Mapping[str, str | tuple[str, ...]]
"""The stored names of modules by ours, without ".weight" and ".bias"; several names are the rows of one."""
KINDS = {"weight": ("weight", "gamma"), "bias": ("bias", "beta")}
"""The names of parameters; the second ones are those of norms that were converted from TensorFlow."""


def module_rules(modules: Modules, prefixes: Sequence[str] = ("",)) -> tuple[Rule, ...]:
    """Returns rules for the weights and biases of modules whose stored names begin with one of the prefixes.

    The first prefix is the one that is written. Rules for parameters that a module lacks do no harm.
    """
    found = []
    for prefix in prefixes:
        for ours, stored in modules.items():
            names = (stored,) if isinstance(stored, str) else stored
            for kind, spellings in KINDS.items():
                for spelling in spellings if "norm" in ours.rpartition(".")[2] else spellings[:1]:
                    found.append(merge(f"{ours}.{kind}", [f"{prefix}{name}.{spelling}" for name in names]))
    return tuple(found)


def encoder_names(
    prefix: str,
    backbone: Modules,
    heads: Modules,
    *,
    masked_bias: str | None = None,
    ignored: Sequence[str],
    tied: bool,
    further: Sequence[Rule] = (),
) -> Names:
    """Returns the names of an encoder whose backbone has a prefix, which a model without heads may leave out.

    `masked_bias` is a second name of the bias of the head of masked tokens, besides that of its matrix, which
    counts where both are stored. `tied`: that matrix is the embedding.
    """
    matrix = heads["heads.masked_lm.out"]
    assert isinstance(matrix, str)
    biases = dict.fromkeys((f"{matrix}.bias", masked_bias or f"{matrix}.bias"))
    return Names(
        rules=(
            *module_rules(backbone, (prefix, "")),
            *module_rules(heads),
            *(rename("heads.masked_lm.bias", name) for name in biases),
            *further,
        ),
        ignored=(*ignored, f"{matrix}.weight"),
        delicate=("*embeddings.*", f"{matrix}.weight"),
        tied=((f"{prefix}{backbone['embedding']}.weight", f"{matrix}.weight"),) if tied else (),
    )


def gguf_encoder_names(*backbones: Modules) -> Names:
    """Returns the names in a GGUF file, which may have one of several spellings."""
    return Names(
        rules=tuple(rule for backbone in backbones for rule in module_rules(backbone)),
        delicate=("token_embd.weight", "position_embd.weight", "token_types.weight"),
    )
