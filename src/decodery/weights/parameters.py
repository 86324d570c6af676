"""Fills a module's parameters from a checkpoint and gives them back, by one set of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from decodery.errors import CheckpointError
from decodery.kernels.packed_weights import Codes
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.dequantise import STEP
from decodery.weights.layouts.native_layout import Packing
from decodery.weights.names import Part, Rule
from decodery.weights.report import listed


@dataclass
class _Parameter:
    """Holds a parameter, all its names (a tied one has several), and in order the rules that can fill it."""

    value: torch.nn.Parameter
    names: list[str]
    candidates: list[tuple[Rule, tuple[Part, ...]]] = field(default_factory=list)

    def chosen(self, tensors: Mapping[str, TensorInfo]) -> tuple[Rule, tuple[Part, ...]] | None:
        """Returns the first rule whose sources all exist, with its parts; None without such a rule."""
        return next(
            (found for found in self.candidates if all(part.name in tensors for part in found[1])), None
        )

    @property
    def is_weight(self) -> bool:
        """True if it may be one of the matrices that are packed."""
        return self.names[0].rpartition(".")[2] == "weight"

    def may_stay(self, tensors: Mapping[str, TensorInfo]) -> bool:
        """True if it is optional and the checkpoint holds no part of it."""
        optional = bool(self.candidates) and all(rule.optional for rule, _ in self.candidates)
        return optional and not any(part.name in tensors for _, parts in self.candidates for part in parts)


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
    which replaces the parameter. A stack is passed as the codes of each expert.

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
            packs = parameter.is_weight and all(hasattr(owner, "pack") for owner in owners)
            if packing is not None and packs:
                rule, parts = chosen
                codes = _codes(packing, checkpoint, rule, parts)
                for owner in dict.fromkeys(owners):
                    owner.pack(codes)  # type: ignore[operator]
                for part in parts:
                    checkpoint.forget(part.name)
            else:
                _fill(parameter, *chosen, module, checkpoint)


def export_parameters(
    module: torch.nn.Module, rules: Sequence[Rule], layers: int
) -> Iterator[tuple[str, Tensor]]:
    """Yields the stored names and tensors of every parameter of `module`, as `load_parameters` reads them.

    A tensor has the parameter's dtype and may be a view of it. A tied parameter is stored once. Raises
    ValueError for a module with packed weights, and for a parameter that no rule names.
    """
    _refuse_packed(module)
    parameters = _parameters(module)
    _assign(parameters, rules, layers)
    for parameter in parameters:
        if not parameter.candidates:
            raise ValueError(f"no rule names how {parameter.names[0]} is stored")
        rule, parts = parameter.candidates[0]
        pieces = parameter.value.detach().split_with_sizes(_stored_rows(rule, parameter), rule.dimension)
        for part in parts:
            piece = pieces[part.source] if part.expert is None else pieces[part.source][part.expert]
            yield part.name, _stored(rule, part, piece).contiguous()


def _stored(rule: Rule, part: Part, piece: Tensor) -> Tensor:
    if part.transform is None:
        return piece
    if rule.experts and part.expert is None:
        return torch.stack([part.transform.store(matrix) for matrix in piece])
    return part.transform.store(piece)


def _refuse_packed(module: torch.nn.Module) -> None:
    for name, owner in module.named_modules():
        if hasattr(owner, "pack") and not isinstance(owner.weight, torch.nn.Parameter):
            raise ValueError(f"{name}.weight is packed; only plain weights can be exported")


def _stored_rows(rule: Rule, parameter: _Parameter) -> list[int]:
    rows, sources = parameter.value.shape[rule.dimension], len(rule.sources)
    found = [rows // sources] * sources if rule.rows is None else list(rule.rows)
    if sum(found) != rows:
        raise ValueError(f"{parameter.names[0]} has {rows} rows, and its rule divides {found}")
    return found


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
                parts = rule.parts(i)
                parameter.candidates.append((rule, parts))
                used.update(part.name for part in parts)
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
    return [part.name for part in parameter.candidates[0][1] if part.name not in tensors]


def _misshaped(
    parameter: _Parameter, rule: Rule, parts: tuple[Part, ...], tensors: Mapping[str, TensorInfo]
) -> list[str]:
    try:
        shapes = [_loaded_shape(rule, part, tensors[part.name].shape) for part in parts]
        fits = _joined_shape(rule, parts, shapes) == tuple(parameter.value.shape)
    except (RuntimeError, IndexError, ValueError):
        fits = False
    if fits:
        return []
    stored = " + ".join(f"{part.name} {list(tensors[part.name].shape)}" for part in parts)
    return [f"{stored} for {parameter.names[0]} {list(parameter.value.shape)}"]


def _loaded_shape(rule: Rule, part: Part, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape that a stored tensor has in the parameter, with that of the stack before it."""
    if part.transform is not None:
        stacked, each = _split(rule, part, shape)
        shape = (*stacked, *part.transform.load(torch.empty(each, device="meta")).shape)
    return shape if part.expert is None else (rule.experts, *shape)


