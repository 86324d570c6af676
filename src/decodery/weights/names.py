"""Loads a checkpoint's tensors into a module's parameters, with rules that rename and merge them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch

from decodery.errors import CheckpointError
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.dequantise import STEP
from decodery.weights.layouts.native_layout import Packing, Transform
from decodery.weights.report import listed


@dataclass(frozen=True)
class Rule:
    """Declares the tensors of a checkpoint that make one parameter.

    `target` is the module's own name and `sources` the checkpoint's names; `{i}` in them is replaced by the
    layer's index. Each source goes through its transform (None: unchanged), and the results are concatenated
    along dimension 0. Several rules may have one target, for checkpoints that store it differently: the first
    one whose sources all exist is used. A rule whose target the module lacks is skipped, and its sources
    count as unexpected.
    """

    target: str
    sources: tuple[str, ...]
    transforms: tuple[Transform | None, ...]
    optional: bool = False

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.transforms):
            raise ValueError(
                f"rule for {self.target}: as many transforms as sources, and at least one of each"
            )


def rename(target: str, source: str, transform: Transform | None = None, optional: bool = False) -> Rule:
    """Returns the rule that the parameter `target` is the tensor `source`."""
    return Rule(target, (source,), (transform,), optional)


def merge(
    target: str,
    sources: Sequence[str],
    transforms: Sequence[Transform | None] | None = None,
    optional: bool = False,
) -> Rule:
    """Returns the rule that the parameter `target` is the `sources` concatenated along dimension 0."""
    return Rule(target, tuple(sources), tuple(transforms or [None] * len(sources)), optional)


def unpermute(heads: int) -> Transform:
    """Returns a transform that undoes the reordering of rows in GGUF conversion of Llama's query and key
    projections.

    llama.cpp rotates neighbouring pairs of a head, and the hub's layout pairs the two halves of a head. So
    llama.cpp's converter (`permute` in convert_hf_to_gguf.py) turns rows [heads, 2, dim/2] into [heads,
    dim/2, 2]. For keys, `heads` is the number of key heads. The transform works for weights [rows, columns]
    and biases [rows].
    """

    def undo(tensor: torch.Tensor) -> torch.Tensor:
        halves = tensor.reshape(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2)
        undone = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        # Half a head at a time, because large copies are slow; see STEP.
        for source, target in zip(halves, undone.view(halves.shape), strict=True):
            target[0].copy_(source[0])
            target[1].copy_(source[1])
        return undone

    return undo


@dataclass
class _Parameter:
    """Holds a parameter, all its names (a tied one has several), and in order the rules that can fill it."""

    value: torch.nn.Parameter
    names: list[str]
    candidates: list[tuple[Rule, tuple[str, ...]]] = field(default_factory=list)

    def chosen(self, tensors: Mapping[str, TensorInfo]) -> tuple[Rule, tuple[str, ...]] | None:
        """Returns the first rule whose sources all exist, and these sources; None without such a rule."""
        return next((found for found in self.candidates if all(name in tensors for name in found[1])), None)

    def may_stay(self, tensors: Mapping[str, TensorInfo]) -> bool:
        """True if it is optional and the checkpoint holds no part of it."""
        optional = bool(self.candidates) and all(rule.optional for rule, _ in self.candidates)
        return optional and not any(name in tensors for _, sources in self.candidates for name in sources)


def load_parameters(
    module: torch.nn.Module,
    checkpoint: Checkpoint,
    rules: Sequence[Rule],
    layers: int,
    ignored: Sequence[str] = (),
    packing: Packing | None = None,
) -> None:
    """Fills every parameter of `module` from `checkpoint`, in its own dtype, holding one source at a time.

    A parameter on the meta device is replaced by a new one on the CPU, under all its names. If the stored
    bytes can be used unchanged, the new one is a view of the mapped file. Any other parameter is overwritten
    in place. A tied parameter is loaded once. `ignored` are glob patterns of tensors that may be left unused.

    Optional parameters that the checkpoint lacks keep the module's initial values. If they are on the meta
    device, the module that owns them is allocated, and its `reset_parameters()` is called before anything is
    loaded. If the owner lacks that method, the parameters count as missing. Buffers are not changed.

    With `packing`, a matrix is passed as codes, one for each source, to `pack` of the modules that own it,
    which replaces the parameter.

    Before anything is read, raises one CheckpointError that names all missing, unexpected and misshaped
    tensors.
    """
    parameters = _parameters(module)
    used = _assign(parameters, rules, layers)
    _refuse_misfit(module, parameters, checkpoint, used, ignored)
    with torch.no_grad():
        for parameter in parameters:
            if parameter.value.is_meta and parameter.chosen(checkpoint.tensors) is None:
                _initialise_owners(parameter, parameters, module)
        for parameter in parameters:
            chosen = parameter.chosen(checkpoint.tensors)
            if chosen is None:
                continue
            owners = _owners(module, parameter)
            packs = parameter.value.dim() == 2 and all(hasattr(owner, "pack") for owner in owners)
            if packing is not None and packs:
                rule, sources = chosen
                codes = [
                    packing.codes(checkpoint, source, transform)
                    for source, transform in zip(sources, rule.transforms, strict=True)
                ]
                for owner in owners:
                    owner.pack(codes)  # type: ignore[operator]
                for source in sources:
                    checkpoint.forget(source)
            else:
                _fill(parameter, *chosen, module, checkpoint)


def _parameters(module: torch.nn.Module) -> list[_Parameter]:
    found: dict[int, _Parameter] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        found.setdefault(id(value), _Parameter(value, [])).names.append(name)
    return list(found.values())


def _assign(parameters: Sequence[_Parameter], rules: Sequence[Rule], layers: int) -> set[str]:
    """Adds to each parameter the rules that can fill it, and returns all tensor names in these rules."""
    by_name = {name: parameter for parameter in parameters for name in parameter.names}
    used: set[str] = set()
    for rule in rules:
        for i in range(layers if "{i}" in rule.target else 1):
            parameter = by_name.get(rule.target.replace("{i}", str(i)))
            if parameter is not None:
                sources = tuple(source.replace("{i}", str(i)) for source in rule.sources)
                parameter.candidates.append((rule, sources))
                used.update(sources)
    return used


def _refuse_misfit(
    module: torch.nn.Module,
    parameters: Sequence[_Parameter],
    checkpoint: Checkpoint,
    used: set[str],
    ignored: Sequence[str],
) -> None:
    tensors = checkpoint.tensors
    missing: list[str] = []
    misshaped: list[str] = []
    for parameter in parameters:
        chosen = parameter.chosen(tensors)
        if chosen is not None:
            misshaped += _misshaped(parameter, *chosen, tensors)
        elif not parameter.may_stay(tensors) or (parameter.value.is_meta and not _resets(module, parameter)):
            missing += _absent(parameter, tensors)
    unexpected = [
        name
        for name in tensors
        if name not in used and not any(fnmatchcase(name, pattern) for pattern in ignored)
    ]
    found = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    message = "; ".join(f"{kind}: {listed(names)}" for kind, names in found.items() if names)
    if message:
        raise CheckpointError(f"{checkpoint.path} does not fit the model: {message}")


def _absent(parameter: _Parameter, tensors: Mapping[str, TensorInfo]) -> list[str]:
    if not parameter.candidates:
        return [f"{parameter.names[0]} (no rule names a source)"]
    return [source for source in parameter.candidates[0][1] if source not in tensors]


def _misshaped(
    parameter: _Parameter, rule: Rule, sources: tuple[str, ...], tensors: Mapping[str, TensorInfo]
) -> list[str]:
    stored = " + ".join(f"{source} {list(tensors[source].shape)}" for source in sources)
    expected = tuple(parameter.value.shape)
    problem = f"{stored} for {parameter.names[0]} {list(expected)}"
    try:
        shapes = [
            _transformed(tensors[source].shape, transform)
            for source, transform in zip(sources, rule.transforms, strict=True)
        ]
    except (RuntimeError, IndexError, ValueError):
        return [problem]
    if len(shapes) == 1:
        return [] if shapes[0] == expected else [problem]
    rows = sum(shape[0] for shape in shapes if shape)
    fits = all(shape and (rows, *shape[1:]) == expected for shape in shapes)
    return [] if fits else [problem]


def _transformed(shape: tuple[int, ...], transform: Transform | None) -> tuple[int, ...]:
    return shape if transform is None else tuple(transform(torch.empty(shape, device="meta")).shape)


def _owners(module: torch.nn.Module, parameter: _Parameter) -> list[torch.nn.Module]:
    return [module.get_submodule(name.rpartition(".")[0]) for name in parameter.names]


def _resets(module: torch.nn.Module, parameter: _Parameter) -> bool:
    return all(hasattr(owner, "reset_parameters") for owner in _owners(module, parameter))


def _initialise_owners(
    parameter: _Parameter, parameters: Sequence[_Parameter], module: torch.nn.Module
) -> None:
    by_value = {id(other.value): other for other in parameters}
    for owner in _owners(module, parameter):
        for value in list(owner.parameters(recurse=False)):
            if value.is_meta:
                _replace(by_value[id(value)], _uninitialised(value), module)
        reset: Callable[[], None] = getattr(owner, "reset_parameters")  # noqa: B009  (a Module's type lacks it)
        reset()


def _uninitialised(value: torch.Tensor) -> torch.Tensor:
    # Not empty_like: for a meta tensor it imports torch's decompositions first, which takes 0.8 s.
    return torch.empty(value.shape, dtype=value.dtype)


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    """Copies `source` to `target`, a few rows at a time; see STEP."""
    if source.numel() <= STEP:
        target.copy_(source)
        return
    rows = max(1, STEP * source.shape[0] // source.numel())
    for start in range(0, source.shape[0], rows):
        target[start : start + rows].copy_(source[start : start + rows])


def _replace(parameter: _Parameter, tensor: torch.Tensor, module: torch.nn.Module) -> None:
    """Replaces a meta parameter by a new one, under all its names."""
    parameter.value = torch.nn.Parameter(tensor, requires_grad=parameter.value.requires_grad)
    for name, owner in zip(parameter.names, _owners(module, parameter), strict=True):
        setattr(owner, name.rpartition(".")[2], parameter.value)


def _fill(
    parameter: _Parameter,
    rule: Rule,
    sources: tuple[str, ...],
    module: torch.nn.Module,
    checkpoint: Checkpoint,
) -> None:
    value = parameter.value
    if len(sources) == 1:
        piece = _piece(checkpoint, sources[0], rule.transforms[0], value.dtype)
        if value.is_meta:
            _replace(parameter, piece.contiguous(), module)
        else:
            _copy(piece, value)
        return
    if value.is_meta:
        _replace(parameter, _uninitialised(value), module)
    start = 0
    for source, transform in zip(sources, rule.transforms, strict=True):
        piece = _piece(checkpoint, source, transform, value.dtype)
        _copy(piece, parameter.value[start : start + piece.shape[0]])
        start += piece.shape[0]


def _piece(
    checkpoint: Checkpoint, name: str, transform: Transform | None, dtype: torch.dtype
) -> torch.Tensor:
    tensor = checkpoint.read(name, dtype)
    return tensor if transform is None else transform(tensor)
