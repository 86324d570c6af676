"""How a checkpoint's tensors become a module's parameters: renames, merges and their loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch

from decodery.errors import CheckpointError
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.dequantize import STEP
from decodery.weights.layouts.native_layout import Packing, Transform
from decodery.weights.report import listed


@dataclass(frozen=True)
class Rule:
    """Which tensors of a checkpoint make one parameter.

    `target` is the module's own name and `sources` the checkpoint's, where `{i}` stands for the layer's
    index. Each source goes through its transform (None: as it is), then they are concatenated along dimension
    0. Several rules may name one target, for checkpoints that store it in different ways: the first whose
    sources are all there is used. A rule whose target the module lacks is skipped, and its sources count as
    unexpected.
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
    """The parameter `target` is the tensor `source`."""
    return Rule(target, (source,), (transform,), optional)


def merge(
    target: str,
    sources: Sequence[str],
    transforms: Sequence[Transform | None] | None = None,
    optional: bool = False,
) -> Rule:
    """The parameter `target` is the `sources` one under another (along dimension 0)."""
    return Rule(target, tuple(sources), tuple(transforms or [None] * len(sources)), optional)


def unpermute(heads: int) -> Transform:
    """Undo the reordering of rows that GGUF conversion applies to Llama's query and key projections.

    llama.cpp rotates neighbouring pairs of a head and the hub's layout pairs the two halves of a head, so its
    converter (`permute` in convert_hf_to_gguf.py) turns rows [heads, 2, dim/2] into [heads, dim/2, 2]. For
    keys, `heads` is the number of key heads. Works for weights [rows, columns] and biases [rows].
    """

    def undo(tensor: torch.Tensor) -> torch.Tensor:
        halves = tensor.reshape(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2)
        undone = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        # Half a head at a time, for what STEP says of large copies.
        for source, target in zip(halves, undone.view(halves.shape), strict=True):
            target[0].copy_(source[0])
            target[1].copy_(source[1])
        return undone

    return undo


@dataclass
class _Parameter:
    """A parameter under all its names (a tied one has several), and the rules that can fill it, in order."""

    value: torch.nn.Parameter
    names: list[str]
    ways: list[tuple[Rule, tuple[str, ...]]] = field(default_factory=list)

    def chosen(self, tensors: Mapping[str, TensorInfo]) -> tuple[Rule, tuple[str, ...]] | None:
        return next((way for way in self.ways if all(source in tensors for source in way[1])), None)

    def may_stay(self, tensors: Mapping[str, TensorInfo]) -> bool:
        """Whether it is optional and the checkpoint holds no part of it."""
        optional = bool(self.ways) and all(rule.optional for rule, _ in self.ways)
        return optional and not any(source in tensors for _, sources in self.ways for source in sources)


def load_parameters(
    module: torch.nn.Module,
    checkpoint: Checkpoint,
    rules: Sequence[Rule],
    layers: int,
    ignored: Sequence[str] = (),
    packing: Packing | None = None,
) -> None:
    """Fill every parameter of `module` from `checkpoint`, in its own dtype, holding one source at a time.

    A parameter on the meta device is replaced by a new one on the CPU, under all its names; where the file's
    own bytes will do, it is a view of the mapped file. Any other parameter is overwritten where it is. A tied
    parameter is loaded once. `ignored` are glob patterns of tensors that may be left unused.

    Optional parameters that the checkpoint lacks keep what the module initialised. Where they are on the meta
    device, the module that owns them is materialised and its `reset_parameters()` called before anything is
    loaded; an owner without that method cannot do without them, and they count as missing. Buffers are left
    alone.

    With `packing`, a matrix is handed to the modules that own it as codes, one for each source: their `pack`
    replaces the parameter.

    Raises one CheckpointError that names all that is missing, unexpected or misshaped, before anything is
    read.
    """
    parameters = _parameters(module)
    used = _assign(parameters, rules, layers)
    _refuse_misfit(module, parameters, checkpoint, used, ignored)
    with torch.no_grad():
        for parameter in parameters:
            if parameter.value.is_meta and parameter.chosen(checkpoint.tensors) is None:
                _initialise_owners(parameter, parameters, module)
        for parameter in parameters:
            way = parameter.chosen(checkpoint.tensors)
            if way is None:
                continue
            owners = _owners(module, parameter)
            packs = parameter.value.dim() == 2 and all(hasattr(owner, "pack") for owner in owners)
            if packing is not None and packs:
                rule, sources = way
                codes = [
                    packing.codes(checkpoint, source, transform)
                    for source, transform in zip(sources, rule.transforms, strict=True)
                ]
                for owner in owners:
                    owner.pack(codes)  # type: ignore[operator]
                for source in sources:
                    checkpoint.forget(source)
            else:
                _fill(parameter, *way, module, checkpoint)


def _parameters(module: torch.nn.Module) -> list[_Parameter]:
    found: dict[int, _Parameter] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        found.setdefault(id(value), _Parameter(value, [])).names.append(name)
    return list(found.values())


def _assign(parameters: Sequence[_Parameter], rules: Sequence[Rule], layers: int) -> set[str]:
    """Tell each parameter the ways to fill it, and return all the names that occur in them."""
    by_name = {name: parameter for parameter in parameters for name in parameter.names}
    used: set[str] = set()
    for rule in rules:
        for i in range(layers if "{i}" in rule.target else 1):
            parameter = by_name.get(rule.target.replace("{i}", str(i)))
            if parameter is not None:
                sources = tuple(source.replace("{i}", str(i)) for source in rule.sources)
                parameter.ways.append((rule, sources))
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
        way = parameter.chosen(tensors)
        if way is not None:
            misshaped += _misshaped(parameter, *way, tensors)
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
    if not parameter.ways:
        return [f"{parameter.names[0]} (no rule names a source)"]
    return [source for source in parameter.ways[0][1] if source not in tensors]


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
    # Not empty_like: called for a meta tensor, it first imports torch's decompositions, which takes 0.8 s.
    return torch.empty(value.shape, dtype=value.dtype)


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    """target.copy_(source), a few rows at a time; see STEP."""
    if source.numel() <= STEP:
        target.copy_(source)
        return
    rows = max(1, STEP * source.shape[0] // source.numel())
    for start in range(0, source.shape[0], rows):
        target[start : start + rows].copy_(source[start : start + rows])


def _replace(parameter: _Parameter, tensor: torch.Tensor, module: torch.nn.Module) -> None:
    """Put a new parameter in the place of a meta one, under all its names."""
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
