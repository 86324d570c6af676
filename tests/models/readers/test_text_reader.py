"""Checks that decoders read texts as transformers does, whatever shares the batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decodery.encoding.text_batches import BatchRunner, TokenText
from decodery.errors import ModelError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.architectures import HUB
from decodery.models.contract import EncoderModel
from decodery.models.families import find_family
from decodery.models.layers.attention import DenseAttend
from decodery.models.load import load_for_inference, reading_model
from decodery.models.readers.reading_rows import OTHER_STEMS, STEMS, WITHOUT_CLASSES
from decodery.models.readers.text_reader import reader_of
from decodery.weights.formats.opening import open_checkpoint
from tests.encoding.folders import write_json
from tests.kernels.native.fixtures import built
from tests.models.decoders.families import FAMILIES as LLAMA_FAMILIES
from tests.models.decoders.families import Tiny, write_folder
from tests.models.decoders.layer_norm_families import LAYER_NORM_FAMILIES
from tests.models.decoders.rms_norm_families import RMS_NORM_FAMILIES

FAMILIES = {**LLAMA_FAMILIES, **RMS_NORM_FAMILIES, **LAYER_NORM_FAMILIES}
THEIRS = {ours: stem for stem, ours in OTHER_STEMS.items()}
FAST = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "phi 3, short texts")
LENGTHS = 33, 17, 1
LABELS = 3
Folders = Callable[..., Path]


def stem_of(tiny: Tiny) -> str:
    """Returns the beginning of the names of a model's architectures that read."""
    stem = tiny.architecture.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    return THEIRS.get(stem, stem)


READ = {name: tiny for name, tiny in FAMILIES.items() if stem_of(tiny) in STEMS}
every_family = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in READ]
)
every_classifier = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name, tiny in READ.items()
        if stem_of(tiny) not in WITHOUT_CLASSES
    ],
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Returns the function that writes the folder of a family's model, by the end of its architecture."""
    root = tmp_path_factory.mktemp("readers")

    @cache
    def written(name: str, end: str = "Model", **settings: Any) -> Path:
        place = f"{name}-{end}-{len(settings)}".replace(" ", "-").replace(",", "")
        tiny = READ[name]
        # Their classes need a padding id to tell texts of a batch apart.
        labels = {} if end == "Model" else {"num_labels": LABELS, "pad_token_id": 0}
        changed = replace(
            tiny, architecture=stem_of(tiny) + end, settings={**tiny.settings, **labels, **settings}
        )
        return write_folder(changed, root / place)

    return written


def opened(folder: Path, *, native: bool = False, quantization: str | None = None) -> EncoderModel:
    kernels = NativeKernels() if native else torch_kernels
    with open_checkpoint(folder) as checkpoint:
        model: Any = load_for_inference(
            checkpoint, dtype=torch.float32, kernels=kernels, quantization=quantization
        )
        return reading_model(find_family(checkpoint), model)


def oracle(name: str, folder: Path, end: str = "Model") -> Any:
    import transformers

    eager = {"experts_implementation": "eager"} if READ[name].routed else {}
    return getattr(transformers, stem_of(READ[name]) + end).from_pretrained(folder, **eager).eval()


def some_texts(lengths: Sequence[int], seed: int = 0) -> list[TokenText]:
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(1, 97, (length,), generator=generator).tolist() for length in lengths]
    return [TokenText(tuple(each), (0,) * len(each)) for each in ids]


def states_of(model: EncoderModel, texts: Sequence[TokenText]) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for batch in BatchRunner(model).run(texts):
        found |= {index: batch.of(place).clone() for place, index in enumerate(batch.indices)}
    return [found[index] for index in range(len(texts))]


@every_family
def test_states_of_packed_texts_are_those_that_transformers_gives_each_alone(
    name: str, folders: Folders
) -> None:
    texts = some_texts(LENGTHS)
    theirs = oracle(name, folders(name))
    for text, ours in zip(texts, states_of(opened(folders(name)), texts), strict=True):
        with torch.no_grad():
            expected = theirs(torch.tensor([text.ids])).last_hidden_state[0]
        largest = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(ours, expected, atol=1e-5 * largest, rtol=0)


@every_classifier
def test_classes_are_those_of_transformers_and_read_the_last_token(name: str, folders: Folders) -> None:
    end = "ForSequenceClassification"
    folder = folders(name, end)
    model, theirs, texts = opened(folder), oracle(name, folder, end), some_texts(LENGTHS)
    assert list(model.heads) == ["classes"]
    assert model.heads["classes"].reads == "last"
    for text, states in zip(texts, states_of(model, texts), strict=True):
        with torch.no_grad():
            expected = theirs(torch.tensor([text.ids])).logits
        largest = max(1.0, expected.abs().max().item())
        ours = model.heads["classes"](states[-1:])
        assert expected.shape == (1, LABELS)
        torch.testing.assert_close(ours, expected, atol=1e-5 * largest, rtol=0)


