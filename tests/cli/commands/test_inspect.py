from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from decodery import LLM, ModelWarning
from decodery.cli.commands.inspect import OUTPUTS
from decodery.kernels import backends
from decodery.kernels.native.library import first_instruction_set
from decodery.loading import bandwidth, describe
from decodery.models.encoders.rows import ENCODERS as ENCODER_ROWS
from decodery.weights.formats.checkpoint import Checkpoint
from tests.cli.conftest import CONTEXT, VOCABULARY, WIDTH, Run, random_weights, write_model
from tests.encoding.colbert_folders import colbert_folder
from tests.encoding.folders import DECODER, encoder_folder
from tests.encoding.tasks.prompted.test_yes_no import log_score, reranker
from tests.kernels.native.fixtures import built
from tests.models.decoders.families import FAMILIES, write_folder
from tests.models.encoders.families import FAMILIES as ENCODERS
from tests.models.encoders.families import write_folder as write_encoder


@pytest.fixture(autouse=True)
def quick_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures the memory's bandwidth with little of it, which is fast."""
    monkeypatch.setattr(bandwidth, "MEASURED_BYTES", 1 << 20)


def test_inspect_computes_the_figures_from_the_headers_alone(
    decodery: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(Checkpoint, "read", never)
    found = decodery("inspect", model, "--json", "--backend=torch").json
    tensors = random_weights()
    parameters = sum(tensor.numel() for tensor in tensors.values())
    assert (found["architecture"], found["format"]) == ("LlamaForCausalLM", "safetensors")
    assert found["parameters"] == found["active_parameters"] == parameters
    assert (found["layers"], found["heads"], found["kv_heads"], found["head_dim"]) == (2, 4, 2, 8)
    assert (found["context_length"], found["vocabulary"]) == (CONTEXT, VOCABULARY)
    assert found["chat_template"] is True
    stored = {"format": "float32", "tensors": len(tensors), "bytes": parameters * 4, "held": None}
    assert found["weights"] == [stored]
    assert found["token"]["bytes"] == parameters * 4
    assert found["token"]["milliseconds"] == pytest.approx(
        4000 * parameters / found["token"]["bandwidth"], abs=1e-3
    )
    assert (found["backend"], found["instruction_set"]) == ("torch", None)
    assert found["steps"] == {"captured": False, "reason": "backend torch"}
    # Keys and values of two heads of 8 in two layers, four bytes each.
    assert (found["dtype"], found["kv_bytes_per_token"]) == ("float32", 2 * 16 * 2 * 4)
    assert found["memory"]["total"] == parameters * 4 + CONTEXT * 256


@pytest.mark.parametrize(("name", "number"), [("float16", 8 * 2), ("float32", 8 * 4), ("int8", 8 + 4)])
def test_inspect_computes_the_memory_with_the_precision_of_the_cache(
    decodery: Run, model: str, name: str, number: int
) -> None:
    found = decodery("inspect", model, "--json", "--kv-dtype", name).json
    assert (found["dtype"], found["kv_dtype"]) == ("float32", name)
    assert found["kv_bytes_per_token"] == 2 * 2 * 2 * number
    assert found["memory"]["kv"] == CONTEXT * found["kv_bytes_per_token"]


def test_inspect_computes_the_memory_with_another_precision_and_context(decodery: Run, model: str) -> None:
    memory = decodery("inspect", model, "--json", "--dtype=bfloat16", "--context-length=10").json["memory"]
    parameters = sum(tensor.numel() for tensor in random_weights().values())
    assert memory == {
        "context_length": 10,
        "weights": parameters * torch.bfloat16.itemsize,
        "kv": 10 * 128,
        "total": parameters * 2 + 1280,
    }


def test_inspect_refuses_a_context_that_the_model_cannot_have(decodery: Run, model: str) -> None:
    ran = decodery("inspect", model, f"--context-length={CONTEXT + 1}")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == (
        f"decodery: context_length is {CONTEXT + 1}, but the model was trained for {CONTEXT}; ask for less\n"
    )


@pytest.mark.filterwarnings("default")
def test_a_fault_that_is_corrected_is_told_once_where_a_model_is_opened(
    decodery: Run, tmp_path: Path
) -> None:
    folder = write_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert decodery("inspect", folder, "--json").json["warnings"] == []
    head = tensors["model.embed_tokens.weight"].flip(0)
    save_file({**tensors, "lm_head.weight": head}, tmp_path / "model.safetensors")
    (told,) = decodery("inspect", folder, "--json").json["warnings"]
    assert "lm_head.weight differs from model.embed_tokens.weight" in told
    assert f"\nwarning              {told}\n" in decodery("inspect", folder).out
    ran = decodery("generate", "-m", folder, "a", "--max-tokens=1")
    assert (ran.status, ran.err) == (0, f"decodery: {folder}: {told}\n")
    with pytest.warns(ModelWarning, match="differs") as caught:
        LLM(folder, kv_memory="1MB")
    assert [str(warning.message) for warning in caught] == [f"{folder}: {told}"]


def test_inspect_prints_the_same_figures_as_text(decodery: Run, plain_model: str) -> None:
    printed = decodery("inspect", plain_model, "--backend=torch").out
    assert "backend              torch, in float32\n" in printed
    assert "4 of 8, 2 for keys and values" in printed
    assert "chat template        none\n" in printed
    assert "256 bytes a token in float32" in printed
    assert "steps                not captured: backend torch\n" in printed


@built
@pytest.mark.parametrize(("form", "bits"), [(None, 32), ("bf16", 16), ("int8", 8.5)])
def test_inspect_shows_the_backend_and_the_form_of_the_weights(
    decodery: Run, model: str, form: str | None, bits: float
) -> None:
    flags = [] if form is None else [f"--quantization={form}"]
    found = decodery("inspect", model, "--json", *flags).json
    assert (found["backend"], found["dtype"], found["kv_dtype"]) == ("native", "float32", "float16")
    assert found["instruction_set"] == first_instruction_set()
    assert found["native_missing"] is None
    assert found["memory"]["kv"] == CONTEXT * 128
    # Norms stay in float32; blocks of 16 rows and groups of 32 inputs are filled up.
    packed = sum(
        -(-len(t) // 16) * 16 * -(-t.shape[1] // 32) * 32
        if form == "int8"
        else -(-len(t) // 16) * 16 * t.shape[1]
        for t in random_weights().values()
        if t.dim() == 2
    )
    assert found["memory"]["weights"] == packed * bits / 8 + 5 * WIDTH * 4
    printed = decodery("inspect", model, *flags).out
    assert f"backend              native ({first_instruction_set()}), in float32\n" in printed
    assert f"({form or 'as stored'})" in printed
    assert found["steps"] == {"captured": True, "reason": None}
    assert "steps                captured and replayed\n" in printed


def test_inspect_says_what_to_do_if_the_native_kernels_are_missing(
    decodery: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (backends, describe):
        monkeypatch.setattr(module, "missing", lambda: "there are no kernels: build them")
    found = decodery("inspect", model, "--json").json
    assert (found["backend"], found["native_missing"]) == ("torch", "there are no kernels: build them")
    assert "torch, in float32\n                     there are no kernels: build them\n" in (
        decodery("inspect", model).out
    )


def test_inspect_without_a_tokenizer_does_not_know_the_template(
    decodery: Run, model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(model, folder)
    (folder / "tokenizer.json").unlink()
    assert decodery("inspect", str(folder), "--json").json["chat_template"] is None


def with_defaults(model: str, folder: Path, generation: dict[str, Any]) -> str:
    shutil.copytree(model, folder)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return str(folder)


def test_inspect_shows_the_defaults_of_the_checkpoint_and_those_left_out(
    decodery: Run, model: str, tmp_path: Path
) -> None:
    recommended = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 0}
    damaged = {"top_k": "many", "max_length": 20, "suppress_tokens": [1, 2]}
    folder = with_defaults(model, tmp_path / "some", recommended | damaged)
    found = decodery("inspect", folder, "--json").json
    assert found["generation_defaults"] == {"temperature": 0.6, "top_p": 0.9, "suppress_tokens": [1, 2]}
    assert sorted(found["generation_left_out"]) == ["max_length", "top_k"]
    printed = decodery("inspect", folder).out
    assert "generation defaults  temperature 0.6, top_p 0.9, suppress_tokens (2)\n" in printed
    assert "top_k: top_k must be a whole number, not 'many'" in printed


def test_inspect_shows_none_for_a_checkpoint_without_defaults(
    decodery: Run, model: str, tmp_path: Path
) -> None:
    empty = with_defaults(model, tmp_path / "empty", {"transformers_version": "4.48.3"})
    for folder in (model, empty):
        assert decodery("inspect", folder, "--json").json["generation_defaults"] == {}
        printed = decodery("inspect", folder).out
        assert "generation defaults  none\n" in printed
        assert "left out" not in printed


def test_inspect_counts_the_parameters_that_a_token_uses(decodery: Run, tmp_path: Path) -> None:
    folder = str(write_folder(FAMILIES["mixtral"], tmp_path))
    found = decodery("inspect", folder, "--json", "--backend=torch").json
    # Two of five experts are idle, in each of three layers.
    active = found["parameters"] - 3 * 2 * 3 * 48 * 80
    assert found["active_parameters"] == active
    # Its head is not the embedding, of which a token reads one row.
    assert found["token"]["bytes"] == (active - 97 * 48) * 4
    assert f"{found['parameters']:,}, of which a token uses {active:,}" in decodery("inspect", folder).out


def test_inspect_needs_no_weights(decodery: Run, model: str, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if (Path(model) / name).exists():
            shutil.copy(Path(model) / name, tmp_path / name)
    found = decodery("inspect", str(tmp_path), "--json", "--backend=torch", "--dtype=float32").json
    whole = decodery("inspect", model, "--json", "--backend=torch", "--dtype=float32").json
    assert found["weights"] == []
    for key in ("parameters", "architecture", "context_length", "memory", "kv_bytes_per_token"):
        assert found[key] == whole[key]
    assert "not on this machine" in decodery("inspect", str(tmp_path)).out


@built
@pytest.mark.parametrize(("quantization", "bits"), [(None, 16), ("int8", 8.5), ("int4", 5)])
def test_without_weights_the_memory_is_that_of_the_form_in_which_they_would_be_held(
    decodery: Run, model: str, tmp_path: Path, quantization: str | None, bits: float
) -> None:
    shutil.copy(Path(model) / "config.json", tmp_path / "config.json")
    options = [] if quantization is None else [f"--quantization={quantization}"]
    found = decodery("inspect", str(tmp_path), "--json", "--backend=native", *options).json
    assert found["memory"]["weights"] == int(found["parameters"] * bits / 8)


def test_inspect_says_of_an_unsupported_config_why(decodery: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["MambaForCausalLM"]}))
    assert "MambaForCausalLM is not supported" in decodery("inspect", str(tmp_path)).err


def test_inspect_says_that_a_model_is_the_text_part_of_another(decodery: Run, tmp_path: Path) -> None:
    folder = write_folder(FAMILIES["llama"], tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    whole = {"architectures": ["LlavaForConditionalGeneration"], "text_config": config}
    (folder / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    tensors = load_file(folder / "model.safetensors")
    renamed = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    save_file({**renamed, "vision_tower.weight": torch.ones(3)}, folder / "model.safetensors")
    text = " ".join(decodery("inspect", str(folder), "--backend=torch").out.split())
    assert "the text part of LlavaForConditionalGeneration; 1 tensors of its other parts are left out" in text


def test_a_token_reads_one_row_of_an_embedding_that_is_not_the_head(
    decodery: Run, model: str, tmp_path: Path
) -> None:
    config = json.loads((Path(model) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    options = ["--json", "--backend=torch", "--dtype=float32"]
    tied, own = decodery("inspect", model, *options).json, decodery("inspect", str(tmp_path), *options).json
    assert own["parameters"] == tied["parameters"] + VOCABULARY * WIDTH
    assert own["token"]["bytes"] == tied["token"]["bytes"]


def test_inspect_says_what_an_encoder_computes_and_reads(decodery: Run, tmp_path: Path) -> None:
    encoder = write_encoder(ENCODERS["bert"], tmp_path, "classes")
    found = decodery("inspect", str(encoder), "--json", "--backend=torch").json
    parameters = sum(tensor.numel() for tensor in load_file(tmp_path / "model.safetensors").values())
    assert found["parameters"] == parameters
    assert (found["outputs"], found["labels"]) == (["classes"], ["LABEL_0", "LABEL_1", "LABEL_2"])
    assert (found["context_length"], found["text_limit"]) == (43, 43)
    assert [found[key] for key in ("kv_dtype", "kv_bytes_per_token", "steps", "token")] == [
        None,
        0,
        None,
        None,
    ]
    weights = parameters * 4
    assert found["memory"] == {"context_length": 43, "weights": weights, "kv": 0, "total": weights}
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 20}', encoding="utf-8")
    printed = decodery("inspect", str(encoder)).out
    assert "texts         at most 20 tokens\n" in printed
    assert "output        vectors, classes (classify, rerank)\n" in printed
    assert "labels        3: LABEL_0, LABEL_1, LABEL_2\n" in printed
    for word in ("cache", "steps", "a token reads", "chat template"):
        assert word not in printed


def test_inspect_names_all_labels_of_an_encoder_in_their_order(decodery: Run, tmp_path: Path) -> None:
    encoder = write_encoder(ENCODERS["bert"], tmp_path, "token_classes")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    names = {str(number): f"L{number}" for number in reversed(range(14))}
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": names}), encoding="utf-8")
    found = decodery("inspect", str(encoder), "--json").json
    assert found["labels"] == [f"L{number}" for number in range(14)]
    assert ", L10, L11, ...\n" in decodery("inspect", str(encoder)).out


def test_every_head_of_an_encoder_has_words() -> None:
    # A decoder that only reads has the one that no row names.
    heads = {*(head for _, head in ENCODER_ROWS.values()), "next_token"}
    assert heads - {"states", "pretraining"} == set(OUTPUTS)


def test_a_decoder_that_reads_is_an_encoder_with_its_outputs(decodery: Run, tmp_path: Path) -> None:
    reranker(tmp_path / "judge")
    log_score(tmp_path / "judge", true_token_id=7, false_token_id=8)
    printed = decodery("inspect", str(tmp_path / "judge")).out
    assert "kind          encoder\n" in printed
    assert "output        whether a document answers a query (rerank)\n" in printed
    folder = encoder_folder(tmp_path / "classes", "LlamaForSequenceClassification", **DECODER)
    assert "output        vectors, classes (classify, rerank)\n" in decodery("inspect", str(folder)).out


def test_a_model_of_token_vectors_is_told(decodery: Run, tmp_path: Path) -> None:
    folder = colbert_folder(tmp_path)
    found = json.loads(decodery("inspect", str(folder), "--json").out)
    assert (found["kind"], found["token_vectors"], found["text_limit"]) == ("encoder", True, 20)
    assert "output        vectors of tokens (embed_multi, rerank)\n" in decodery("inspect", str(folder)).out
