"""Defines Llama with mixtures of experts instead of MLPs, and the settings and names of experts.

Shazeer et al., Outrageously Large Neural Networks (2017); Fedus et al., Switch Transformers (2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from decodery.errors import ModelError
from decodery.kernels.contract import GatedActivation, Kernels
from decodery.kernels.routing import Routing
from decodery.models.config_reader import (
    COUNT,
    FLAG,
    NO_KEY,
    REQUIRED,
    Check,
    Field,
    Setting,
    Source,
    rows_in_layers,
    value_of,
)
from decodery.models.decoders.llama import Llama, LlamaConfig
from decodery.models.layers.experts import Experts, GatedExpert, MoE
from decodery.models.layers.mlp import GatedMLP
from decodery.weights.names import Rule, merge, only_expert, rename, stack
from decodery.weights.transforms import Transform


@dataclass(frozen=True, kw_only=True)
class MoEConfig(LlamaConfig):
    """Holds the sizes and values of a Llama with mixtures of experts.

    `sparse` has a flag for each layer, () if all have experts; the others have an MLP of `mlp_width`.
    `shared_width` is that of the MLP that all tokens share, 0 for none. With `shared_gated` it is multiplied
    by the logistic function of a score of each token. With `weigh` "input" a weight multiplies an expert's
    input instead of its output.
    """

    experts: int
    experts_per_token: int
    expert_width: int
    renormalised: bool = True
    probability: Literal["softmax", "sigmoid"] = "softmax"
    factor: float = 1.0
    groups: int = 1
    kept_groups: int = 1
    best_of_group: int = 1
    within: float | None = None
    corrected: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    expert_activation: GatedActivation = "silu"
    weigh: Literal["output", "input"] = "output"
    shared_width: int = 0
    shared_gated: bool = False
    sparse: tuple[bool, ...] = ()

    @property
    def routing(self) -> Routing:
        return Routing(
            self.experts_per_token,
            self.probability,
            self.renormalised,
            self.factor,
            self.groups,
            self.kept_groups,
            self.best_of_group,
            self.within,
        )


class MoELlama(Llama):
    """Defines a Llama with mixtures of experts over the given kernels; its parameters are not initialised."""

    config: MoEConfig

    def mlp(self, config: LlamaConfig, layer: int, kernels: Kernels) -> nn.Module:
        assert isinstance(config, MoEConfig)
        if config.sparse and not config.sparse[layer]:
            return super().mlp(config, layer, kernels)
        experts = Experts(
            config.experts,
            config.experts_per_token,
            config.width,
            config.expert_width,
            kernels,
            bias=config.expert_bias,
            activation=config.expert_activation,
            weigh=config.weigh,
        )
        return MoE(
            experts,
            config.routing,
            config.width,
            kernels,
            router_bias=config.router_bias,
            corrected=config.corrected,
            shared=_shared(config, kernels),
        )


def _shared(config: MoEConfig, kernels: Kernels) -> nn.Module | None:
    if not config.shared_width:
        return None
    kind: Callable[..., nn.Module] = GatedExpert if config.shared_gated else GatedMLP
    return kind(config.width, config.shared_width, kernels)


def at_most(field: str) -> Check:
    """Returns the check that a value is at most that of another field."""

    def check(source: Source, name: str) -> None:
        if source[name] > source[field]:
            raise source.error(name, f"at most {source.key_of(field)} ({source[field]})")

    return check


def expert_fields(
    experts: str | tuple[str, ...],
    default: int,
    per_token: int,
    width: str | None = "moe_intermediate_size",
    width_default: Any = REQUIRED,
) -> Mapping[str, Field]:
    """Returns the settings of the experts' number and sizes.

    `experts` and `width` are keys of a config.json; without `width`, experts have the width of MLPs.
    `default`, `per_token` and `width_default` are the numbers of a config.json that lacks the keys.
    """
    same = Setting(NO_KEY, default=value_of("mlp_width"))
    own = Setting(
        COUNT,
        width or (),
        "expert_feed_forward_length",
        default=width_default,
        gguf_default=rows_in_layers("blk.{i}.ffn_gate_exps.weight"),
    )
    return {
        "experts": Setting(COUNT, experts, "expert_count", default=default, gguf_default=REQUIRED),
        "experts_per_token": Setting(
            COUNT,
            "num_experts_per_tok",
            "expert_used_count",
            default=per_token,
            gguf_default=REQUIRED,
            checks=(at_most("experts"),),
        ),
        "expert_width": own if width else same,
    }


@dataclass(frozen=True)
class HubOnly(Setting):
    """Says that a field is a key of config.json, and has the value `gguf_default` in all GGUF files."""

    def write(self, value: Any, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf and value != self.gguf_default:
            raise ModelError(f"a GGUF file of this family cannot express another {self.keys(False)[0]}")
        return super().write(value, config, gguf=gguf)


def renormalised(default: bool, *, gguf: bool) -> Setting:
    """Returns the setting with the default of a config.json, and the value in all GGUF files."""
    return HubOnly(FLAG, "norm_topk_prob", default=default, gguf_default=gguf)


EXPERT_MATRICES = (("experts",), ("experts", "expert_width"))
"""The rows of further matrices that have `width` columns."""


@dataclass(frozen=True)
class SparseField(Field):
    """Says which layers have experts; the value has a flag for each layer, () if all do.

    In a config.json, every `decoder_sparse_step`-th layer has, if `mlp_only_layers` does not list it. A GGUF
    file has the tensor of a router for each of them.
    """

    def keys(self, gguf: bool) -> Sequence[str]:
        return () if gguf else ("decoder_sparse_step", "mlp_only_layers")

    def read(self, source: Source, name: str) -> tuple[bool, ...]:
        layers = range(source["layers"])
        if source.is_gguf:
            found = tuple(source.has_tensor(f"blk.{i}.ffn_gate_inp.weight") for i in layers)
        else:
            step, plain = source.keys.count("decoder_sparse_step", 1), _plain_layers(source)
            found = tuple((i + 1) % step == 0 and i not in plain for i in layers)
        if not any(found):
            raise ModelError(f"{source.keys.source}: no layer has experts")
        return () if all(found) else found

    def write(self, value: tuple[bool, ...], config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf:
            return {}
        plain = [i for i, sparse in enumerate(value) if not sparse]
        return {"decoder_sparse_step": 1, "mlp_only_layers": plain}


def _plain_layers(source: Source) -> Sequence[int]:
    found = source.keys.values.get("mlp_only_layers") or []
    layers = source["layers"]
    if not isinstance(found, list) or any(type(i) is not int or not 0 <= i < layers for i in found):
        raise source.keys.error("mlp_only_layers", f"a list of layers from 0 to {layers - 1}")
    return found


@dataclass(frozen=True)
class ExpertSpelling:
    """Holds the stored names of a mixture of experts, after the prefix of a layer.

    `router` is without ".weight". `gate_up` are two tensors, or one that has both; `{e}` in a name stands for
    the expert. `shared` are gate, up and down, or one that has gate and up, and down, without ".weight".
    `transforms` are those of one expert's `gate_up` and `down`, `score` that of `shared_gate`, and `choice`
    that of `correction`.
    """

    router: str
    gate_up: tuple[str, ...]
    down: str
    shared: tuple[str, ...] | None = None
    shared_gate: str = ""
    correction: str = ""
    transforms: tuple[Transform | None, Transform | None] = (None, None)
    score: Transform | None = None
    choice: Transform | None = None


# A score's weight, [1, width] in ours, may be stored as [width].
ROW = Transform(lambda stored: stored.reshape(1, -1), lambda ours: ours.flatten())

GGUF_EXPERTS = ExpertSpelling(
    "ffn_gate_inp",
    ("ffn_gate_exps.weight", "ffn_up_exps.weight"),
    "ffn_down_exps.weight",
    ("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
    "ffn_gate_inp_shexp",
    "exp_probs_b.bias",
    score=ROW,
)
GGUF_EXPERTS_APART = ExpertSpelling(
    "ffn_gate_inp", ("ffn_gate.{e}.weight", "ffn_up.{e}.weight"), "ffn_down.{e}.weight"
)
"""Files of before 2024-04 have a tensor for each expert."""
HUB_EXPERTS = ExpertSpelling(
    "mlp.gate",
    ("mlp.experts.{e}.gate_proj.weight", "mlp.experts.{e}.up_proj.weight"),
    "mlp.experts.{e}.down_proj.weight",
)
HUB_STACKS = ExpertSpelling("mlp.gate", ("mlp.experts.gate_up_proj",), "mlp.experts.down_proj")
"""The stacks that transformers 5 has in memory, and saves if asked to."""


def expert_rules(layer: str, config: MoEConfig, spellings: Sequence[ExpertSpelling]) -> list[Rule]:
    """Returns the rules of the mixtures of experts; `layer` is the prefix of a layer in the stored names.

    The first spelling is the one that is written.
    """
    rules: list[Rule] = []
    for names in spellings:
        gate_up = [layer + name for name in names.gate_up]
        transforms = [names.transforms[0]] * len(gate_up), [names.transforms[1]]
        rules += [
            rename("layers.{i}.mlp.router.weight", f"{layer}{names.router}.weight"),
            rename("layers.{i}.mlp.router.bias", f"{layer}{names.router}.bias"),
            stack("layers.{i}.mlp.experts.gate_up.weight", gate_up, config.experts, transforms[0]),
            stack("layers.{i}.mlp.experts.down.weight", [layer + names.down], config.experts, transforms[1]),
        ]
        if names.correction:
            rules.append(rename("layers.{i}.mlp.correction", layer + names.correction, names.choice))
        if names.shared:
            rules += _shared_rules(layer, names)
    return rules


def _shared_rules(layer: str, names: ExpertSpelling) -> list[Rule]:
    assert names.shared is not None
    *gate_up, down = (f"{layer}{name}.weight" for name in names.shared)
    if not names.shared_gate:
        return [
            merge("layers.{i}.mlp.shared.gate_up.weight", gate_up),
            rename("layers.{i}.mlp.shared.down.weight", down),
        ]
    return [
        only_expert("layers.{i}.mlp.shared.expert.gate_up.weight", gate_up),
        only_expert("layers.{i}.mlp.shared.expert.down.weight", [down]),
        rename("layers.{i}.mlp.shared.gate.weight", f"{layer}{names.shared_gate}.weight", names.score),
    ]


def exact_tensors(layer: str, spellings: Sequence[ExpertSpelling]) -> tuple[str, ...]:
    """Returns the patterns of the routers' tensors, whose rounding would change which experts are chosen."""
    every = layer.replace("{i}", "*")
    found = [name for names in spellings for name in (names.router, names.shared_gate) if name]
    return tuple(f"{every}{name}.weight" for name in dict.fromkeys(found))
