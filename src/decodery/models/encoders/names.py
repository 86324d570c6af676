"""Makes the rules for the names of encoders' tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decodery.weights.names import Rule, merge

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
