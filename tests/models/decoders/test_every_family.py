"""Checks the laws that hold for every decoder family, against transformers and in every form of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import PromptLookup
from decodery.decoding.request.strategy_params import BeamSearch
from decodery.kernels.native import library
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.contract import CausalModel
from decodery.models.families import find_family, names_of
from decodery.models.layers.attention import PagedAttend, plan_layers
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.names import Rule
from decodery.weights.parameters import export_parameters, load_parameters
from tests.engine.runs import make_engine, run
from tests.kernels.native.fixtures import built
from tests.models.decoders.families import FAMILIES as LLAMA_FAMILIES
from tests.models.decoders.families import Tiny, write_folder
from tests.models.decoders.layer_norm_families import LAYER_NORM_FAMILIES
from tests.models.decoders.rms_norm_families import RMS_NORM_FAMILIES
from tests.weights.test_parameters import InMemory

FAMILIES = {**LLAMA_FAMILIES, **RMS_NORM_FAMILIES, **LAYER_NORM_FAMILIES}
every_family = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if t.slow else ()) for n, t in FAMILIES.items()]
)
LENGTH = 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("families")
    return cache(lambda name: write_folder(FAMILIES[name], root / name.replace(" ", "-").replace(",", "")))


def some_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 97, shape, generator=torch.Generator().manual_seed(seed))


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    with open_checkpoint(folder) as checkpoint:
        return load_model(checkpoint, dtype=dtype, kernels=torch_kernels)


def served(folder: Path, quantization: str | None = None) -> Any:
    """Returns the model as an engine runs it: on the native backend, its weights packed."""
    with open_checkpoint(folder) as checkpoint:
        return load_for_inference(
            checkpoint, dtype=torch.float32, kernels=NativeKernels(), quantization=quantization
        )


def oracle(name: str, folder: Path) -> Any:
    import transformers

    architecture = getattr(transformers, FAMILIES[name].architecture)
    # The grouped products of its other implementation are for some types and sizes only.
    eager = {"experts_implementation": "eager"} if FAMILIES[name].routed else {}
    return architecture.from_pretrained(folder, **eager).eval()


def typical(errors: Tensor, name: str) -> Tensor:
    """Returns the mean; that of the median token where a token may have other experts."""
    return errors.mean(-1).median() if FAMILIES[name].routed else errors.mean()


class InPages:
    """Runs one sequence in scattered pages of a cache, some tokens at a time."""

    def __init__(self, model: CausalModel) -> None:
        self.model = model
        kernels = model.kernels
        self.cache = model.kv_shape.allocate(
            20, kernels.cache_dtype(model.dtype), whole_pages=kernels.takes_page_strides()
        )
        self.table = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()

    @torch.inference_mode()
    def logits(self, tokens: Tensor, *sizes: int) -> Tensor:
        """Returns the logits of tokens [length] that run in chunks of `sizes`."""
        model, start, found = self.model, 0, []
        for part in tokens.split(sizes or [len(tokens)]):
            kinds = [layer.kind for layer in model.attention_layers]
            plans = plan_layers(
                model.kernels, kinds, [self.table], [start], [len(part)], dtype=model.dtype, device="cpu"
            )
            positions = torch.arange(start, start + len(part))
            attend = PagedAttend(model.kernels, self.cache, plans)
            sets = torch.full_like(part, model.rope_set(len(tokens)))
            hidden = model.hidden(part, positions, attend, sets=sets)
            found.append(model.logits(hidden).clone())
            start += len(part)
        return torch.cat(found)


@every_family
def test_logits_are_those_of_transformers(name: str, folders: Any) -> None:
    model, expected = opened(folders(name)), oracle(name, folders(name))
    tokens = some_tokens(2, LENGTH)
    with torch.no_grad():
        theirs = expected(tokens).logits
        exact = expected.double()(tokens).logits
    largest = max(1.0, exact.abs().max().item())
    assert theirs.std() > 0.5
    # Their own error may be larger: on some processors torch's order of summation depends on the shapes.
    near = max(1e-5 * largest, 2 * (theirs - exact).abs().max().item())
    torch.testing.assert_close(model(tokens), theirs, atol=near, rtol=0)


@every_family
def test_in_bfloat16_the_error_is_small_or_that_of_transformers(name: str, folders: Any) -> None:
    tokens, folder = some_tokens(2, LENGTH), folders(name)
    # Of the same rounded weights: what rounding them changes is no error of the computation.
    exact = opened(folder, torch.bfloat16).double()(tokens)

    def error(logits: Tensor) -> float:
        return (typical((logits - exact).square(), name).sqrt() / exact.std()).item()

    with torch.no_grad():
        theirs = error(oracle(name, folder).bfloat16()(tokens).logits)
    assert 0 < error(opened(folder, torch.bfloat16)(tokens)) < max(2e-2, 1.2 * theirs)


def norms_moved_before(rules: Sequence[Rule]) -> list[Rule]:
    """Returns the rules by which norms before attention and MLP, if there are none, are those after."""
    after = [rule for rule in rules if "_post_norm" in rule.target]
    return [replace(rule, target=rule.target.replace("_post_norm", "_norm")) for rule in after]


@every_family
def test_each_trait_of_a_family_changes_its_logits(name: str, folders: Any) -> None:
    tokens = some_tokens(2, LENGTH)
    expected = opened(folders(name))(tokens)
    for trait, without in FAMILIES[name].traits.items():
        with open_checkpoint(folders(name)) as checkpoint:
            found = find_family(checkpoint)
            config = found.family.config.read(checkpoint)
            with torch.device("meta"):
                model: Any = found.family.build[found.head](without(config), torch_kernels)
            names = names_of(found, config, checkpoint)
            rules = [*names.rules, *norms_moved_before(names.rules)]
            load_parameters(model, checkpoint, rules, config.layers, ["*"])
        assert (model(tokens) - expected).abs().max() > 0.1, trait


@every_family
def test_pages_and_chunks_change_nothing_but_rounding(name: str, folders: Any) -> None:
    model, tokens = opened(folders(name), torch.float64), some_tokens(LENGTH)
    dense = model(tokens[None])[0]
    for sizes in ((), (1,) * LENGTH, (7, 1, 20, 12)):
        found = InPages(model).logits(tokens, *sizes)
        torch.testing.assert_close(found, dense.float(), atol=1e-5, rtol=1e-5)


@built
@every_family
def test_natively_chunks_are_the_whole_bit_for_bit_and_near_torch(name: str, folders: Any) -> None:
    model, tokens = served(folders(name)), some_tokens(LENGTH)
    whole = InPages(model).logits(tokens)
    for sizes in ((1,) * LENGTH, (7, 1, 20, 12)):
        assert torch.equal(InPages(model).logits(tokens, *sizes), whole), sizes
    expected = opened(folders(name))(tokens[None])[0]
    # Keys and values are float16.
    assert (whole - expected).abs().max() < 1e-2 * max(1, expected.abs().max().item())


@built
@every_family
def test_with_packed_weights_logits_are_near_the_exact_ones(name: str, folders: Any) -> None:
    tokens = some_tokens(LENGTH)
    expected = opened(folders(name))(tokens[None])[0]
    for quantization, bound in (("int8", 0.1), ("int4", 0.7)):
        found = InPages(served(folders(name), quantization)).logits(tokens)
        error = typical((found - expected).square(), name).sqrt() / expected.std()
        assert error < bound, quantization


@every_family
def test_greedy_and_beams_are_those_of_transformers(name: str, folders: Any) -> None:
    prompt, expected = some_tokens(1, 9), oracle(name, folders(name))
    engine = make_engine(opened(folders(name)))
    greedy = GenerationParams(max_tokens=16, temperature=0)
    beams = greedy.replace(strategy=BeamSearch(3))
    for params, options in ((greedy, {}), (beams, {"num_beams": 3})):
        theirs = expected.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False, **options
        )
        assert run(engine, [(prompt[0].tolist(), params)])[0][0] == theirs[0, 9:].tolist()


@built
@every_family
def test_replayed_speculated_and_together_a_text_is_what_it_is_alone(name: str, folders: Any) -> None:
    model = served(folders(name))
    greedy = GenerationParams(max_tokens=12, temperature=0)
    jobs = [
        ([*range(3, 12), *range(3, 9)], greedy),
        ([5, 6, 7], greedy.replace(temperature=0.8, seed=3)),
        (some_tokens(33).tolist(), greedy),
    ]
    alone = [run(make_engine(model), [job])[0] for job in jobs]
    assert run(make_engine(model), jobs) == alone
    drafted = [(prompt, params.replace(speculate=PromptLookup())) for prompt, params in jobs]
    assert run(make_engine(model), drafted) == alone
    library.set_threads(1)
    assert run(make_engine(model), jobs) == alone
    library.set_threads(2)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_written_folder_is_the_same_model_to_transformers(name: str, folders: Any, tmp_path: Path) -> None:
    import transformers

    model, tokens, architecture = opened(folders(name)), some_tokens(2, LENGTH), FAMILIES[name].architecture
    with open_checkpoint(folders(name)) as checkpoint:
        family = find_family(checkpoint).family
    kind = getattr(transformers, architecture).config_class.model_type
    kinds = {"architectures": [architecture], "model_type": kind, "pad_token_id": None}
    settings = {**kinds, **family.config.to_hub(model.config)}
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    tensors = export_parameters(model, family.hub_names(model.config).rules, model.config.layers)
    save_file({stored: tensor.contiguous() for stored, tensor in tensors}, tmp_path / "model.safetensors")
    again = opened(tmp_path)
    assert again.config == model.config
    assert torch.equal(again(tokens), model(tokens))
    with torch.no_grad():
        expected, found = (oracle(name, folder)(tokens).logits for folder in (folders(name), tmp_path))
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1, expected.abs().max().item()), rtol=0)


def changed(folder: Path, target: Path, weights: Mapping[str, Tensor], *, tied: bool) -> Path:
    """Writes the model of a folder with other weights, its head declared as tied or not."""
    target.mkdir()
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({**settings, "tie_word_embeddings": tied})
    (target / "config.json").write_text(text, encoding="utf-8")
    save_file({name: each.contiguous() for name, each in weights.items()}, target / "model.safetensors")
    return target


def told(folder: Path) -> tuple[Any, list[str]]:
    """Returns the model of a folder and the warnings that opening it gives."""
    with open_checkpoint(folder) as checkpoint:
        model = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
        return model, checkpoint.warnings


@every_family
def test_a_stored_head_counts_whatever_the_settings_say_of_it(
    name: str, folders: Any, tmp_path: Path
) -> None:
    folder, tokens = folders(name), some_tokens(2, 12)
    weights = load_file(folder / "model.safetensors")
    tied = changed(folder, tmp_path / "tied", weights, tied=True)
    with open_checkpoint(tied) as checkpoint:
        family = find_family(checkpoint).family
        names = family.hub_names(family.config.read(checkpoint))
    embedding, head = next(pair for pair in names.tied if pair[0] in weights)
    table = weights[embedding]
    other = {**weights, head: table.flip(0).clone()}
    kept, warned = told(changed(folder, tmp_path / "kept", other, tied=True))
    assert not kept.tied_head
    assert [head in warning and "tie_word_embeddings" in warning for warning in warned] == [True]
    right, silent = told(changed(folder, tmp_path / "right", other, tied=False))
    assert silent == []
    assert kept.config == right.config
    assert torch.equal(kept(tokens), right(tokens))

    equal, silent = told(changed(folder, tmp_path / "equal", {**weights, head: table.clone()}, tied=True))
    assert (equal.tied_head, silent) == (True, [])
    alone = {**weights, head: table}
    del alone[embedding]
    one, silent = told(changed(folder, tmp_path / "one", alone, tied=True))
    assert (one.tied_head, silent) == (True, [])
    assert torch.equal(one(tokens), equal(tokens))
    assert not torch.equal(one(tokens), kept(tokens))


def held(rule: Rule, tensors: Mapping[str, Tensor], layers: int) -> bool:
    """True if the tensors have those of the rule in some layer."""
    return any(all(part.name in tensors for part in rule.parts(layer)) for layer in range(layers))


@every_family
def test_gradients_are_those_of_transformers(name: str, folders: Any) -> None:
    model, expected = opened(folders(name)).requires_grad_(), oracle(name, folders(name))
    tokens = some_tokens(2, 12)
    for logits in (model(tokens), expected(tokens).logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    with open_checkpoint(folders(name)) as checkpoint:
        family = find_family(checkpoint).family
        names = family.hub_names(family.config.read(checkpoint))
    layers = model.config.layers
    wanted = dict(expected.named_parameters())
    # In memory transformers has stacks of experts, whatever it saves.
    rules = sorted(names.rules, key=lambda rule: not held(rule, wanted, layers))
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            # A correction only chooses experts, which has no gradient; transformers does not train it either.
            assert (parameter.grad is None) == own.endswith(".correction")
            parameter.copy_(0 if parameter.grad is None else parameter.grad)
        found = {stored: each.clone() for stored, each in export_parameters(model, rules, layers)}
        for parameter in model.parameters():
            parameter.zero_()
    # transformers stores the head of GPT-NeoX under another name than its own.
    wanted |= {name.replace("lm_head", "embed_out"): tensor for name, tensor in wanted.items()}
    fixed = dict(expected.named_buffers())
    # What a transform adds to a weight is no part of a gradient.
    for stored, added in export_parameters(model, rules, layers):
        if stored not in fixed and not stored.endswith("e_score_correction_bias"):
            gradient = found[stored] - added
            torch.testing.assert_close(gradient, wanted[stored].grad, atol=1e-4, rtol=1e-4)


@every_family
def test_a_gguf_file_is_the_same_model_under_the_names_of_the_gguf_package(name: str, folders: Any) -> None:
    tiny: Tiny = FAMILIES[name]
    if not tiny.gguf:
        pytest.skip("a GGUF file cannot express these settings")
    with open_checkpoint(folders(name)) as checkpoint:
        family = find_family(checkpoint).family
        config = family.config.read(checkpoint)
        hub_names = list(checkpoint.tensors)
    assert family.gguf is not None
    model = opened(folders(name))
    metadata, tensors = family.config.to_gguf(config, family.gguf)
    tensors |= dict(export_parameters(model, family.gguf_names(config).rules, config.layers))
    assert_names_of_gguf(family.gguf, config.layers, hub_names, tensors)
    stored = InMemory(tensors)
    stored.format, stored.config = "gguf", metadata
    again = load_model(stored, dtype=torch.float32, kernels=torch_kernels)
    tokens = some_tokens(2, LENGTH)
    torch.testing.assert_close(again(tokens), model(tokens), atol=1e-5, rtol=1e-5)


def assert_names_of_gguf(
    architecture: str, layers: int, hub_names: Iterable[str], tensors: Iterable[str]
) -> None:
    """Asserts that the tensors of a GGUF file are those that the gguf package makes of a hub folder's."""
    kind = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, layers)
    found = {names.get_name(name, try_suffixes=(".weight", ".bias")) for name in hub_names}
    # The package's converters add a suffix to the parameters that have none.
    # They also split the linear map of latent attention.
    whole = {name.replace("attn_kv_b.", "attn_k_b.") for name in found if name is not None}
    suffixes = ("", ".weight", ".bias")
    assert all(any(name + end in tensors for end in suffixes) for name in whole)
    allowed = {
        gguf.TENSOR_NAMES[tensor].format(bid=layer)
        for tensor in gguf.MODEL_TENSORS[kind]
        for layer in range(layers)
    }
    assert {name.rpartition(".")[0] for name in tensors} <= allowed
