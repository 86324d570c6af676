"""Checks what real folders of BERT and of its relatives hold besides what transformers writes today."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decodery.encoding.text_batches import BatchRunner, TokenText
from decodery.errors import CheckpointError, ModelError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.contract import Head
from decodery.models.families import find_family
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.layouts.packed_cache import PackedCache
from tests.kernels.native.fixtures import built
from tests.models.encoders.families import FAMILIES, write_folder
from tests.models.encoders.test_every_encoder import opened, our_scores, scores_alone, some_texts

Weights = dict[str, Tensor]


def changed(
    folder: Path,
    target: Path,
    weights: Callable[[Weights], Mapping[str, Tensor]] = lambda found: found,
    **settings: Any,
) -> Path:
    """Writes a folder with other weights and settings; a setting that is `...` is left out."""
    target.mkdir()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | settings
    kept = {key: value for key, value in config.items() if value is not ...}
    (target / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    found = weights(load_file(folder / "model.safetensors"))
    save_file({name: each.contiguous() for name, each in found.items()}, target / "model.safetensors")
    return target


def assert_equal(folder: Path, other: Path, name: str = "bert") -> None:
    (text,) = some_texts(name, (11,))
    first, second = (scores_alone(opened(each), text) for each in (folder, other))
    assert first.keys() == second.keys()
    for kind, scores in first.items():
        assert torch.equal(scores, second[kind]), kind


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    return write_folder(FAMILIES["bert"], tmp_path / "masked", "masked_lm")


def test_names_of_norms_from_tensorflow_a_buffer_and_a_pooler_are_read(masked: Path, tmp_path: Path) -> None:
    def older(found: Weights) -> Weights:
        renamed = {
            name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): each
            for name, each in found.items()
        }
        assert renamed.keys() != found.keys()
        more = {
            "bert.embeddings.position_ids": torch.arange(43)[None],
            "bert.pooler.dense.weight": torch.ones(60, 60),
            "bert.pooler.dense.bias": torch.ones(60),
            "cls.seq_relationship.weight": torch.ones(2, 60),
            "cls.seq_relationship.bias": torch.ones(2),
        }
        return {**renamed, **more}

    assert_equal(changed(masked, tmp_path / "older", older), masked)


def test_a_stored_copy_of_the_embedding_is_the_head_and_one_name_of_its_bias_is_enough(
    masked: Path, tmp_path: Path
) -> None:
    def whole(found: Weights) -> Weights:
        bias, table = found.pop("cls.predictions.bias"), found["bert.embeddings.word_embeddings.weight"]
        found.pop("cls.predictions.decoder.weight", None)
        return {
            **found,
            "cls.predictions.decoder.bias": bias,
            "cls.predictions.decoder.weight": table.clone(),
        }

    assert_equal(changed(masked, tmp_path / "whole", whole), masked)


def test_of_two_biases_of_the_head_that_of_its_matrix_counts(masked: Path, tmp_path: Path) -> None:
    import transformers

    def both(found: Weights) -> Weights:
        return {
            **found,
            "cls.predictions.decoder.weight": found["bert.embeddings.word_embeddings.weight"].flip(0),
            "cls.predictions.decoder.bias": torch.full((97,), 3.0),
        }

    def only_bias(found: Weights) -> Weights:
        return {**found, "cls.predictions.decoder.bias": torch.full((97,), 3.0)}

    (text,) = some_texts("bert", (11,))
    for name, weights, tied in (("own", both, False), ("tied", only_bias, True)):
        folder = changed(masked, tmp_path / name, weights, tie_word_embeddings=tied)
        theirs = transformers.BertForMaskedLM.from_pretrained(folder).eval()
        with torch.no_grad():
            expected = theirs(torch.tensor([text.ids]), token_type_ids=torch.tensor([text.segments])).logits
        found = scores_alone(opened(folder), text)["masked_lm"]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name, tiny in FAMILIES.items() if "masked_lm" in tiny.heads])
def test_a_stored_head_counts_whatever_the_settings_say_of_it(name: str, tmp_path: Path) -> None:
    tiny = FAMILIES[name]
    if tiny.settings.get("tie_word_embeddings") is False:
        pytest.skip("its head is not the embedding")
    folder = write_folder(tiny, tmp_path / "folder", "masked_lm")
    with open_checkpoint(folder) as checkpoint:
        family = find_family(checkpoint).family
        names = family.hub_names(family.config.read(checkpoint))
    ((embedding, head),) = names.tied

    def flipped(found: Weights) -> Weights:
        return {**found, head: found[embedding].flip(0)}

    kept, right = (
        changed(folder, tmp_path / str(tied), flipped, tie_word_embeddings=tied) for tied in (True, False)
    )
    assert_equal(kept, right, name)
    with open_checkpoint(kept) as checkpoint:
        model: Any = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
        assert [head in warning for warning in checkpoint.warnings] == [True]
    assert not model.config.tied_head


@pytest.mark.parametrize(
    "labels",
    [
        {"id2label": {"0": "no", "1": "yes", "2": "perhaps"}, "num_labels": ...},
        {"id2label": ..., "label2id": ..., "num_labels": 3},
    ],
)
def test_labels_are_counted_by_their_names_or_by_their_number(labels: dict[str, Any], tmp_path: Path) -> None:
    folder = write_folder(FAMILIES["bert"], tmp_path / "folder", "classes")
    other = changed(folder, tmp_path / "other", **labels)
    assert opened(other).config.labels == 3
    assert_equal(other, folder)


def test_a_model_without_heads_ignores_those_that_are_stored(masked: Path, tmp_path: Path) -> None:
    plain = changed(masked, tmp_path / "plain", architectures=["BertModel"])
    nameless = changed(masked, tmp_path / "nameless", architectures=None)
    for folder in (plain, nameless):
        assert not opened(folder).heads
    tokens = torch.arange(9)[None]
    assert torch.equal(opened(plain)(tokens), opened(masked)(tokens))


def test_a_declared_head_that_is_not_stored_is_none_and_never_a_random_one(tmp_path: Path) -> None:
    for name in ("bert", "mpnet", "distilbert", "albert", "electra"):
        tiny = FAMILIES[name]
        folder = write_folder(tiny, tmp_path / name)
        for head in tiny.heads:
            declared = [tiny.architecture(head)]
            other = changed(folder, tmp_path / f"{name}-{head}", architectures=declared)
            assert not opened(other).heads
            assert_equal(other, folder, name)


def test_of_two_declared_heads_one_may_be_stored(masked: Path, tmp_path: Path) -> None:
    folder = changed(masked, tmp_path / "other", architectures=["BertForPreTraining"])
    assert_equal(folder, masked)


def test_a_head_that_is_stored_in_part_is_an_error(masked: Path, tmp_path: Path) -> None:
    def partly(found: Weights) -> Weights:
        return {name: each for name, each in found.items() if "transform.dense" not in name}

    with pytest.raises(CheckpointError, match=r"missing: cls\.predictions\.transform\.dense"):
        opened(changed(masked, tmp_path / "other", partly))


def test_the_second_text_of_a_pair_has_the_second_row_of_segments(tmp_path: Path) -> None:
    folder = write_folder(FAMILIES["bert"], tmp_path / "folder")

    def other_row(found: Weights) -> Weights:
        table = found["embeddings.token_type_embeddings.weight"].clone()
        table[1] += 1
        return {**found, "embeddings.token_type_embeddings.weight": table}

    model, other = opened(folder), opened(changed(folder, tmp_path / "other", other_row))
    pair, single = TokenText((2, 5, 3, 6, 7, 3), (0, 0, 0, 1, 1, 1)), TokenText((2, 5, 3), (0,) * 3)
    assert not torch.allclose(scores_alone(model, pair)["states"], scores_alone(other, pair)["states"])
    assert torch.equal(scores_alone(model, single)["states"], scores_alone(other, single)["states"])
    alone = {text: next(BatchRunner(model).run([text])).states for text in (pair, single)}
    batch = next(BatchRunner(model).run([single, pair]))
    for place, index in enumerate(batch.indices):
        torch.testing.assert_close(batch.of(place), alone[(single, pair)[index]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernels", ["torch", pytest.param("native", marks=built)])
def test_a_model_with_one_segment_reads_a_pair_as_one_text(kernels: str, tmp_path: Path) -> None:
    folder = write_folder(FAMILIES["roberta"], tmp_path / "folder")
    with open_checkpoint(folder) as checkpoint:
        native: Any = load_for_inference(checkpoint, dtype=torch.float32, kernels=NativeKernels())
    runner = BatchRunner(native if kernels == "native" else opened(folder))
    ids = (0, 5, 2, 2, 6, 2)
    pair, text = TokenText(ids, (0, 0, 0, 1, 1, 1)), TokenText(ids, (0,) * 6)
    assert torch.equal(*(next(runner.run([each])).states for each in (pair, text)))


POSITIONED = ("roberta", "xlm-roberta with segments and another padding id", "mpnet")


@pytest.mark.parametrize("name", POSITIONED)
def test_the_positions_of_each_packed_text_start_behind_the_padding_id(name: str, tmp_path: Path) -> None:
    folder = write_folder(FAMILIES[name], tmp_path / "folder")
    model = opened(folder)
    padding = model.config.padding
    assert model.text_positions(torch.tensor([7, 8, 9])).tolist() == [padding + 1, padding + 2, padding + 3]

    def spoilt(found: Weights) -> Weights:
        place = next(name for name in found if name.endswith("position_embeddings.weight"))
        table = found[place].clone()
        table[: padding + 1] = torch.nan
        return {**found, place: table}

    spoilt_model = opened(changed(folder, tmp_path / "spoilt", spoilt))
    texts = some_texts(name, (9, 5, 12), least=7)
    (batch,) = BatchRunner(spoilt_model).run(texts)
    for place, index in enumerate(batch.indices):
        expected = scores_alone(model, texts[index])["states"][0]
        torch.testing.assert_close(batch.of(place), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", POSITIONED)
def test_a_padding_id_inside_a_text_has_the_position_of_its_id(name: str, tmp_path: Path) -> None:
    model = opened(write_folder(FAMILIES[name], tmp_path / "folder"))
    padding = model.config.padding
    ids = [7, padding, 8, padding, padding, 9]
    places = [padding + 1, padding, padding + 2, padding, padding, padding + 3]
    tokens, others = torch.tensor([ids]), torch.tensor([[padding] * 2 + ids])
    keep = torch.tensor([[False] * 2 + [True] * 6])
    assert model.text_positions(tokens).tolist() == [places]
    assert model.text_positions(others, keep)[:, 2:].tolist() == [places]


def test_514_positions_are_512_tokens(tmp_path: Path) -> None:
    tiny = FAMILIES["roberta"]
    wide = type(tiny)(tiny.start, {**tiny.settings, "max_position_embeddings": 514})
    model = opened(write_folder(wide, tmp_path / "folder"))
    assert model.context_length == 512
    (text,) = some_texts("roberta", (512,), least=2)
    (batch,) = BatchRunner(model).run([text])
    assert batch.states.isfinite().all()


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "is_decoder": ("bert", {"is_decoder": True}),
    "position_embedding_type": ("bert", {"position_embedding_type": "relative_key"}),
    "hidden_act": ("bert", {"hidden_act": "gelu_fast_of_mine"}),
    "num_attention_heads": ("bert", {"num_attention_heads": 7}),
    "id2label": ("bert", {"id2label": {}}),
    "max_position_embeddings": ("roberta", {"max_position_embeddings": 2}),
    "relative_attention_num_buckets": ("mpnet", {"relative_attention_num_buckets": 64}),
    "num_hidden_groups": ("albert", {"num_hidden_groups": 4}),
    "inner_group_num": ("albert", {"inner_group_num": 10**6}),
    "summary_type": ("electra", {"summary_type": "last"}),
    "n_heads": ("distilbert", {"n_heads": 7}),
}


@pytest.mark.parametrize("key", REFUSED)
def test_an_absurd_or_unsupported_setting_is_an_error_that_names_it(key: str, tmp_path: Path) -> None:
    name, settings = REFUSED[key]
    folder = changed(write_folder(FAMILIES[name], tmp_path / "folder"), tmp_path / "other", **settings)
    with pytest.raises(ModelError, match=key) as raised:
        opened(folder)
    assert "\n" not in str(raised.value)


def test_an_albert_may_have_more_layers_than_tensors(tmp_path: Path) -> None:
    tiny = FAMILIES["albert"]
    deep = type(tiny)(tiny.start, {**tiny.settings, "num_hidden_layers": 40})

    def without_pooler(found: Weights) -> Weights:
        return {name: each for name, each in found.items() if "pooler" not in name}

    folder = write_folder(deep, tmp_path / "folder")
    found = changed(folder, tmp_path / "other", without_pooler)
    assert_equal(found, folder, "albert")


HEADS: tuple[tuple[str, Head], ...] = (("bert", "pretraining"), ("albert", "masked_lm"), ("mpnet", "classes"))


@built
@pytest.mark.parametrize(("name", "head"), HEADS)
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_model_from_kept_packed_weights_is_the_same_bit_for_bit(
    name: str, head: Head, quantization: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    folder = write_folder(FAMILIES[name], tmp_path / "folder", head)
    (text,) = some_texts(name, (30,))
    found = []
    for kept in (False, True, True):
        with open_checkpoint(folder) as checkpoint:
            model: Any = load_for_inference(
                checkpoint,
                dtype=torch.float32,
                kernels=NativeKernels(),
                quantization=quantization,
                cache=PackedCache(folder, quantization or "") if kept else None,
            )
        (batch,) = BatchRunner(model).run([text])
        found.append({"states": batch.states, **our_scores(model, batch.states[None], [(0, 29)])})
    assert PackedCache(folder, quantization or "").read() is not None
    for other in found[1:]:
        for kind, scores in other.items():
            assert torch.equal(scores, found[0][kind]), kind