def _split(rule: Rule, part: Part, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the number of experts in a stored tensor, () without, and the shape of what is transformed."""
    return (shape[:1], shape[1:]) if rule.experts and part.expert is None else ((), shape)


def _joined_shape(
    rule: Rule, parts: tuple[Part, ...], shapes: Sequence[tuple[int, ...]]
) -> tuple[int, ...] | None:
    """Returns the shape of the concatenation; None if the shapes do not go together or differ from `rows`."""
    if len(shapes) == 1:
        return shapes[0]
    d = rule.dimension
    rows = {part.source: shape[d] for part, shape in zip(parts, shapes, strict=True)}
    if rule.rows is not None and rule.rows != tuple(rows.values()):
        return None
    if any(shape[d] != rows[part.source] for part, shape in zip(parts, shapes, strict=True)):
        return None
    around = {(*shape[:d], sum(rows.values()), *shape[d + 1 :]) for shape in shapes}
    return around.pop() if len(around) == 1 else None


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


def _uninitialised(value: Tensor) -> Tensor:
    # Not empty_like: for a meta tensor it imports torch's decompositions first, which takes 0.8 s.
    return torch.empty(value.shape, dtype=value.dtype)


def _copy(source: Tensor, target: Tensor) -> None:
    """Copies `source` to `target`, a few rows at a time; see STEP."""
    if source.numel() <= STEP:
        target.copy_(source)
        return
    rows = max(1, STEP * source.shape[0] // source.numel())
    for start in range(0, source.shape[0], rows):
        target[start : start + rows].copy_(source[start : start + rows])


def _replace(parameter: _Parameter, tensor: Tensor, module: torch.nn.Module) -> None:
    """Replaces a meta parameter by a new one, under all its names."""
    parameter.value = torch.nn.Parameter(tensor, requires_grad=parameter.value.requires_grad)
    for name, owner in zip(parameter.names, _owners(module, parameter), strict=True):
        setattr(owner, name.rpartition(".")[2], parameter.value)


def _fill(
    parameter: _Parameter,
    rule: Rule,
    parts: tuple[Part, ...],
    module: torch.nn.Module,
    checkpoint: Checkpoint,
) -> None:
    value = parameter.value
    if len(parts) == 1 and parts[0].expert is None:
        piece = _piece(checkpoint, rule, parts[0], value.dtype)
        if value.is_meta:
            _replace(parameter, piece.contiguous(), module)
        else:
            _copy(piece, value)
        return
    if value.is_meta:
        _replace(parameter, _uninitialised(value), module)
    start = 0
    for part in parts:
        piece = _piece(checkpoint, rule, part, value.dtype)
        dimension = rule.dimension if part.expert is None else 0
        target = parameter.value if part.expert is None else parameter.value[part.expert]
        _copy(piece, target.narrow(dimension, start, piece.shape[dimension]))
        if part.expert in (None, rule.experts - 1):
            start += piece.shape[dimension]


def _piece(checkpoint: Checkpoint, rule: Rule, part: Part, dtype: torch.dtype) -> Tensor:
    tensor = checkpoint.read(part.name, dtype)
    if part.transform is None:
        return tensor
    if rule.experts and part.expert is None:
        return torch.stack([part.transform.load(matrix) for matrix in tensor])
    return part.transform.load(tensor)


class _ExpertCodes(Sequence[Sequence[Codes]]):
    """Reads the matrices of each expert when they are asked for, so that only one expert's are held."""

    def __init__(self, packing: Packing, checkpoint: Checkpoint, rule: Rule, parts: Sequence[Part]) -> None:
        # The matrices of all experts have one format.
        formats = {packing.format_of(checkpoint.tensors[part.name]) for part in parts}
        self._packing = packing if len(formats) == 1 else replace(packing, quantization="float32")
        self._checkpoint = checkpoint
        self._experts = rule.experts
        self._parts = parts

    def __len__(self) -> int:
        return self._experts

    def __getitem__(self, expert: Any) -> Any:
        return [
            self._packing.codes(
                self._checkpoint, part.name, part.transform, expert if part.expert is None else None
            )
            for part in self._parts
            if part.expert in (None, expert)
        ]


def _codes(
    packing: Packing, checkpoint: Checkpoint, rule: Rule, parts: Sequence[Part]
) -> Sequence[Codes] | Sequence[Sequence[Codes]]:
    """Returns a matrix as codes, one for each source; of a stack, those of each expert."""
    if rule.experts:
        return _ExpertCodes(packing, checkpoint, rule, parts)
    return [packing.codes(checkpoint, part.name, part.transform) for part in parts]