@built
@every_family
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_text_has_the_same_bits_alone_and_among_others(
    name: str, folders: Folders, quantization: str | None
) -> None:
    model = opened(folders(name), native=True, quantization=quantization)
    texts = some_texts((9, 40, 1, 23, 40, 17))
    together = states_of(model, texts)
    for text, states in zip(texts, together, strict=True):
        assert states_of(model, [text])[0].equal(states)
    assert states_of(model, texts[::-1])[-1].equal(together[0])


SHARED = [name for name, tiny in FAMILIES.items() if tiny.architecture == "Gemma4ForCausalLM"]


@pytest.mark.parametrize("name", SHARED)
def test_layers_that_differ_and_read_keys_of_others_have_pages_of_their_own(
    name: str, tmp_path: Path
) -> None:
    with open_checkpoint(write_folder(FAMILIES[name], tmp_path)) as checkpoint:
        model: Any = load_for_inference(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    texts = some_texts(LENGTHS)
    for text, states in zip(texts, states_of(reader_of(model, "causal"), texts), strict=True):
        tokens = torch.tensor([text.ids])
        attend = DenseAttend(torch_kernels, layers=model.attention_layers)
        with torch.no_grad():
            expected = model.hidden(tokens, torch.arange(len(text.ids)), attend)[0]
        torch.testing.assert_close(states, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("left", [True, False])
def test_padding_on_either_side_changes_nothing(folders: Folders, left: bool) -> None:
    folder = folders("qwen3", pad_token_id=0)
    texts = some_texts((9, 4))
    place = slice(5, 9) if left else slice(4)
    tokens, keep = torch.zeros(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)
    tokens[0], keep[0] = torch.tensor(texts[0].ids), 1
    tokens[1, place], keep[1, place] = torch.tensor(texts[1].ids), 1
    positions = (keep.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        found = oracle("qwen3", folder)(tokens, attention_mask=keep, position_ids=positions)
    ours = states_of(opened(folder), texts)[1][-1]
    torch.testing.assert_close(ours, found.last_hidden_state[1, place][-1], atol=1e-4, rtol=0)


@every_family
def test_a_model_stored_with_the_prefix_and_the_scores_of_tokens_is_read_too(
    name: str, folders: Folders, tmp_path: Path
) -> None:
    tiny = READ[name]
    folder = write_folder(tiny, tmp_path / "causal")
    config = json.loads((folder / "config.json").read_text())
    with open_checkpoint(folder) as checkpoint:
        assert find_family(checkpoint).head == "causal"
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
    )
    by_modules = states_of(opened(folder), some_texts((7,)))[0]
    (folder / "modules.json").unlink()
    write_json(folder / "config.json", {**config, "architectures": [f"{stem_of(tiny)}Model"]})
    assert states_of(opened(folder), some_texts((7,)))[0].equal(by_modules)


def test_a_model_that_is_not_causal_sees_the_tokens_behind_too(folders: Folders) -> None:
    folder = folders("qwen2", is_causal=False)
    (text,) = some_texts((12,))
    with torch.no_grad():
        expected = oracle("qwen2", folder)(torch.tensor([text.ids])).last_hidden_state[0]
    ours = states_of(opened(folder), [text])[0]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    changed = TokenText((*text.ids[:-1], text.ids[-1] - 1), text.segments)
    assert not states_of(opened(folder), [changed])[0][0].equal(ours[0])


def test_windows_of_a_model_that_is_not_causal_are_an_error(folders: Folders) -> None:
    with pytest.raises(ModelError, match="is_causal"):
        opened(folders("qwen2 with windows", is_causal=False))


def test_classes_without_their_matrix_are_an_error(folders: Folders, tmp_path: Path) -> None:
    folder = folders("llama", "ForSequenceClassification")
    tensors = load_file(folder / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"missing: score\.weight"):
        opened(tmp_path)


def test_every_architecture_that_reads_is_one_of_transformers() -> None:
    import transformers

    for stem in STEMS:
        assert hasattr(transformers, f"{stem}Model")
        has_classes = hasattr(transformers, f"{stem}ForSequenceClassification")
        assert has_classes == (stem not in WITHOUT_CLASSES)
        assert HUB[f"{stem}Model"][1] == "states"
